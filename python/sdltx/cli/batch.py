"""``sdltx-cli batch``: many clips, each part of the model loaded once; what was interrupted goes on where it was."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import sdltx
from sdltx.options import NAMES
from sdltx.records import Plan

from .._files import exists, is_folder
from ..contexts import ContextCache
from ..jobs import has_latents, is_guided
from ..writing import Files
from . import batch_lines
from .batch_lines import Line
from .batch_state import State, files_of, keys_of, model_stamp
from .clips import FileClip, raise_failed
from .generate import clip_options, spatial_upscaler
from .job import Job
from .options import add_command, message_options, model_options, output_options
from .outputs import Outputs

_FILMS_TOGETHER = 4  # films that are in memory
_TOGETHER = 32  # clips of which each part of the model is loaded once
_PARTS = ("text encoder", "text projection", "transformer", "video decoder")


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
    group.add_argument(
        "--on",
        metavar="ray://HOST:PORT",
        help="make the clips on all devices of this Ray cluster, whose machines need sdltx, and the files of the model "
        "under the names given here; auto: of the cluster that this machine is of",
    )
    message_options(command)


class _BatchClip(FileClip):
    """Leaves a trace of how far it is in the folder of its batch."""

    def __init__(
        self,
        job: Job,
        request: sdltx.Request,
        output: Path,
        state: State,
        keys: tuple[str, str],
        *,
        keeps: bool,
        **given: Any,
    ) -> None:
        """keys: of the denoised clip and of the file; keeps: whether there is a denoised clip to be kept."""
        self._kept = state.folder / f"{keys[0]}.safetensors"
        self._keeps = keeps
        latents = _kept_latents(self._kept) if self._keeps else None
        super().__init__(job, request, Files(str(output)), latents=latents, **given)
        self._job, self._state, self._key, self._output = job, state, keys[1], output

    def on_denoised(self) -> None:
        """Keeps it until it is a clip."""
        super().on_denoised()
        assert self.latents is not None
        if self._keeps:
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
    if args.on is None:
        clips, failed = _made_here(job, lines, folder, outputs)
    else:
        clips, failed = _made_elsewhere(job, lines, folder, outputs)
    job.note(f"{clips} clips made, {len(failed)} failed, took {time.monotonic() - start:.1f} s")
    raise_failed(failed, len(lines))


def _made_here(job: Job, lines: list[Line], folder: Path, outputs: Outputs) -> tuple[int, list[BaseException]]:
    """Makes the clips on this machine; returns how many, and what others failed with."""
    args = job.args
    pipe = job.load()
    pipe.require(*_PARTS)
    if args.two_stage:
        lines = _in_two_stages(lines, pipe.upscalers())

    def resolve(request: sdltx.Request) -> Plan:
        resolved = pipe.resolve(request)
        pipe.check(request)
        return resolved

    state = State(folder)
    found, failed = _checked(job, resolve, pipe.info["has_audio"], lines, folder, outputs)
    cache = None if args.no_cache else ContextCache.of(pipe)
    clips = []
    for one in _missing(job, state, found, model_stamp(pipe), folder):
        keeps = has_latents(one.resolved)
        clip = _BatchClip(job, one.request, folder / one.name, state, one.keys, keeps=keeps, cache=cache)
        clip.look_up(is_guided(one.resolved), pipe.info["negative_prompt"])
        clips.append(clip)
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
    return sum(clip.written for clip in clips), failed


def _made_elsewhere(job: Job, lines: list[Line], folder: Path, outputs: Outputs) -> tuple[int, list[BaseException]]:
    """Makes the clips on the machines of --on; returns how many, and what others failed with."""
    from .. import media
    from ..ray_worker import Made, Task
    from .batch_ray import Cluster, Order, manner_of

    args = job.args
    state = State(folder)
    made = 0
    with Cluster(job, args.on) as cluster:
        model, resolve_all = cluster.first()
        if args.two_stage:
            lines = _in_two_stages(lines, model.upscalers)
        plans = dict(
            zip(map(id, (line.request for line in lines)), resolve_all([line.request for line in lines]), strict=True)
        )

        def resolve(request: sdltx.Request) -> Plan:
            found = plans[id(request)]
            if isinstance(found, sdltx.SdltxError):
                raise found
            return Plan(found)

        wanted, failed = _checked(job, resolve, model.info["has_audio"], lines, folder, outputs)
        stamp = [*model.files, args.precision]

        def order(one: _Missing) -> Order:
            def done(result: Made) -> None:
                nonlocal made
                output = folder / one.name
                try:
                    if result.error is not None:
                        raise result.error
                    files = media.place_files(output, result.files, result.num_frames, overwrite=args.overwrite)
                    state.note_done(one.name, one.keys[1], files, result.num_frames)
                    made += 1
                    job.note(f"wrote {output}")
                except sdltx.SdltxError as error:
                    job.bars.say(f"error: {output}: {error}")
                    failed.append(error)

            size = tuple(one.resolved[name] for name in ("width", "height", "num_frames"))
            return Order(Task(one.request.loaded(), one.name, manner_of(args)), size, done)

        orders = []
        for one in _missing(job, state, wanted, stamp, folder):
            try:
                orders.append(order(one))
            except sdltx.SdltxError as error:
                job.bars.say(f"error: {folder / one.name}: {error}")
                failed.append(error)
        try:
            cluster.run(orders)
        except BaseException:
            job.rescued.append("the same command goes on where it was")
            raise
    return made, failed


def _in_two_stages(lines: list[Line], upscalers: Mapping[str, str]) -> list[Line]:
    upscaler = [spatial_upscaler(upscalers)]
    return [line._replace(request=line.request.replaced(upscaler=upscaler)) for line in lines]


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
    job: Job,
    resolve: Callable[[sdltx.Request], Plan],
    has_audio: bool,
    lines: list[Line],
    folder: Path,
    outputs: Outputs,
) -> tuple[list[tuple[Line, Plan]], list[BaseException]]:
    """The lines that the model can make, each with what it comes to, and what is wrong with the others."""
    from .. import media, sound

    found, failed = [], list[BaseException]()
    for line in lines:
        output = folder / line.output
        try:
            resolved = resolve(line.request)
            media.check_output(output)
            files = outputs.files(str(output), resolved["result_frames"])
            if sound.is_sound(output) and not (resolved["audio"] and has_audio):
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


class _Missing(NamedTuple):
    """A clip that is not there yet, with a seed."""

    request: sdltx.Request
    name: str
    keys: tuple[str, str]
    resolved: Plan


def _missing(
    job: Job, state: State, found: list[tuple[Line, Plan]], model: Sequence[Any], folder: Path
) -> list[_Missing]:
    from .. import media

    args = job.args
    missing = []
    for (request, name), resolved in found:
        keys = keys_of(request, name, model, [args.metadata, args.wav_format])
        frames = state.frames_of(name) if "duration" in resolved else resolved["result_frames"]
        if state.is_done(name, keys[1], media.output_files(folder / name, frames, overwrite=True)):
            continue
        if request.options.get("seed", -1) < 0:
            request = request.replaced(seed=state.seed_of(keys[0]))
        missing.append(_Missing(request, name, keys, resolved))
    if len(missing) < len(found):
        job.note(f"{len(found) - len(missing)} of {len(found)} clips are there already")
    return missing


def _kept_latents(path: Path) -> sdltx.Latents | None:
    """A clip that was denoised before."""
    if not path.exists():
        return None
    try:
        return sdltx.Latents.load(path)
    except sdltx.SdltxError:
        return None
