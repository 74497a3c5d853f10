"""Commands as a user types them, for the tests of the command line."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

TINY_CLIP = ["-W", "64", "-H", "64", "--num-frames", "9", "--steps", "1", "-s", "1"]


def run(*arguments, **options):
    """``sdltx-cli`` with these arguments."""
    options = {"capture_output": True, "text": True, "timeout": 120, **options}
    return subprocess.run([sys.executable, "-m", "sdltx", *map(str, arguments)], **options)


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
