"""Disks that are full, that fail and that take or give less than was asked: outputs are whole or not there, in one line
it is said why, and the next start makes the same files."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).parent / "native" / "failing_io.c"
NIGHTLY = os.environ.get("SDLTX_NIGHTLY")
PLACES = 40 if NIGHTLY else 1  # of each kind of call in each command
CLIP = ["-W", "64", "-H", "64", "--num-frames", "9", "--steps", "1", "-s", "1", "-q"]
LINE = {"width": 64, "height": 64, "num_frames": 9, "num_inference_steps": 1}
# A full disk stays full, one that fails may do so once; less than all, and a signal in between, are no failures.
HOW = {
    "read": ("EIO", "short", "EINTR"),
    "write": ("ENOSPC", "EIO", "short", "EINTR"),
    "sync": ("EIO",),
    "rename": ("ENOSPC",),
    "create": ("ENOSPC", "EIO"),
}


@pytest.fixture(scope="module")
def failing(tmp_path_factory) -> Path:
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    path = tmp_path_factory.mktemp("native") / "failing_io.so"
    command = ["cc", "-std=gnu11", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", str(SOURCE), "-o", str(path), "-ldl"]
    subprocess.run(command, check=True)
    return path


class Done(NamedTuple):
    code: int
    said: str
    calls: int


def run(library: Path, folder: Path, command: list[str], kind: str, at: int = 0, how: str = "") -> Done:
    count = folder.parent / "count"
    count.unlink(missing_ok=True)
    told = {"FAIL_UNDER": str(folder), "FAIL_AT": str(at), "FAIL_HOW": how, "FAIL_KIND": kind, "FAIL_COUNT": str(count)}
    if how == "ENOSPC":
        told["FAIL_EVER"] = "1"
    environment = os.environ | told | {"LD_PRELOAD": str(library), "XDG_CACHE_HOME": str(folder.parent / "cache")}
    # What cannot be written there goes to the current folder.
    done = subprocess.run(
        [sys.executable, "-m", "sdltx", *command],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        cwd=folder.parent,
    )
    return Done(done.returncode, done.stderr, int(count.read_text() or 0) if count.exists() else 0)


def files_of(folder: Path) -> dict[str, bytes]:
    """What is in a folder, without what a batch remembers, and without latents of a clip that could not be written."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".sdltx-batch" not in path.parts and not path.name.endswith(".latents.safetensors")
    }


def generating(folder: Path) -> list[str]:
    outputs = ["-o", str(folder / "clip.mp4"), "--save-latents", str(folder / "l.safetensors")]
    return ["generate", "-p", "a red ball", *CLIP, *outputs]


def frames(folder: Path) -> list[str]:
    return ["generate", "-p", "a red ball", *CLIP, "-o", str(folder / "f_%03d.png")]


def sound(folder: Path) -> list[str]:
    return ["generate", "-p", "a red ball", *CLIP, "-o", str(folder / "s.wav")]


def batch(folder: Path) -> list[str]:
    jobs = folder.parent / "jobs.jsonl"
    jobs.write_text("".join(json.dumps({"prompt": f"clip {i}", "seed": i, **LINE}) + "\n" for i in range(2)))
    return ["batch", str(jobs), "-o", str(folder)]


def converting(suffix: str, model: str) -> Callable[[Path], list[str]]:
    kind = "q8_0" if suffix == "gguf" else "keep"
    return lambda folder: ["convert", model, str(folder / f"model.{suffix}"), "--type", kind]


COMMANDS = {"mp4": generating, "frames": frames, "sound": sound, "batch": batch, "gguf": None, "safetensors": None}


@pytest.mark.by_day(1)
@pytest.mark.parametrize("name", COMMANDS)
def test_calls_that_fail(name, failing, tmp_path, tiny_paths):
    make = COMMANDS[name] or converting(name, tiny_paths[0])
    whole = tmp_path / "whole"
    whole.mkdir()
    rng, tried, refused, wrong = random.Random(name), 0, 0, []
    for kind, ways in HOW.items():
        shutil.rmtree(whole)
        whole.mkdir()
        first = run(failing, whole, make(whole), kind)
        assert first.code == 0, first.said
        expected = files_of(whole)
        assert expected
        for how in (ways if NIGHTLY else ways[:1]) if first.calls else ():
            places = {rng.randint(1, first.calls) for _ in range(PLACES)} | ({1, first.calls} if NIGHTLY else set())
            for at in sorted(places):
                where = f"{name}, {kind} {at} of {first.calls} {how}"
                folder = tmp_path / "folder"
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                done = run(failing, folder, make(folder), kind, at, how)
                tried += 1
                refused += done.code != 0
                left = files_of(folder)
                if done.code == 0 and left != expected:
                    wrong.append(f"{where}: success, with {left.keys()} of {expected.keys()}")
                if how in ("short", "EINTR") and done.code != 0:
                    wrong.append(f"{where}: {done.said}")
                lines = [line for line in done.said.splitlines() if line.startswith("error: [")]
                if done.code and (len(lines) != 1 or "Traceback" in done.said or done.code < 0):
                    wrong.append(f"{where}: {done.code} {done.said}")
                if strange := [one for one in left if left[one] != expected.get(one)]:
                    wrong.append(f"{where}: {strange} is left")
                if not NIGHTLY and kind != next(iter(HOW)):
                    continue
                again = run(failing, folder, make(folder), kind)
                if again.code or files_of(folder) != expected:
                    wrong.append(f"{where}: then {again.code} {again.said} {files_of(folder).keys()}")
    print(f"{name}: {tried} failures, {refused} ended the command")
    assert not wrong, "\n".join(wrong)
    assert refused


AGAIN = """
import sys, sdltx
from sdltx import media
folder, calls = sys.argv[1], 0
with sdltx.load() as pipe:
    clip = {"width": 64, "height": 64, "num_frames": 9, "num_inference_steps": 1, "preset": "distilled", "seed": 1}
    for turn in range(3):
        try:
            pipe.generate("a red ball", **clip).save(f"{folder}/clip.mp4")
            pipe.sample(pipe.encode("a red ball"), **clip).save(f"{folder}/l.safetensors")
            print("whole", flush=True)
        except sdltx.SdltxError as error:
            assert str(error).startswith("["), error
            print("error", flush=True)
"""


@pytest.mark.by_day(1)
@pytest.mark.parametrize("kind", ["write", "sync", "rename", "create"])
def test_the_same_pipeline_works_afterwards(kind, failing, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    program = tmp_path / "program.py"
    program.write_text(AGAIN)
    seen = []
    for at in range(1 + PLACES):
        told = {"FAIL_UNDER": str(folder), "FAIL_AT": str(at), "FAIL_HOW": "EIO", "FAIL_KIND": kind}
        environment = os.environ | told | {"LD_PRELOAD": str(failing)}
        command = [sys.executable, str(program), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
        assert done.returncode == 0, done.stderr
        seen += done.stdout.split()
        # One call fails, in whichever turn it is.
        assert len(done.stdout.split()) == 3 and done.stdout.count("error") <= 1, f"{kind} {at}: {done.stdout}"
        assert sorted(files_of(folder)) == ["clip.mp4", "l.safetensors"]
        expected = expected if at else files_of(folder)  # noqa: F821 (of the run in which nothing failed)
        assert files_of(folder) == expected
    assert "error" in seen


@pytest.mark.by_day(1)
@pytest.mark.parametrize("kind", ["read", "open"])
def test_models_on_a_disk_that_fails(kind, failing, tmp_path, tiny_paths):
    """What describes a model is read; weights are mapped, see test_robustness."""
    folder, outputs = tmp_path / "folder", tmp_path / "outputs"
    outputs.mkdir()
    shutil.copytree(tiny_paths[1], folder / "gemma")
    shutil.copy(tiny_paths[0], folder / "model.safetensors")
    output = outputs / "clip.mp4"
    model = ["-m", str(folder / "model.safetensors"), "-m", str(folder / "gemma")]
    command = ["generate", "-p", "a red ball", *CLIP, *model, "-o", str(output)]
    first = run(failing, folder, command, kind)
    expected, refused = output.read_bytes(), 0
    assert first.code == 0 and first.calls
    for how in ("EIO", "short", "EINTR") if kind == "read" else ("EIO",):
        for at in range(1, min(first.calls, 1 + 2 * PLACES) + 1):
            output.unlink(missing_ok=True)
            done = run(failing, folder, command, kind, at, how)
            refused += done.code != 0
            lines = [line for line in done.said.splitlines() if line.startswith("error: [")]
            assert done.code == 0 or (len(lines) == 1 and "Traceback" not in done.said), f"{kind} {at} {how}: {done}"
            assert done.code == 0 or how == "EIO", f"{kind} {at} {how}: {done.said}"
            assert (output.read_bytes() == expected) if done.code == 0 else not output.exists()
    assert refused
