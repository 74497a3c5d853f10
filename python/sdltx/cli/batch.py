"""``sdltx-cli batch``: many clips, each part of the model loaded once; what was interrupted goes on where it was."""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sdltx
from sdltx import pipeline
from sdltx.options import NAMES, ROWS

from .._files import exists, failures_named, is_folder, replacing
from ..contexts import ContextCache
from . import plan
from .clips import FileClip, Files
from .generate import clip_options, spatial_upscaler
from .job import Job
from .options import add_command, message_options, model_options, output_options

_STATE = ".sdltx-batch"
_MOST_BYTES = 64 << 20
_TOGETHER = 32  # clips of which each part of the model is loaded once
_SUFFIXES = ("mp4", "webm", "gif", "webp", "png", "wav")


def add(commands: Any) -> None:
    """Adds the command."""
    command = add_command(
        commands,
        "batch",
        _batch,
        "make a clip of each line of a file; if it is stopped, the same command goes on where it was",
        "sdltx-cli batch jobs.jsonl -o clips/\n\n"
        'a line:\n  {"prompt": "a red circle moves left", "seed": 1, "width": 512, "output": "circle.mp4"}',
    )
    command.add_argument(
        "jobs",
        metavar="JOBS",
        help="a JSON object a line, with the options of a clip by their names, images (path, frame, strength, crf) and "
        "output, the name of the file (default: the number of the line); - reads standard input",
    )
    model_options(command)
    clip_options(command)
    group = output_options(command, required=True)
    group.add_argument("--format", choices=_SUFFIXES, default="mp4", help="of files without a name (default: mp4)")
    group.add_argument("--no-cache", action="store_true", help="keep nothing of prompts in the user's cache folder")
    message_options(command)


class _BatchClip(FileClip):
    """Leaves a trace of how far it is in the folder of its batch."""

    def __init__(self, job: Job, request: sdltx.Request, files: Files, state: _State, key: str, **given: Any) -> None:
        self._kept = state.folder / f"{key}.safetensors"
        super().__init__(job, request, files, latents=_kept_latents(self._kept), **given)
        self._job, self._state, self._key = job, state, key

    def on_denoised(self) -> None:
        """Keeps it until it is a clip."""
        super().on_denoised()
        assert self.latents is not None
        self.latents.save(self._kept)
        self.given = True

    def on_decoded(self) -> None:
        """Remembers that there is nothing more to do."""
        super().on_decoded()
        self._state.note_done(self._key)
        self._kept.unlink(missing_ok=True)

    def on_finished(self) -> None:
        """Says what went wrong."""
        if self.error is not None:
            self._job.bars.say(f"error: {self.files.output}: {self.error}")


def _batch(job: Job) -> None:
    from .. import media

    args = job.args
    if args.audio_out is not None:
        raise sdltx.InvalidRequestError("[batch] --audio-out names one file; give lines an output that ends in .wav")
    start = time.monotonic()
    wanted = _wanted(args, job)
    folder = Path(args.output)
    job.reads(None if args.jobs == "-" else args.jobs, *(path for request, _ in wanted for path in _inputs(request)))
    if exists(folder) and not is_folder(folder):
        raise sdltx.InvalidRequestError(f"[batch] -o {folder} is no folder; give one for the clips")
    pipe = job.load()
    pipe.require("text encoder", "text projection", "transformer", "video decoder")
    state = _State(folder)
    cache = None if args.no_cache else ContextCache.of(pipe)
    clips = []
    for request, name in wanted:
        key = state.key_of(request, name, pipe)
        if state.is_done(key, folder / name):
            continue
        changes: dict[str, Any] = {}
        if request.options.get("seed", -1) < 0:
            changes["seed"] = state.seed_of(key)
        if args.two_stage:
            changes["upscaler"] = [spatial_upscaler(pipe)]
        request = request.replaced(**changes)
        resolved = pipe.resolve(**request.options)
        pipe.check(conditions=request.conditions, **request.options)
        media.check_output(folder / name)
        job.check_length(resolved["num_frames"], str(folder / name))
        clip = _BatchClip(job, request, Files(str(folder / name)), state, key, cache=cache)
        clip.look_up(plan.is_guided(resolved), pipe.info["negative_prompt"])
        clips.append(clip)
    if len(clips) < len(wanted):
        job.note(f"{len(wanted) - len(clips)} of {len(wanted)} clips are there already")
    # Contexts of many prompts would fill the memory.
    try:
        for first in range(0, len(clips), _TOGETHER):
            job.run(pipe, clips[first : first + _TOGETHER])
    except BaseException:
        job.rescued.append("the same command goes on where it was")
        raise
    failed = [clip for clip in clips if clip.error is not None]
    job.note(f"{len(clips) - len(failed)} clips made, {len(failed)} failed, took {time.monotonic() - start:.1f} s")
    if failed:
        assert failed[0].error is not None
        raise failed[0].error


def _wanted(args: argparse.Namespace, job: Job) -> list[tuple[sdltx.Request, str]]:
    """What the lines ask for, with what the command line says for all, and the names of their files."""
    given = {name: getattr(args, name, None) for name in NAMES if name != "audio"}
    defaults: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    for name in ("loras", "loras_stage2"):
        if name in defaults:
            defaults[name] = [list(one) for one in defaults[name]]
    if args.no_audio:
        defaults["audio"] = False
    if (tiling := job.tiling()) is not None:
        defaults["tiling"] = list(tiling)
    near = "" if args.jobs == "-" else os.path.dirname(args.jobs)  # noqa: PTH120
    wanted = [_request(number, line, defaults, near, args.format) for number, line in _lines(args.jobs)]
    names = [name for _, name in wanted]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise sdltx.InvalidRequestError(f"[batch] several lines write {twice[0]}; give each its own output")
    for request, name in wanted:
        if Path(name).suffix[1:].lower() not in _SUFFIXES:
            raise sdltx.InvalidRequestError(f"[batch] {name} has no suffix that sdltx knows: {', '.join(_SUFFIXES)}")
        try:
            pipeline.check(prompt=request.prompt, tiling=request.tiling, **request.options)
        except sdltx.InvalidRequestError as error:
            raise sdltx.InvalidRequestError(f"[batch] {name}: {error}") from None
    return wanted


def _lines(path: str) -> list[tuple[int, Any]]:
    """The objects of a file, each with the number of its line."""
    try:
        if path == "-":
            data = sys.stdin.buffer.read(_MOST_BYTES + 1)
        else:
            with Path(path).open("rb") as file:
                data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise sdltx.InvalidRequestError(f"[batch] cannot read {path}: {error.strerror}") from None
    if len(data) > _MOST_BYTES:
        raise sdltx.InvalidRequestError(f"[batch] {path} is too long; at most {_MOST_BYTES >> 20} MiB are possible")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise sdltx.InvalidRequestError(f"[batch] {path} is not UTF-8 text (byte {error.start})") from None
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            found.append((number, json.loads(line)))
        except (ValueError, RecursionError) as error:
            raise sdltx.InvalidRequestError(f"[batch] line {number} is not JSON: {error}") from None
    if not found:
        raise sdltx.InvalidRequestError(f"[batch] {path} has no lines")
    return found


def _request(number: int, line: Any, defaults: dict[str, Any], near: str, suffix: str) -> tuple[sdltx.Request, str]:
    """What a line asks for, and the name of its file."""
    where = f"[batch] line {number}"
    if not isinstance(line, dict):
        raise sdltx.InvalidRequestError(f"{where}: expected an object with options by name")
    name = line.pop("output", f"{number:04d}.{suffix}")
    if not isinstance(name, str) or not name or "/" in name or name.startswith(".") or "\0" in name:
        raise sdltx.InvalidRequestError(f"{where}: output {name!r} is no name of a file in the folder of -o")
    try:
        return sdltx.Request.from_dict({**defaults, **line}, lambda path: _beside(path, near)), name
    except sdltx.InvalidRequestError as error:
        raise sdltx.InvalidRequestError(f"{where}: {error}") from None


def _inputs(request: sdltx.Request) -> Iterator[str]:
    """The files that a clip is made from."""
    for one in request.conditions:
        if isinstance(one.image, (str, os.PathLike)):
            yield os.fspath(one.image)
    for name, value in request.options.items():
        kind = ROWS[name]["kind"]
        if kind == "file":
            yield value
        elif kind in ("files", "loras"):
            yield from (one if isinstance(one, str) else one[0] for one in value)


def _beside(path: str, folder: str) -> str:
    """A path of a line: as it says, else seen from the folder of the lines."""
    beside = os.path.join(folder, path)  # noqa: PTH118
    return beside if folder and not exists(path) and exists(beside) else path


def _kept_latents(path: Path) -> sdltx.Latents | None:
    """A clip that was denoised before."""
    if not path.exists():
        return None
    try:
        return sdltx.Latents.load(path)
    except sdltx.SdltxError:
        return None


class _State:
    """What a batch remembers in a folder beside its clips: the seeds that were drawn, and which clips are done."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / _STATE
        self._file = self.folder / "state.json"
        with failures_named(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = (self.folder / "lock").open("w")  # as long as this lives
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise sdltx.BusyError(
                    f"[batch] another command is making clips in {folder}; wait for its end"
                ) from None
        self._told: dict[str, Any] = {"done": [], "seeds": {}}
        try:
            told = json.loads(self._file.read_text())
            if isinstance(told.get("done"), list) and isinstance(told.get("seeds"), dict):
                self._told = told
        except (OSError, ValueError, AttributeError):
            pass  # there is none yet

    def key_of(self, request: sdltx.Request, name: str, pipe: sdltx.Pipeline) -> str:
        """A name for what is asked for, by this model and into this file."""
        told = json.dumps([request.to_dict(), name, pipe.files, pipe.precision], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:32]

    def is_done(self, key: str, output: Path) -> bool:
        """Whether its file is there."""
        first = output.with_name(f"{output.stem}_0001{output.suffix}")  # of a picture per frame
        return key in self._told["done"] and (output.exists() or first.exists())

    def seed_of(self, key: str) -> int:
        """The seed of a clip that asks for none: the same when the batch goes on."""
        seed = self._told["seeds"].get(key)
        if type(seed) is not int:
            seed = self._told["seeds"][key] = random.SystemRandom().randrange(2**31)
            self._write()
        return seed

    def note_done(self, key: str) -> None:
        """Remembers that a clip is finished."""
        self._told["done"].append(key)
        self._write()

    def _write(self) -> None:
        with replacing(self._file) as temporary:
            temporary.write_text(json.dumps(self._told))
