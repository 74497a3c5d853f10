"""What Python reads, under atheris: ``python tools/fuzz/python_readers.py TARGET FOLDER...`` with libFuzzer's options.

With ``--replay`` the folders' inputs are only run once, without atheris, for what measures coverage.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any
from unittest import mock

import sdltx
from sdltx import _encoders, _pictures, _readers, library, material, media, sound
from sdltx.cli import _parser, batch_lines, batch_state, config, repeat
from sdltx.options import ROWS

# Whatever is imported later is not instrumented.
assert _encoders and sound
FOLDER = Path(tempfile.mkdtemp())
PARSER = _parser()
NAMES = ("png", "jpg", "webp", "gif", "bmp", "tiff")
FILMS = ("mp4", "webm", "gif", "webp", "png", "wav", "safetensors")
SOUNDS = ("wav", "mp3", "flac", "mp4", "ogg")


def file_of(data: bytes, suffix: str) -> Path:
    """The same file each time, so that nothing piles up."""
    path = FOLDER / f"x.{suffix}"
    path.write_bytes(data)
    return path


def named(data: bytes, suffixes: tuple[str, ...]) -> Path:
    """A file of a kind that the first byte says."""
    return file_of(data[1:], suffixes[data[0] % len(suffixes)] if data else suffixes[0])


MATERIAL = ("images", "sound", "film", "references", "upscalers", "initial", "noise", "tiling", "prompt")
PARTS = ("path", "frame", "strength", "crf", "start", "mask", "attention", "sha256", "mask_sha256", "attention_sha256")
PLAIN = (None, True, False, 0, 1, -1, 2**31, 2**63, 10**400, 0.5, 1e300, float("inf"), float("nan"), "", "x", "a.png")


def value_of(data: bytes) -> Any:
    """What JSON says; of other bytes an object with names that there are."""
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(data)
    left = iter(data)
    names = (*ROWS, *MATERIAL)
    told = {}
    while (byte := next(left, None)) is not None:
        told[names[byte % len(names)]] = made(left, 0)
    return told


def made(left: Iterator[int], depth: int) -> Any:
    """A value of the bytes that are left: plain, a list, an object with names of material, a choice of an option."""
    kind = next(left, 0)
    if kind < 96 or depth > 3:
        return PLAIN[kind % len(PLAIN)]
    if kind < 128:
        return [choice for row in ROWS.values() for choice in row["choices"]][kind % 16]
    if kind < 192:
        return [made(left, depth + 1) for _ in range(kind % 5)]
    return {PARTS[next(left, 0) % len(PARTS)]: made(left, depth + 1) for _ in range(kind % 5)}


def request(data: bytes) -> None:
    asked = sdltx.Request.from_dict(value_of(data))
    told = json.loads(json.dumps(asked.to_dict()))
    again = sdltx.Request.from_dict(told)
    assert json.loads(json.dumps(again.to_dict())) == told, "it is not the same when it is read again"


def line(data: bytes) -> None:
    batch_lines.read(str(file_of(data, "jsonl")), {"prompt": "a fox", "width": 64}, "mp4")


def words() -> list[str]:
    return ["generate", "--from", str(FOLDER / "x.mp4"), "-o", str(FOLDER / "y.mp4")]


def remembered(data: bytes) -> None:
    """The settings in a clip, as --from takes them."""
    settings = value_of(data)
    if isinstance(settings, dict):
        with mock.patch.object(media, "read_settings", lambda path: settings):
            repeat.repeat(PARSER.parse_args(words()))


def configured(data: bytes) -> None:
    args = PARSER.parse_args(words())
    with mock.patch.dict(os.environ, {"SDLTX_CONFIG": str(file_of(data, "toml"))}):
        config.apply(args, words())


def state(data: bytes) -> None:
    """What a batch has remembered: whatever it is, the batch goes on."""
    folder = FOLDER / ".sdltx-batch"
    folder.mkdir(exist_ok=True)
    (folder / "state.json").write_bytes(data)
    (folder / "lock").write_bytes(data[:40])
    clip = file_of(b"", "mp4")
    of = batch_state.State(FOLDER)
    of._lock.close()
    of.is_done("a.mp4", "key", [clip])
    assert of.frames_of("a.mp4") >= 1
    assert of.seed_of("key") >= 0


def clip(data: bytes) -> None:
    media.read_settings(named(data, FILMS))


def picture(data: bytes) -> None:
    pixels = _pictures.read(named(data, NAMES))
    assert pixels.ndim == 3 and pixels.shape[2] == 3


def samples(data: bytes) -> None:
    _readers.read_audio(named(data, SOUNDS))


def film(data: bytes) -> None:
    material._pictures_of(named(data, FILMS))


def latents(data: bytes) -> None:
    path = file_of(data, "safetensors")
    for load in (sdltx.Latents.load, sdltx.Context.load):
        with contextlib.suppress(sdltx.ModelFileError):
            load(path)


def shards(data: bytes) -> None:
    """The listing of a checkpoint in several files."""
    (FOLDER / "config.json").touch()
    (FOLDER / "model.safetensors.index.json").write_bytes(data)
    library.is_complete_folder(FOLDER)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "py_request": request,
    "py_line": line,
    "py_remembered": remembered,
    "py_config": configured,
    "py_state": state,
    "py_clip": clip,
    "py_picture": picture,
    "py_sound": samples,
    "py_film": film,
    "py_latents": latents,
    "py_shards": shards,
}


def instrument() -> None:
    """Makes our functions tell atheris where they have been: its import hook does not see a package in development."""
    import atheris

    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "sdltx":
            for owner in (module, *(one for one in vars(module).values() if isinstance(one, type))):
                if getattr(owner, "__module__", name) != name:
                    continue
                for function in list(vars(owner).values()):
                    function = getattr(function, "__func__", function)  # of a class method
                    if isinstance(function, FunctionType) and function.__module__ == name:
                        atheris.instrument_func(function)


def main() -> None:
    """Runs what the arguments say."""
    arguments = [one for one in sys.argv if one != "--replay"]
    target = TARGETS[arguments.pop(1)]

    def once(data: bytes) -> None:
        try:
            target(data)
        except sdltx.SdltxError as error:
            told = str(error)
            assert told and "\n" not in told, f"not one line: {told!r}"
            assert len(told) < 4096, f"longer than anybody reads: {told[:100]!r}"

    if "--replay" in sys.argv:
        for folder in arguments[1:]:
            for path in sorted(Path(folder).iterdir()):
                once(path.read_bytes())
        return
    import atheris

    instrument()
    atheris.Setup(arguments, once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
