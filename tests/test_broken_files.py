"""Every broken file through everything that reads its kind: a result or one typed line, soon and in little memory."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import broken_files
import pytest

import sdltx
from sdltx import _core, _readers, images, media
from sdltx.cli import batch_lines

MIB = 2**20
NIGHTLY = os.environ.get("SDLTX_NIGHTLY")
LIBC = ctypes.CDLL(None)


SECONDS, SECONDS_OF_MIB = 0.05, 0.2  # to refuse a file


class Measured(NamedTuple):
    """What came of a call: the error if it was one that is meant, and seconds of computing."""

    error: str | None
    seconds: float


def status(name: str) -> int:
    with Path("/proc/self/status").open() as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def new_peak() -> int:
    """Begins the peak of memory anew and returns the bytes in use."""
    LIBC.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def measured(call: Callable[[], object]) -> Measured:
    """Other exceptions than ours come out."""
    error, start = None, time.process_time()
    try:
        call()
    except sdltx.SdltxError as raised:
        error = f"{type(raised).__name__} {raised}"
    return Measured(error, time.process_time() - start)


def as_suffix(use: Callable[[Path], object], suffix: str) -> Callable[[Path], object]:
    """The same of a file that is called otherwise."""

    def call(path: Path) -> object:
        copy = path.with_suffix(suffix)
        copy.write_bytes(path.read_bytes())
        return use(copy)

    return call


def uses(
    tmp_path: Path, tiny: sdltx.Pipeline, tiny_paths: list[str], tiny_dir: Path
) -> dict[str, dict[str, Callable[[Path], object]]]:
    """By kind everything that reads a file of it. The first of each decides whether it is accepted."""
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (encoder / name).write_bytes((Path(tiny_paths[1]) / name).read_bytes())

    def as_vocabulary(path: Path) -> None:
        target = encoder / ("tokenizer.model" if path.suffix == ".model" else "tokenizer.json")
        for other in encoder.glob("tokenizer.*"):
            other.unlink()
        target.write_bytes(path.read_bytes())
        sdltx.load(tiny_paths[0], encoder).close()

    def converted(path: str | Path, **options: object) -> None:
        sdltx.convert(path, output=tmp_path / "out.gguf", type="q8_0", **options)

    clip = {"width": 64, "height": 64, "num_frames": 9, "num_inference_steps": 1}
    of_models: dict[str, Callable[[Path], object]] = {
        "open": lambda path: _core.ModelFiles([str(path)]),
        "inspect": sdltx.inspect,
        "load": lambda path: sdltx.load(path).close(),
        "beside a model": lambda path: sdltx.load(*tiny_paths, path).close(),
        "convert": converted,
        "lora": lambda path: tiny.estimate(loras=[path], **clip),
        "upscaler": lambda path: tiny.resolve(upscaler=path, **clip),
        "imatrix": lambda path: converted(tiny_paths[0], imatrix=path),
        "latents": sdltx.Latents.load,
        "context": sdltx.Context.load,
    }
    return {
        "safetensors": of_models,
        "gguf": of_models,
        "sentencepiece": {"load": as_vocabulary},
        "tokenizer_json": {"load": as_vocabulary},
        "lora": {"check": lambda path: tiny.estimate(loras=[path], **clip)},
        "imatrix": {"convert": lambda path: converted(tiny_paths[0], imatrix=path)},
        "latents": {"load": sdltx.Latents.load},
        "picture": {
            "read": images.read,
            "settings": media.read_settings,
            "settings of gif": as_suffix(media.read_settings, ".gif"),
            "settings of webp": as_suffix(media.read_settings, ".webp"),
        },
        "sound": {"read": _readers.read_audio, "frames": _readers.read_frames, "settings": media.read_settings},
        "request": {
            "line": lambda path: batch_lines.read(str(path), {"prompt": "x"}, "mp4"),
        },
    }


@pytest.mark.sanitize
@pytest.mark.parametrize("kind", broken_files.MAKERS)
def test_broken_files(kind, tmp_path, tiny, tiny_paths, tiny_dir):
    wrong, slowest, largest = [], 0.0, 0
    table = list(uses(tmp_path, tiny, tiny_paths, tiny_dir)[kind].items())
    runs = 0
    # The peak of a process only grows: from small files to large ones it is that of each.
    cases = sorted(broken_files.cases(kind), key=lambda case: len(case.data))
    before = new_peak()
    for place, case in enumerate(cases):
        path, size = broken_files.write(case, tmp_path), len(case.data) / MIB
        # By day each file is opened, and every third goes through one of the other uses.
        for number, (use, call) in enumerate(table):
            if not NIGHTLY and number > 0 and number != 1 + place % (3 * (len(table) - 1)):
                continue
            runs += 1
            where = f"{case.name}, {use}"
            try:
                result = measured(lambda call=call, path=path: call(path))
            except Exception as error:
                wrong.append(f"{where}: {type(error).__name__}: {error}")
                continue
            if number == 0 and case.accepted is not None and (result.error is None) != case.accepted:
                wrong.append(f"{where}: {'accepted' if result.error is None else result.error}")
            if result.error and ("\n" in result.error or "[" not in result.error or len(result.error) > 2000):
                wrong.append(f"{where}: not a line for people: {result.error[:300]!r}")
            if result.error and not case.accepted:
                for _ in range(3):
                    if result.seconds > SECONDS + SECONDS_OF_MIB * size:  # it may be unlucky
                        result = measured(lambda call=call, path=path: call(path))
                if result.seconds > SECONDS + SECONDS_OF_MIB * size:
                    wrong.append(f"{where}: took {result.seconds * 1000:.0f} ms of {size:.2f} MiB")
                slowest = max(slowest, result.seconds)
            peak = status("VmHWM") - before
            if peak > (64 + 4 * size) * MIB and peak > largest:  # alone, without what the files before it left
                before = new_peak()
                measured(lambda call=call, path=path: call(path))
                peak = status("VmHWM") - before
                if peak > (64 + 4 * size) * MIB:
                    wrong.append(f"{where}: took {peak / MIB:.0f} MiB of {size:.2f} MiB")
            largest = max(largest, peak)
    print(f"{kind}: {len(cases)} files, {runs} uses, {slowest * 1000:.0f} ms to refuse one, {largest / MIB:.0f} MiB")
    assert not wrong, "\n".join(wrong)
    assert len(cases) > 20
