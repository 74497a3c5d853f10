"""``sdltx-cli batch``: many clips, each part of the model loaded once; what was interrupted goes on where it was."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import sdltx
from sdltx.options import NAMES
from sdltx.records import Plan

from .._files import exists, is_folder
from ..contexts import ContextCache
from ..writing import Files
from . import batch_lines, plan
from .batch_lines import Line
from .batch_state import State, files_of, keys_of, model_stamp
from .clips import FileClip, raise_failed
from .generate import clip_options, spatial_upscaler
from .job import Job
from .options import add_command, message_options, model_options, output_options
from .outputs import Outputs

_FILMS_TOGETHER = 4  # films that are in memory
_TOGETHER = 32  # clips of which each part of the model is loaded once


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
    group.add_argument(
        "--format", choices=batch_lines.SUFFIXES, default="mp4", help="of files without a name (default: mp4)"
    )
    group.add_argument("--no-cache", action="store_true", help="keep nothing of prompts in the user's cache folder")
    message_options(command)


class _BatchClip(FileClip):
    """Leaves a trace of how far it is in the folder of its batch."""

    def __init__(
        self, job: Job, request: sdltx.Request, output: Path, state: State, keys: tuple[str, str], **given: Any
    ) -> None:
        self._kept = state.folder / f"{keys[0]}.safetensors"
        super().__init__(job, request, Files(str(output)), latents=_kept_latents(self._kept), **given)
        self._job, self._state, self._key, self._output = job, state, keys[1], output

    def on_denoised(self) -> None:
        """Keeps it until it is a clip."""
        super().on_denoised()
        assert self.latents is not None
        self.latents.save(self._kept)
        self.given = True

    def on_decoded(self) -> None:
        """Remembers that there is nothing more to do."""
        from .. import media

        super().on_decoded()
        files = media.output_files(self._output, self.num_frames, overwrite=True)
        self._state.note_done(self._output.name, self._key, files, self.num_frames)
        self._kept.unlink(missing_ok=True)


def _batch(job: Job) -> None:
    args = job.args
    if args.audio_out is not None:
        raise sdltx.InvalidRequestError("[batch] --audio-out names one file; give lines an output that ends in .wav")
    start = time.monotonic()
    lines = batch_lines.read(args.jobs, _defaults(args, job), args.format)
    folder = Path(args.output)
    if not args.output or (exists(folder) and not is_folder(folder)):
        raise sdltx.InvalidRequestError(f"[batch] -o {args.output!r} is no folder; give one for the clips")
    outputs = Outputs(
        args, None if args.jobs == "-" else args.jobs, *(path for line in lines for path in files_of(line.request))
    )
    pipe = job.load()
    pipe.require("text encoder", "text projection", "transformer", "video decoder")
    if args.two_stage:
        upscaler = [spatial_upscaler(pipe)]
        lines = [line._replace(request=line.request.replaced(upscaler=upscaler)) for line in lines]
    state = State(folder)
    wanted, failed = _checked(job, pipe, lines, folder, outputs)
    clips = _clips(job, pipe, state, wanted, folder)
    if len(clips) < len(wanted):
        job.note(f"{len(wanted) - len(clips)} of {len(lines)} clips are there already")
    # Contexts of many prompts would fill the memory.
    try:
        heavy = any(clip.request.film is not None or clip.request.references for clip in clips)
        together = _FILMS_TOGETHER if heavy else _TOGETHER
        for first in range(0, len(clips), together):
            job.run(pipe, clips[first : first + together], several=True)
    except BaseException:
        job.rescued.append("the same command goes on where it was")
        raise
    failed += [clip.error for clip in clips if clip.error is not None]
    made = sum(clip.written for clip in clips)
    job.note(f"{made} clips made, {len(failed)} failed, took {time.monotonic() - start:.1f} s")
    raise_failed(failed, len(lines))


def _defaults(args: argparse.Namespace, job: Job) -> dict[str, Any]:
    """What the command line says for all lines."""
    given = {name: getattr(args, name, None) for name in NAMES if name != "audio"}
    defaults: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    for name in ("loras", "loras_stage2"):
        if name in defaults:
            defaults[name] = [list(one) for one in defaults[name]]
    if args.no_audio:
        defaults["audio"] = False
    if (tiling := job.tiling()) is not None:
        defaults["tiling"] = list(tiling)
    return defaults


def _checked(
    job: Job, pipe: sdltx.Pipeline, lines: list[Line], folder: Path, outputs: Outputs
) -> tuple[list[tuple[Line, Plan]], list[BaseException]]:
    """The lines that this model can make, each with what it comes to, and what is wrong with the others."""
    from .. import media, sound

    found, failed = [], list[BaseException]()
    for line in lines:
        output = folder / line.output
        try:
            resolved = pipe.resolve(line.request)
            pipe.check(line.request)
            media.check_output(output)
            files = outputs.files(str(output), resolved["result_frames"])
            if sound.is_sound(output) and not (resolved["audio"] and pipe.info["has_audio"]):
                raise sdltx.InvalidRequestError("[output] there will be no sound for it")
            if media.takes_pictures(output) and not resolved["video"]:
                raise sdltx.InvalidRequestError("[output] there will be no pictures for it; name a .wav")
            found.append((line, resolved))
        except sdltx.SdltxError as error:
            job.bars.say(f"error: {output}: {error}")
            failed.append(error)
        else:
            outputs.claim("", line.output, files)
    return found, failed


def _clips(
    job: Job, pipe: sdltx.Pipeline, state: State, wanted: list[tuple[Line, Plan]], folder: Path
) -> list[_BatchClip]:
    """The clips that are not there yet."""
    from .. import media

    args = job.args
    cache = None if args.no_cache else ContextCache.of(pipe)
    model = model_stamp(pipe)
    clips = []
    for (request, name), resolved in wanted:
        keys = keys_of(request, name, model, [args.metadata, args.wav_format])
        frames = state.frames_of(name) if "duration" in resolved else resolved["result_frames"]
        files = media.output_files(folder / name, frames, overwrite=True)
        if state.is_done(name, keys[1], files):
            continue
        if request.options.get("seed", -1) < 0:
            request = request.replaced(seed=state.seed_of(keys[0]))
        clip = _BatchClip(job, request, folder / name, state, keys, cache=cache)
        clip.look_up(plan.is_guided(resolved), pipe.info["negative_prompt"])
        clips.append(clip)
    return clips


def _kept_latents(path: Path) -> sdltx.Latents | None:
    """A clip that was denoised before."""
    if not path.exists():
        return None
    try:
        return sdltx.Latents.load(path)
    except sdltx.SdltxError:
        return None
