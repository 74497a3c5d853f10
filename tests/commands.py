"""Commands as a user types them, for the tests of the command line."""

from __future__ import annotations

import atexit
import functools
import json
import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from forking import Forks

from sdltx import _core

TINY_CLIP = ["-W", "64", "-H", "64", "--num-frames", "9", "--steps", "1", "-s", "1"]
_EASY = {"capture_output", "text", "timeout", "cwd", "env", "check"}
# At night each command starts as a user's does. A GPU's driver does not like forks.
_FORKS = not os.environ.get("SDLTX_NIGHTLY") and "Vulkan" not in _core.backends() and "CUDA" not in _core.backends()


def run(*arguments, **options):
    """``sdltx-cli`` with these arguments; by day in a fork of a process that has imported it, see forking.py."""
    options = {"capture_output": True, "text": True, "timeout": 120, **options}
    words = list(map(str, arguments))
    command = [sys.executable, "-m", "sdltx", *words]
    environment = options.get("env") or os.environ
    easy = options.keys() <= _EASY and options["capture_output"] and options["text"]
    if not _FORKS or not easy or not _forks().fits(environment):
        return subprocess.run(command, **options)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        streams = [0, out.fileno(), err.fileno()]
        try:
            folder = str(options.get("cwd") or Path.cwd())
            status = _forks().run(words, folder, environment, streams, options["timeout"])
        except TimeoutError:
            raise subprocess.TimeoutExpired(command, options["timeout"]) from None
        for file in (out, err):
            file.seek(0)
        done = subprocess.CompletedProcess(command, status, out.read(), err.read())
    if options.get("check"):
        done.check_returncode()
    return done


@functools.cache
def _forks():
    forks = Forks()
    atexit.register(forks.close)
    return forks


def generate(*arguments, prompt="a red circle", **options):
    """A tiny clip."""
    return run("generate", "-p", prompt, *TINY_CLIP, *arguments, **options)


def errors(done):
    """The lines of standard error that say what went wrong."""
    return [line for line in done.stderr.splitlines() if line.startswith(("error: ", "Traceback"))]


def names(folder):
    """What is in a folder."""
    return sorted(p.name for p in folder.iterdir())


def read_safetensors(path):
    """Header and tensor bytes."""
    data = Path(path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def write_safetensors(path, header, blob):
    """The opposite."""
    text = json.dumps(header).encode()
    Path(path).write_bytes(struct.pack("<Q", len(text)) + text + blob)
    return str(path)


def computed_in(told: dict, step: str) -> int:
    """Inputs and working memory of a step."""
    steps = [one for one in told["steps"] if one["step"] == step]
    return max(sum(of["inputs"] + of["working"] for of in one["devices"]) for one in steps)
