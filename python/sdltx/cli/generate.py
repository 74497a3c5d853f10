"""``sdltx-cli generate``: a clip from a prompt."""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import sdltx
from sdltx import _core, pipeline
from sdltx.images import conditions_of
from sdltx.options import NAMES, ROWS

from ..contexts import ContextCache
from ..jobs import has_latents, is_guided
from ..writing import Files
from . import plan, repeat
from .clips import FileClip, numbered, raise_failed
from .job import Job
from .options import (
    add_command,
    clip_option,
    message_options,
    model_options,
    output_options,
    picture,
    reference,
)
from .outputs import Outputs

_MOST_CLIPS = 10_000
# Titles of the groups of options, and options of which only one can be given.
_MATERIAL = "sound and film that the clip is made from"
_GROUPS = {
    "enhancement": "prompt enhancement",
    "clip": "clip (defaults: the model's own)",
    "recipe": "recipe",
    "guidance": "guidance (defaults: the preset's; each kind costs a pass more per step)",
}
_EITHER = ("upscaler two_stage", "num_inference_steps sigmas")


def add(commands: Any) -> None:
    """Adds the command."""
    command = add_command(
        commands,
        "generate",
        _generate,
        "make a clip from a prompt",
        'sdltx-cli generate -p "a red triangle moves right over a navy background" -o clip.mp4',
    )
    model_options(command)
    _prompt_options(command)
    _picture_options(command)
    material_options(command)
    clip_options(command)
    group = output_options(command, silent="make no sound at all; the picture is then another one")
    group.add_argument(
        "--save-latents", metavar="FILE", help="also keep the result before decoding, as .safetensors for decode"
    )
    group.add_argument(
        "--preview",
        metavar="FILE.webp",
        help="after each step, replace this small animation by what the clip looks like so far",
    )
    group.add_argument("--preview-every", metavar="N", type=int, default=1, help="steps between two (default: 1)")
    group.add_argument(
        "-b",
        "--batch",
        metavar="N",
        type=int,
        default=1,
        help="make N clips, with this seed and those after it: name_1.mp4, name_2.mp4, ... (default: 1)",
    )
    group.add_argument(
        "--no-cache",
        action="store_true",
        help="encode prompts anew, and keep nothing of them in the user's cache folder",
    )
    group.add_argument("--dry-run", action="store_true", help="only print what would run")
    message_options(command)


def _prompt_options(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("prompt").add_mutually_exclusive_group()
    clip_option(group, "prompt", "; - reads it from standard input")
    group.add_argument("--prompt-file", metavar="FILE", help="read the prompt from a UTF-8 text file")
    clip_option(command.add_argument_group("negative prompt"), "negative_prompt")
    command.add_argument_group("repeating a clip").add_argument(
        "--from",
        dest="repeat",
        metavar="CLIP",
        help="take prompt, seed and settings from a clip or latents made by sdltx; other options override them. The "
        "model and the device are not part of them: give the same -m",
    )


def _picture_options(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("pictures (scaled to cover the clip and cut on both sides)")
    group.add_argument(
        "-i",
        "--image",
        metavar="PATH[:FRAME[:STRENGTH[:CRF]]]",
        type=picture,
        action="append",
        dest="images",
        help="a picture that the clip begins with, or shows at this frame (negative: from the end); strength 1 "
        "(default) keeps it as it is, less lets it change; crf is how much H.264 spoils it first, as models are used "
        "to (default: the checkpoint's; 0: not at all). Repeat it for several pictures",
    )
    group.add_argument(  # as sd-cli calls it
        "--init-img",
        type=picture,
        action="append",
        dest="images",
        default=argparse.SUPPRESS,
        help=argparse.SUPPRESS,
    )
    group.add_argument("--last-image", "--end-img", metavar="PATH", help="a picture that the clip ends with")


def material_options(command: argparse.ArgumentParser) -> None:
    """Adds what a clip is made from besides prompt and pictures."""
    group = command.add_argument_group(_MATERIAL)
    group.add_argument(
        "--audio",
        metavar="FILE",
        dest="given_sound",
        help="a sound that the pictures are made for, such as lips for a voice; it stays as it is. Any file with "
        "sound; without a number of frames the clip is as long, up to the model's usual length",
    )
    group.add_argument(
        "--audio-start", metavar="S", type=float, help="where the clip begins in it, in seconds (default: 0)"
    )
    group.add_argument(
        "--video",
        metavar="FILE",
        dest="given_film",
        help="a film of which some stays and some is made anew, as --retake, --mask, --foley or --dub says; size, rate "
        "and length of the clip are its own",
    )
    group.add_argument(
        "--mask",
        metavar="FILE",
        help="where the film's pictures are made anew, by brightness: a film or a picture; whole cells of 32x32 pixels "
        "and 8 frames change",
    )
    group.add_argument(
        "--reference",
        metavar="FILE[:STRENGTH]",
        type=reference,
        action="append",
        dest="references",
        help="a film or a picture that the clip follows, by an IC-LoRA of --lora: outlines, depth, poses, or the film "
        "to be changed; see docs/references.md. Repeat it for several",
    )
    group.add_argument(
        "--reference-mask",
        metavar="FILE",
        help="where the references count, by brightness: a film or a picture of their shape",
    )
    for option in (option for option, row in ROWS.items() if row["group"] == "material"):
        clip_option(group, option)


def clip_options(command: argparse.ArgumentParser) -> None:
    """Adds the options of a clip but for its prompts."""
    for name, title in _GROUPS.items():
        group = command.add_argument_group(title)
        together: dict[str, Any] = {}
        for option in (option for option, row in ROWS.items() if row["group"] == name and row["flags"]):
            pair = next((pair for pair in _EITHER if option in pair.split()), None)
            if pair is None:
                clip_option(group, option)
                continue
            if pair not in together:
                together[pair] = group.add_mutually_exclusive_group()
            clip_option(together[pair], option)
            if option == "upscaler":
                together[pair].add_argument(
                    "--two-stage", action="store_true", help="the same with the upscaler x2 that lies in a folder of -m"
                )


def _generate(job: Job) -> None:
    from sdltx import media

    args = job.args
    if not (args.output or args.save_latents or args.audio_out or args.dry_run):
        raise sdltx.InvalidRequestError("[generate] nothing to write; give -o, --save-latents, --audio-out or several")
    if not 1 <= args.batch <= _MOST_CLIPS:
        raise sdltx.InvalidRequestError(f"[generate] -b {args.batch} is out of range; use 1 to {_MOST_CLIPS}")
    if args.preview_every < 1:
        raise sdltx.InvalidRequestError(f"[preview] --preview-every {args.preview_every} is too small; use 1 or more")
    # First, as it fills in files that are read and what is written.
    made_with = repeat.repeat(args) if args.repeat is not None else {}
    pictures, sound, film = _pictures(args), given_sound(args), given_film(args)
    files = [_files(args, number) for number in range(args.batch)]
    outputs = Outputs(
        args,
        *_clip_files(args.repeat),
        args.prompt_file,
        args.distilled_lora,
        *_sources(sound, film, *given_references(args)),
        args.reference_mask,
        args.mask,
        *(os.fspath(one.image) for one in pictures if isinstance(one.image, (str, os.PathLike))),
        *(args.upscaler or ()),
        *(path for path, _ in [*(args.loras or ()), *(args.loras_stage2 or ())]),
    )
    outputs.check(*files)
    repeat.tell_of_other_files(job, args)
    pictures = [one.loaded() for one in pictures]
    sound, film = sound and sound.loaded(), film and film.loaded()
    references = [one.loaded() for one in given_references(args)]
    prompt = _prompt(args)
    if args.negative_prompt is not None:
        args.negative_prompt = _as_typed(args.negative_prompt)
    options = {name: getattr(args, name, None) for name in NAMES if name != "audio"}
    options["audio"] = False if args.no_audio else None
    # What is wrong should not cost the loading of a model.
    pipeline.check(prompt=prompt, tiling=job.tiling(), **options)
    request = sdltx.Request(
        prompt,
        negative_prompt=args.negative_prompt,
        conditions=pictures,
        sound=sound,
        film=film,
        references=references,
        tiling=job.tiling(),
        **options,
    )
    plan.warn(job, prompt)
    job.warn_of_tiles()
    start = time.monotonic()

    pipe = job.load()
    for name, value in made_with.items():
        used = repeat.spell(
            sdltx.__version__ if name == "sdltx_version" else getattr(pipe, "files" if name == "model_files" else name)
        )
        if value != used:
            job.note(f"note: {args.repeat} was made with {value}, this run uses {used}; the clips may differ")
    pipe.require("text encoder", "text projection", "transformer", *job.decoders())
    if args.two_stage:
        request = request.replaced(upscaler=[spatial_upscaler(pipe.upscalers())])
    resolved = pipe.resolve(request)
    pipe.check(request)
    outputs.check_length(resolved["result_frames"], *files)
    if resolved["task"] == "foley" and args.output and not args.audio_out and not media.takes_sound(args.output):
        raise sdltx.InvalidRequestError(
            f"[foley] {args.output} holds no sound, which is all that is made; use .mp4 or .wav"
        )
    if args.save_latents and not has_latents(resolved):
        raise sdltx.InvalidRequestError("[extend] a film that was extended has no latents of its own; leave them out")
    request = request.replaced(seed=resolved["seed"])
    memory = pipe.estimate(request)
    if args.dry_run:
        for line in plan.plan(pipe, args, request, resolved, memory):
            print(line)
        plan.warn_of_model(job, pipe, request, resolved, memory)
        return
    job.note(f"seed {resolved['seed']}" if args.batch == 1 else f"seeds {resolved['seed']} and on")
    if not args.verbose:
        job.note(
            f"{resolved['num_inference_steps']} steps, schedule {resolved['schedule']}, preset {resolved['preset']}, "
            f"recipe {resolved['recipe']}" + (f", {resolved['passes']} passes a step" if resolved["passes"] > 1 else "")
        )
    else:
        for line in plan.plan(pipe, args, request, resolved, memory):
            job.detail(line)
    plan.warn_of_model(job, pipe, request, resolved, memory)
    guided = is_guided(resolved)
    if args.negative_prompt is not None and args.repeat is None and not guided:
        job.warn("the negative prompt has no effect: guidance_scale is 1 for picture and sound; see --guidance-scale")
    cache = None if args.no_cache else ContextCache.of(pipe)
    clips = []
    for number, paths in enumerate(files):
        one = request if number == 0 else request.replaced(seed=(resolved["seed"] + number) % 2**63)
        clip = _Previewed(job, one, paths, cache=cache)
        clip.look_up(guided, pipe.info["negative_prompt"])
        clips.append(clip)
    if (show := _previewer(job, pipe)) is not None:
        for clip in clips:
            clip.show = show
    job.run(pipe, clips, several=args.batch > 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    job.detail(f"took at most {peak / 2**10:.0f} MiB of memory, files that are used in place included")
    job.note(f"took {time.monotonic() - start:.1f} s")
    failed = [clip.error for clip in clips if clip.error is not None]
    if failed and args.batch == 1:
        raise failed[0]
    raise_failed(failed, args.batch)


class _Previewed(FileClip):
    show: Callable[[int, int, sdltx.Latents], None] | None = None

    def on_step(self, done: int, steps: int, estimate: sdltx.Latents) -> None:
        super().on_step(done, steps, estimate)
        if self.show is not None:
            self.show(done, steps, estimate)


def _files(args: argparse.Namespace, number: int) -> Files:
    """The files of one of several clips."""
    paths = (args.output, args.audio_out, args.save_latents)
    if args.batch == 1:
        return Files(*paths)
    return Files(*(None if path is None else numbered(path, number + 1, args.batch) for path in paths))


def _sources(*material: sdltx.Sound | sdltx.Film | sdltx.Reference | None) -> list[str]:
    """The files among what a clip is made from."""
    return [os.fspath(one.source) for one in material if one and isinstance(one.source, (str, os.PathLike))]


def _clip_files(clip: str | None) -> list[str]:
    """The files of a clip that is read, which may be the first of a sequence of pictures."""
    from .._encoders import sequence_name

    return [] if clip is None else [clip, str(sequence_name(Path(clip), 1))]


def _previewer(job: Job, pipe: sdltx.Pipeline) -> Callable[[int, int, sdltx.Latents], None] | None:
    path, every = job.args.preview, job.args.preview_every
    if path is None:
        return None
    from ..preview import Projection

    projection = Projection(pipe)
    broken = False

    def show(done: int, steps: int, estimate: sdltx.Latents) -> None:
        nonlocal broken
        if broken or (done % every and done != steps):
            return
        try:
            projection.write(path, estimate, overwrite=job.args.overwrite)
        except (sdltx.SdltxError, OSError) as error:  # a glance is not worth the clip
            broken = True
            job.warn(f"there are no more previews: {error}")

    return show


def _pictures(args: argparse.Namespace) -> list[sdltx.Condition]:
    return conditions_of(None, args.last_image, args.images)


def given_sound(args: argparse.Namespace) -> sdltx.Sound | None:
    """Returns the sound of --audio."""
    if args.given_sound is None:
        if args.audio_start is not None:
            raise sdltx.InvalidRequestError("[audio] --audio-start is of --audio; give it as well")
        return None
    if isinstance(args.given_sound, sdltx.Sound):
        return args.given_sound
    return sdltx.Sound(args.given_sound, args.audio_start or 0.0)


def given_film(args: argparse.Namespace) -> sdltx.Film | None:
    """Returns the film of --video."""
    if args.given_film is None:
        if args.mask is not None:
            raise sdltx.InvalidRequestError("[mask] --mask is of --video; give it as well")
        return None
    if args.mask is not None and not isinstance(args.given_film, sdltx.Film):
        return sdltx.Film(args.given_film, args.mask)
    return sdltx.Film.of(args.given_film)


def given_references(args: argparse.Namespace) -> list[sdltx.Reference]:
    """Returns the references, with their mask."""
    references: list[sdltx.Reference] = args.references or []
    if args.reference_mask is None:
        return references
    if not references:
        raise sdltx.InvalidRequestError("[reference] --reference-mask is of --reference; give it as well")
    return [sdltx.Reference(one.source, one.strength, args.reference_mask) for one in references]


def _prompt(args: argparse.Namespace) -> str:
    source = args.prompt_file or ("-" if args.prompt == "-" else None)
    if source is None:
        if args.prompt is None:
            raise sdltx.InvalidRequestError("[generate] no prompt; give -p, --prompt-file or --from")
        return _as_typed(args.prompt)
    try:
        if source == "-" and sys.stdin is None:
            raise sdltx.InvalidRequestError("[prompt] standard input is closed; give the prompt with -p")
        most = _core.max_prompt_bytes + 8  # and a mark
        if source == "-":
            data = sys.stdin.buffer.read(most)
        else:
            with Path(source).open("rb") as file:
                data = file.read(most)
        # Windows marks its text files, and ends lines in its own way.
        return data.decode("utf-8-sig").replace("\r\n", "\n").rstrip("\r\n")
    except OSError as error:
        raise sdltx.InvalidRequestError(f"[prompt] cannot read {source}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise sdltx.InvalidRequestError(f"[prompt] {source} is not UTF-8 text (byte {error.start})") from None


def _as_typed(text: str) -> str:
    """A prompt of the command line: where the locale is not UTF-8, its bytes arrive in disguise."""
    with suppress(UnicodeError):
        return os.fsencode(text).decode()
    return text


def spatial_upscaler(upscalers: Mapping[str, str]) -> str:
    """Returns the upscaler of --two-stage, of those that lie beside the model."""
    found = [path for path, kind in upscalers.items() if kind == "space x2"]
    if len(found) != 1:
        what = f"several spatial upscalers x2 lie ({', '.join(found)})" if found else "no spatial upscaler x2 lies"
        raise sdltx.InvalidRequestError(
            f"[two-stage] {what} in the folders of the model; give its file with --upscaler"
        )
    return found[0]
