"""The C ABI without a pipeline: converting, and what loading the library does to a process."""

from __future__ import annotations

import ctypes as c
import signal
import subprocess
import sys
from pathlib import Path

import capi
import pytest
from capi import call, options, strings

import sdltx


def convert(paths, output, **fields):
    kept = {name: strings(*fields.pop(name)) for name in ("parts", "tensor_types") if name in fields}
    request = options("convert", **fields)
    for name, values in kept.items():
        setattr(request, name, c.addressof(values))
    call("convert", strings(*paths), c.c_size_t(len(paths)), str(output).encode(), c.byref(request))


@pytest.mark.sanitize
def test_converted_files_are_pythons(tiny_paths, tmp_path):
    heard = []

    @capi.Progress
    def progress(phase, done, total, payload):
        heard.append((phase, done, total))
        return 0

    rules = {"*.to_q.weight": "f16", "*.to_k.weight": "f32"}
    flat = [word for rule in rules.items() for word in rule]
    for name, fields, same in (
        ("a.gguf", {}, {}),
        ("b.safetensors", {"type": "keep"}, {"type": "keep"}),
        (
            "c.gguf",
            {"type": "bf16", "tensor_types": flat, "num_tensor_types": 2},
            {"type": "bf16", "tensor_types": rules},
        ),
        (
            "d.safetensors",
            {"type": "keep", "parts": ["video_vae"], "num_parts": 1},
            {"type": "keep", "parts": ["video_vae"]},
        ),
    ):
        convert(tiny_paths, tmp_path / name, progress=progress, **fields)
        sdltx.convert(*tiny_paths, output=tmp_path / f"python-{name}", **same)
        assert (tmp_path / name).read_bytes() == (tmp_path / f"python-{name}").read_bytes()
    assert {entry[0] for entry in heard} == {b"convert"}
    assert heard[-1][1] == heard[-1][2]
    assert len(list(tmp_path.iterdir())) == 8


@pytest.mark.sanitize
def test_what_cannot_be_converted_leaves_everything_as_it_was(tiny_paths, tmp_path):
    there = tmp_path / "there.gguf"
    there.write_text("mine")
    protected = tmp_path / "protected.gguf"
    protected.write_text("mine")
    protected.chmod(0o444)
    mine = tmp_path / "mine.safetensors"
    mine.write_bytes(Path(tiny_paths[0]).read_bytes())
    link = tmp_path / "link.safetensors"
    link.symlink_to(mine)
    stop = capi.Progress(lambda *_: 1)
    for output, fields, status, line in (
        (there, {"progress": stop}, capi.CANCELLED, "cancelled"),
        (there, {"type": "q9"}, capi.INVALID, "q9"),
        (there, {"tensor_types": ["*", "q9"], "num_tensor_types": 1}, capi.INVALID, "q9"),
        (there, {"parts": ["brain"], "num_parts": 1}, capi.INVALID, "brain"),
        (there, {"imatrix": str(tmp_path / "missing")}, 1, "missing"),
        (there, {"threads": -1}, capi.INVALID, "threads"),
        (protected, {}, capi.INVALID, "write-protected"),
        (tmp_path / "x.bin", {}, capi.INVALID, "neither in .gguf nor"),
        (tmp_path / "missing" / "x.gguf", {}, capi.INVALID, "No such file or directory"),
        (tmp_path, {}, capi.INVALID, "neither"),
        (link, {"type": "keep"}, capi.INVALID, "is also an input"),
    ):
        with pytest.raises(capi.Failed, match=line) as failed:
            convert([mine], output, **fields)
        assert failed.value.status == status, str(failed.value)
        assert "\n" not in str(failed.value)
    assert there.read_text() == protected.read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"there.gguf", "protected.gguf", "mine.safetensors", link.name}


def test_links_are_written_through(tiny_paths, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    link = tmp_path / "link.gguf"
    link.symlink_to(folder / "real.gguf")
    convert(tiny_paths, link)
    assert link.is_symlink()
    assert [path.name for path in folder.iterdir()] == ["real.gguf"]
    loop = tmp_path / "loop.gguf"
    loop.symlink_to(loop)
    with pytest.raises(capi.Failed, match="leads to itself"):
        convert(tiny_paths, loop)


CHILD = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
def state():
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    caught = int(status["SigCgt"], 16) & ~(3 << 31)  # without those that the C library uses for its threads
    return caught, status["SigIgn"], status["SigBlk"]
before = state()
import capi
explain, path, *more = sys.argv[2:]
if explain == "1":
    capi.LIBRARY.sdltx_explain_crashes()
    capi.LIBRARY.sdltx_explain_crashes()
pipeline = capi.load(path, *more)
assert (state() == before) == (explain != "1"), (before, state())
os.truncate(path, 4096)
print("cut", flush=True)
try:
    capi.made("generate", pipeline, capi.request(prompt="x"), capi.BOTH, None, None)
except capi.Failed as error:
    print(error)
"""


@pytest.mark.parametrize("explain", [0, 1])
def test_crashes_are_explained_to_those_who_ask(tiny_paths, tmp_path, explain):
    """Otherwise loading the library and a model sets no handler of the process."""
    copy = tmp_path / "model.safetensors"
    copy.write_bytes(Path(tiny_paths[0]).read_bytes())
    command = [sys.executable, "-c", CHILD, str(Path(__file__).parent), str(explain), str(copy), *tiny_paths[1:]]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.startswith("cut\n"), done.stderr
    assert done.returncode == (0 if explain else -signal.SIGBUS)
    assert (f"[{copy}] was cut off" in done.stdout) == bool(explain)
