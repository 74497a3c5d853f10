"""tools/device_check goes its whole way on the CPU and on a worker, and in one file without the sources."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[1] / "tools" / "device_check"
CHECKS = {"parity", "real head widths", "offload", "built-in model", "copies", "operations", "steps", "coding"}


def check(folder, *arguments, tool=TOOL, environment=None):
    command = [sys.executable, str(tool), "--quick", "--output", str(folder / "out"), *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env={**os.environ, **(environment or {})}
    )
    path = folder / "out" / "device-check.json"
    return done, json.loads(path.read_text()) if path.exists() else None


@pytest.mark.by_day(0)
def test_the_packed_tool_on_the_cpu(tmp_path):
    """Everything, from another folder; the page has every row."""
    packed = tmp_path / "device_check.pyz"
    subprocess.run([sys.executable, str(TOOL / "pack.py"), str(packed)], check=True, capture_output=True)
    assert packed.stat().st_size < 16 << 20
    done, result = check(tmp_path, "--device", "cpu", tool=packed)
    assert done.returncode == 0, done.stdout + done.stderr
    assert result["checks"].keys() == CHECKS
    page = (tmp_path / "out" / "device-check.html").read_text()
    for part in result["checks"].values():
        assert part["rows"] and not part["problem"]
        for row in part["rows"]:
            assert row["name"] in page and row["name"] in done.stdout
    steps = result["checks"]["steps"]["rows"]
    assert [row["name"].split(",")[0] for row in steps] == ["bf16", "q8_0", "q4_k_m"]
    assert all(row["ms of a step of 48"] > 40 * row["ms of a block"] > 0 for row in steps)
    assert not list(tmp_path.glob("*models*"))


@pytest.mark.by_day(0)
def test_a_worker(tmp_path, workers):
    only = "parity,offload,operations,steps"
    done, result = check(tmp_path, "--device", workers[0], "--only", only)
    assert done.returncode == 0, done.stdout + done.stderr
    assert result["device"] == workers[0] and result["checks"].keys() == set(only.split(","))


def test_what_crashes_is_told_and_the_rest_goes_on(tmp_path):
    """Also a driver that writes to standard output."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nif 'operations' in sys.argv: print('{driver}', flush=True); os.kill(os.getpid(), 11)\n"
    )
    arguments = ("--device", "cpu", "--only", "operations, copies")
    done, result = check(tmp_path, *arguments, environment={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1
    assert result["checks"]["operations"]["problem"].startswith("ended with -11")
    assert not result["checks"]["copies"]["problem"]
    assert done.stdout.count("NOT WELL") == 1


def test_a_termination_leaves_nothing(tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = [sys.executable, str(TOOL), "--quick", "--device", "cpu", "--output", str(tmp_path / "out")]
    process = subprocess.Popen(command, env={**os.environ, "TMPDIR": str(scratch)}, stdout=subprocess.PIPE, text=True)
    assert "sdltx" in process.stdout.readline()
    assert list(scratch.iterdir())
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 143
    assert not list(scratch.iterdir())


@pytest.mark.by_day(1)
def test_it_ends_in_time(tmp_path):
    done, result = check(tmp_path, "--device", "cpu", "--only", "built-in model,copies", "--seconds", "1")
    assert done.returncode == 1
    assert result["checks"]["built-in model"]["problem"].startswith("stopped after 1 s")
    assert result["checks"]["copies"]["problem"].startswith("not begun")


@pytest.mark.by_day(4)
@pytest.mark.parametrize(
    "arguments",
    [
        *(
            ("--only", "parity,x"),
            ("--only", ""),
            ("--size", "768x512"),
            ("--size", "100x100x10"),
            ("--seconds", "nan"),
        ),
        *(("--seconds", "-5"), ("--output", __file__), ("--models", __file__), ("--device", "cuda7"), ("--device", "")),
    ],
    ids=" ".join,
)
def test_bad_arguments(tmp_path, arguments):
    """One line, and no check is begun."""
    done, _ = check(tmp_path, "--device", "cpu", *arguments)
    assert done.returncode == 2 and not done.stdout
    assert ": error: " in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
