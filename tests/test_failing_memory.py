"""Memory that runs out anywhere, and threads that do not start: an error of the call, and the next one works."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import sdltx
from sdltx import _core

SOURCE = Path(__file__).parent / "native" / "failing_memory.c"
PACKAGE = Path(_core.__file__).parent
NIGHTLY = os.environ.get("SDLTX_NIGHTLY")


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    path = tmp_path_factory.mktemp("native") / "failing_memory"
    command = [
        "cc",
        "-std=gnu11",
        "-O1",
        "-Wall",
        "-Werror",
        "-rdynamic",
        SOURCE,
        f"-I{PACKAGE / 'include'}",
        "-o",
        path,
    ]
    subprocess.run([*command, PACKAGE / "libsdltx.so", f"-Wl,-rpath,{PACKAGE}", "-ldl", "-lpthread"], check=True)
    return path


def ran(program: Path, *arguments: object) -> tuple[int, int]:
    """How many runs failed, and how many did not need what failed."""
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stderr[-2000:]
    print(done.stdout)
    failed, survived = map(int, re.findall(r"(\d+) (?:failed|survived)", done.stdout))
    return failed, survived


DEMO = Path(sdltx.__file__).parent / "demo"


def test_the_first_allocations_of_a_clip_may_fail(program):
    failed, _ = ran(program, "generate", 1, 1, 2000 if NIGHTLY else 40, DEMO)
    assert failed


@pytest.mark.by_day(0)
def test_every_allocation_of_a_clip_may_fail(program):
    """To the end with a stride: a prime, so that all kinds are met.

    Which allocation a number is depends on threads, so this meets now and then what ends the process: see SECURITY.md.
    """
    failed, _ = ran(program, "generate", 7, 53, 100_000, DEMO)
    assert failed > 15


def test_allocations_of_loading_may_fail(program):
    """Not all: the JSON library's destructors allocate, and end the process where that fails."""
    failed, _ = ran(program, "load", 1, 1, 250 if NIGHTLY else 100, DEMO)
    assert failed


def test_every_thread_may_fail_to_start(program):
    ran(program, "threads", 1, 1, 40, DEMO)
