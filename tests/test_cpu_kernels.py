"""One library has CPU kernels for several instruction sets: all are right, and the best that runs here is used."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from commands import errors, run

from sdltx import _core

NAMES = _core.cpu_kernel_names()
OTHERS = [name for name in NAMES if name != _core.cpu_kernels()]  # none in a build for this machine
# What they may use at most, as the kernels tell it themselves.
FEATURES = {
    "x86-64-v2": {"SSE3", "SSSE3"},
    "x86-64-v3": {"AVX", "AVX2", "F16C", "FMA", "BMI2"},
    "x86-64-v3+vnni": {"AVX_VNNI"},
    "x86-64-v4+vnni": {"AVX512", "AVX512_VNNI"},
    "x86-64-v4+bf16": {"AVX512_BF16"},
}
BELOW = {
    "x86-64-v2": [],
    "x86-64-v3": ["x86-64-v2"],
    "x86-64-v3+vnni": ["x86-64-v2", "x86-64-v3"],
    "x86-64-v4+vnni": ["x86-64-v2", "x86-64-v3"],
    "x86-64-v4+bf16": ["x86-64-v2", "x86-64-v3", "x86-64-v4+vnni"],
}


def with_kernels(name):
    # How many tests are skipped is counted for the whole suite.
    return {k: v for k, v in os.environ.items() if k != "SDLTX_EXPECTED_SKIPS"} | {"SDLTX_CPU_KERNELS": name}


def test_the_best_is_used():
    environment = {key: value for key, value in os.environ.items() if key != "SDLTX_CPU_KERNELS"}
    told = json.loads(run("doctor", "--json", env=environment).stdout)
    assert told["levels"] == NAMES
    assert told["level"] == NAMES[0]
    assert NAMES[-1] in ("native", "x86-64-v2")
    if NAMES != ["native"]:
        flags = Path("/proc/cpuinfo").read_text().split()
        assert ("x86-64-v3" in NAMES) == ("avx2" in flags)
        assert ("x86-64-v4+vnni" in NAMES) == ("avx512_vnni" in flags)
        assert ("x86-64-v4+bf16" in NAMES) == ("avx512_bf16" in flags)


@pytest.mark.parametrize("name", NAMES)
def test_levels_are_what_their_names_say(name):
    told = json.loads(run("doctor", "--json", env=with_kernels(name)).stdout)
    assert told["level"] == name
    if name == "native":
        flags = Path("/proc/cpuinfo").read_text().split()
        assert {"AVX2", "FMA"} & set(told["kernels"]) or "avx2" not in flags
        assert "built for" in next(line for line in run("doctor").stdout.splitlines() if line.startswith("kernels"))
        return
    wanted = set().union(*(FEATURES[level] for level in [*BELOW[name], name]))
    assert set(told["kernels"]) == wanted


@pytest.mark.parametrize("name", OTHERS)
def test_every_level_is_exact(name):
    """The comparison of the transformer with the reference, and single operations, on other kernels."""
    folder = Path(__file__).parent
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q"]
    command += [folder / "test_transformer.py", folder / "test_ops.py"]
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env=with_kernels(name), cwd=folder.parent
    )
    assert done.returncode == 0, done.stdout
    assert "[100%]" in done.stdout


@pytest.mark.parametrize("name", ["x86-64-v9", "avx2"])
def test_unknown_levels_are_named(name, tmp_path):
    done = run("generate", "-p", "x", "-o", tmp_path / "x.mp4", env=with_kernels(name))
    assert done.returncode == 2
    (line,) = errors(done)
    assert "SDLTX_CPU_KERNELS" in line
    assert NAMES[-1] in line
    told = json.loads(run("doctor", "--json", env=with_kernels(name)).stdout)
    assert told["level"] is None
    assert "SDLTX_CPU_KERNELS" in told["problems"][0]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors have one kind of kernels")
def test_a_build_for_a_better_processor_says_so():
    """In one line, and before an instruction that there is not."""
    lacking = {"SDLTX_PRETEND_CPU_LACKS": "sse3 ssse3", "PATH": os.environ["PATH"]}
    for words in (["generate", "-p", "x", "--dry-run"], ["devices"], ["convert", "x.gguf", "y.gguf", "--type", "keep"]):
        done = run(*words, env=lacking)
        if words[0] != "convert":
            assert done.returncode == 6
            (line,) = errors(done)
            assert "for a processor that has sse3, ssse3, which this one lacks; build it here" in line
    told = json.loads(run("doctor", "--json", env=lacking).stdout)
    assert told["level"] is None
    assert told["levels"] == told["devices"] == []
    assert "which this one lacks" in told["problems"][0]


@pytest.mark.skipif("x86-64-v3" not in NAMES, reason="a build for this machine alone")
def test_what_lacks_something_gets_what_is_below():
    for lacking, level in (("avx2", "x86-64-v2"), ("avx512f avx_vnni", "x86-64-v3")):
        told = json.loads(run("doctor", "--json", env={**os.environ, "SDLTX_PRETEND_CPU_LACKS": lacking}).stdout)
        assert told["level"] == level
