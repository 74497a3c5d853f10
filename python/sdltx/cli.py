"""The command line: arguments in, one of the calls of :mod:`sdltx` out, progress and errors in a line each."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import sdltx
from sdltx import _core
from sdltx.pipeline import check_size

if TYPE_CHECKING:
    from tqdm import tqdm

_EXIT_CODES = {
    sdltx.InvalidRequestError: 2,
    sdltx.ModelFileError: 3,
    sdltx.ModelMismatchError: 4,
    sdltx.OutOfMemoryError: 5,
    MemoryError: 5,
    sdltx.BackendError: 6,
    sdltx.Cancelled: 130,
}
_EPILOG = """\
exit status:
  0  done
  1  a bug in sdltx; please report it with what -vv prints
  2  a bad argument, or an output that cannot be written
  3  a model file that is missing, truncated or not a model
  4  files that do not make up the wanted model
  5  out of memory
  6  a device, an encoder or the disk failed
  130, 143  stopped by Ctrl-C or a TERM signal, at once by a second one; no unfinished file is left
"""

# What a clip remembers and --from repeats: setting -> accepted types.
_REPEATED: dict[str, tuple[type, ...]] = {
    "prompt": (str,),
    "seed": (int,),
    "width": (int,),
    "height": (int,),
    "num_frames": (int,),
    "frame_rate": (int, float),
    "num_inference_steps": (int,),
    "sigmas": (list,),
    "precision": (str,),
}
# What a clip remembers so that --from can tell what differs.
_COMPARED = ("model_files", "device")


_SIZE = ("width", "height", "num_frames", "frame_rate")
_REQUEST = (*_SIZE, "num_inference_steps", "sigmas")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``sdltx-cli`` with ``argv`` (default: the process's arguments) and returns its exit status."""
    args = _parser().parse_args(argv)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores SIGHUP, and means it
            signal.signal(number, _end)
    _core.end_on_second_signal()
    job = _Job(args)
    try:
        args.command(job)
    except KeyboardInterrupt:
        job.bars.close()
        _say("stopped")
        return 128 + signal.SIGINT
    except Exception as error:
        job.bars.close()
        if args.verbose >= 2:
            raise
        code = next((code for kind, code in _EXIT_CODES.items() if isinstance(error, kind)), 1)
        text = str(error) if isinstance(error, sdltx.SdltxError) else f"{type(error).__name__}: {error}"
        _say(f"error: {text}")
        return code
    return 0


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    """Ends the process as Ctrl-C does, by an exception, so that unfinished files are removed."""
    raise SystemExit(128 + number)


class _Job:
    """One command and what it says on the terminal."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        show_bars = not args.quiet and (sys.stderr.isatty() or args.verbose > 0)
        self.bars = _Bars(show_bars)
        level = logging.ERROR if args.quiet else (logging.WARNING, logging.INFO, logging.DEBUG)[min(args.verbose, 2)]
        logger = logging.getLogger("sdltx")
        logger.setLevel(level)
        logger.addHandler(_BarHandler(self.bars))

    def note(self, text: str) -> None:
        """Says something that is not an error; -q silences it."""
        if not self.args.quiet:
            self.bars.say(text)

    def load(self) -> sdltx.Pipeline:
        args = self.args
        pipe = sdltx.load(
            *args.model,
            device=args.device,
            precision=args.precision or "auto",
            threads=args.threads,
            offload=args.offload,
            progress=self.bars.show,
        )
        if note := pipe.info["note"]:
            self.note(f"note: {note}")
        return pipe

    def write(self, pipe: sdltx.Pipeline, latents: sdltx.Latents) -> None:
        """Decodes straight into the output file."""
        from .media import VideoWriter, fit_audio

        args = self.args
        # The sound first: it is small, and the writer has to know whether there is any.
        sound = None if args.no_audio else pipe.decode_audio(latents, progress=self.bars.show)
        given = {name: value for name in sdltx.Tiling._fields if (value := getattr(args, f"tile_{name}")) is not None}
        tiling = sdltx.Tiling(**given) if given else None
        rate = sound[1] if sound else None
        with VideoWriter(
            args.output, latents.frame_rate, audio_rate=rate, metadata=latents.settings, progress=self.bars.show
        ) as writer:
            if sound:
                num_frames = 8 * (latents.video.shape[1] - 1) + 1
                writer.write_audio(fit_audio(*sound, num_frames, latents.frame_rate))
            pipe.decode_into(writer, latents, tiling=tiling, progress=self.bars.show)
        self.note(f"wrote {args.output}")


def _generate(job: _Job) -> None:
    args = job.args
    if args.output is None and args.save_latents is None:
        raise sdltx.InvalidRequestError("[generate] nothing to write; give -o, --save-latents or both")
    _check_outputs(args)
    made_with = _repeat(args) if args.repeat is not None else {}
    prompt = _prompt(args)
    request = {name: getattr(args, name) for name in _REQUEST}
    check_size(**{name: request[name] for name in _SIZE})  # a wrong size should not cost the loading of a model
    start = time.monotonic()

    pipe = job.load()
    for name, value in made_with.items():
        used = _spell(getattr(pipe, "files" if name == "model_files" else name))
        if value != used:
            job.note(f"note: {args.repeat} was made with {value}, this run uses {used}; the clips may differ")
    pipe.require("text encoder", "text projection", "transformer", *(["video decoder"] if args.output else []))
    pipe.check(**request)
    context = pipe.encode(prompt, progress=job.bars.show)
    latents = pipe.sample(context, **request, seed=args.seed, progress=job.bars.show)
    job.note(f"seed {latents.seed}")
    if args.save_latents is not None:
        latents.save(args.save_latents)
        job.note(f"wrote {args.save_latents}")
    if args.output is not None:
        job.write(pipe, latents)
    job.note(f"took {time.monotonic() - start:.1f} s")


def _decode(job: _Job) -> None:
    args = job.args
    _check_outputs(args)
    latents = sdltx.Latents.load(args.latents)
    job.write(job.load(), latents)


def _worker(job: _Job) -> None:
    args = job.args
    if not args.host.startswith("127."):
        _say(
            f"warning: everybody who reaches {args.host}:{args.port} can use, read and crash this worker; there are no "
            "passwords. Use it among friends only"
        )
    job.note(f"serving {args.device} at {args.host}:{args.port}; Ctrl-C ends it")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)  # the server waits outside Python
    _core.serve(args.host, args.port, device=args.device, threads=args.threads or 0)


def _check_outputs(args: argparse.Namespace) -> None:
    """Fails before the long run instead of after it."""
    from . import _files, media

    if args.output is not None:
        media.check_output(args.output)
    if getattr(args, "save_latents", None) is not None:
        _files.check_writable(args.save_latents)


def _prompt(args: argparse.Namespace) -> str:
    source = args.prompt_file or ("-" if args.prompt == "-" else None)
    if source is None:
        if args.prompt is None:
            raise sdltx.InvalidRequestError("[generate] no prompt; give -p, --prompt-file or --from")
        return str(args.prompt)
    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
        return data.decode().rstrip("\r\n")
    except OSError as error:
        raise sdltx.InvalidRequestError(f"[prompt] cannot read {source}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise sdltx.InvalidRequestError(f"[prompt] {source} is not UTF-8 text (byte {error.start})") from None


def _repeat(args: argparse.Namespace) -> dict[str, str]:
    """Fills the arguments that were not given from the clip of --from; returns what else it was made with."""
    from .media import read_settings

    settings = read_settings(args.repeat)
    for other, name in (
        ("num_inference_steps", "sigmas"),
        ("sigmas", "num_inference_steps"),
        ("prompt_file", "prompt"),
    ):
        if getattr(args, other) is not None:
            settings.pop(name, None)
    for name, types in _REPEATED.items():
        value = settings.get(name)
        if getattr(args, name) is not None or value is None:
            continue
        if type(value) not in types or (name == "sigmas" and any(type(sigma) not in (int, float) for sigma in value)):
            raise sdltx.InvalidRequestError(
                f"[from] {args.repeat}: setting {name} is {value!r}; expected {types[0].__name__}"
            )
        setattr(args, name, value)
    if args.precision not in (None, "auto", "f32"):
        raise sdltx.InvalidRequestError(f"[from] {args.repeat}: precision {args.precision!r} is neither auto nor f32")
    return {name: _spell(settings.get(name, f"an unknown {name.split('_')[0]}")) for name in _COMPARED}


def _spell(value: object) -> str:
    return ", ".join(sorted(map(str, value))) if isinstance(value, list) else str(value)


class _Bars:
    """One progress bar at a time, one for each phase: load, encode, denoise, decode, write."""

    def __init__(self, enabled: bool) -> None:
        self._enabled = enabled
        self._phase = ""
        self._bar: tqdm[NoReturn] | None = None

    def show(self, phase: str, done: int, total: int) -> None:
        if not self._enabled:
            return
        if phase != self._phase:
            self.close()
            from tqdm import tqdm

            self._phase = phase
            self._bar = tqdm(
                total=total,
                desc=f"{phase:<7}",
                unit_scale=total >= 100_000,
                bar_format="{desc} {percentage:3.0f}% |{bar:30}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]",
                file=sys.stderr,
            )
        if self._bar is None:  # the phase is complete
            return
        self._bar.total = total
        self._bar.update(done - self._bar.n)
        if done >= total:
            self.close()

    def say(self, text: str) -> None:
        """Prints a line above the running bar."""
        if self._bar is None:
            _say(text)
        else:
            self._bar.write(text, file=sys.stderr)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class _BarHandler(logging.Handler):
    """Prints log records above the running bar."""

    def __init__(self, bars: _Bars) -> None:
        super().__init__()
        self._bars = bars

    def emit(self, record: logging.LogRecord) -> None:
        self._bars.say(f"{record.levelname.lower()}: {record.getMessage()}")


def _say(text: str) -> None:
    print(text, file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, like every other error."""

    def error(self, message: str) -> NoReturn:
        _say(f"error: {message}; see {self.prog} --help")
        raise SystemExit(2)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="sdltx-cli",
        description="Makes short video clips from text with LTX-2.3 models, without PyTorch.",
        epilog="Each command explains itself: sdltx-cli generate --help",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"sdltx {sdltx.__version__} (ggml {_core.ggml_version})")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    generate = _command(
        commands,
        "generate",
        _generate,
        "make a clip from a prompt",
        'sdltx-cli generate -p "a red triangle moves right over a navy background" -o clip.mp4',
    )
    _model_options(generate)
    _prompt_options(generate)
    _clip_options(generate)
    _output_options(generate).add_argument(
        "--save-latents", metavar="FILE", help="also keep the result before decoding, as .safetensors for decode"
    )
    _message_options(generate)

    decode = _command(
        commands,
        "decode",
        _decode,
        "turn saved latents into a clip",
        "sdltx-cli decode clip.safetensors -o clip.webm --tile-size 256",
    )
    decode.add_argument("latents", metavar="LATENTS", help="file written by generate --save-latents")
    _model_options(decode)
    _output_options(decode, required=True)
    _message_options(decode)

    worker = _command(
        commands,
        "worker",
        _worker,
        "lend this machine to clips made elsewhere",
        "sdltx-cli worker --host 192.168.1.7 --port 50052\n  sdltx-cli generate --device rpc:192.168.1.7:50052 -m ...",
    )
    group = worker.add_argument_group("where")
    group.add_argument("--host", metavar="ADDRESS", default="127.0.0.1", help="own IPv4 address (default: 127.0.0.1)")
    group.add_argument("--port", metavar="N", type=int, default=50052, help="TCP port (default: 50052)")
    group.add_argument("--device", metavar="NAME", default="cpu", help="what to lend (default: cpu)")
    group.add_argument("-t", "--threads", metavar="N", type=_threads, help="CPU threads (default: one per core)")
    _message_options(worker)
    return parser


def _command(
    commands: Any, name: str, run: Callable[[_Job], None], purpose: str, example: str
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=purpose,
        description=f"{purpose[0].upper()}{purpose[1:]}.",
        epilog=f"example:\n  {example}\n\n{_EPILOG}",
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=32, width=100),
        allow_abbrev=False,
    )
    command.set_defaults(command=run)
    return command


def _model_options(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("model")
    group.add_argument(
        "-m",
        "--model",
        metavar="FILE",
        action="append",
        default=[],
        help="file or folder of the model, safetensors or GGUF; repeat it for models in several files, in any order "
        "(default: the small built-in demonstration model)",
    )
    group.add_argument(
        "--device",
        metavar="NAME",
        default="cpu",
        help="where to compute: cpu, a GPU, auto, or rpc:HOST:PORT for a machine where sdltx-cli worker runs; several "
        "with commas share the blocks (default: cpu)",
    )
    group.add_argument(
        "--precision",
        choices=("auto", "f32"),
        help="auto: as the weights are stored; f32: exact and slow (default: auto)",
    )
    group.add_argument(
        "--offload",
        choices=("none", "stage", "blocks"),
        default="none",
        help="how long weights stay in memory: for the whole run, for one stage of it (encode, denoise, decode), or "
        "for one block of a network, which takes the least; the clip is the same (default: none)",
    )
    group.add_argument("-t", "--threads", metavar="N", type=_threads, help="CPU threads (default: one per core)")


def _prompt_options(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("prompt").add_mutually_exclusive_group()
    group.add_argument("-p", "--prompt", metavar="TEXT", help="what the clip shows; - reads it from standard input")
    group.add_argument("--prompt-file", metavar="FILE", help="read the prompt from a UTF-8 text file")
    command.add_argument_group("repeating a clip").add_argument(
        "--from",
        dest="repeat",
        metavar="CLIP",
        help="take prompt, seed and settings from a clip made by sdltx; other options override them. The model is not "
        "part of a clip: give the same -m",
    )


def _clip_options(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("clip (defaults: the model's own)")
    group.add_argument("-W", "--width", metavar="PX", type=int, help="a multiple of 32")
    group.add_argument("-H", "--height", metavar="PX", type=int, help="a multiple of 32")
    group.add_argument(
        "--num-frames", "--video-frames", metavar="N", type=int, help="a multiple of 8, plus 1: 9, 17, 25, ..., 121"
    )
    group.add_argument(
        "--frame-rate", "--fps", metavar="FPS", type=_frame_rate, help="frames per second, such as 24 or 24000/1001"
    )
    group.add_argument("-s", "--seed", metavar="N", type=int, help="of the start noise (default: random)")
    schedule = group.add_mutually_exclusive_group()
    schedule.add_argument(
        "--steps", "--num-inference-steps", dest="num_inference_steps", metavar="N", type=int, help="denoising steps"
    )
    schedule.add_argument(
        "--sigmas", metavar="S,S,...", type=_sigmas, help="noise levels in place of a number of steps, from 1 down to 0"
    )


def _output_options(command: argparse.ArgumentParser, required: bool = False) -> argparse._ArgumentGroup:
    group = command.add_argument_group("output (existing files are replaced)")
    group.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        required=required,
        help="the clip: .mp4, .webm, .gif, .webp, or .png for one picture per frame (name_0001.png, or as a pattern "
        "like name_%%03d.png says)",
    )
    group.add_argument("--no-audio", action="store_true", help="write a silent clip")
    tiles = command.add_argument_group("decoding in tiles (smaller ones take less memory and more time)")
    tiling = sdltx.Tiling()
    for flag, name, metavar, text in (
        ("--tile-size", "size", "PX", "longer side of a tile, 0: whole pictures"),
        ("--tile-overlap", "overlap", "PX", "pixels shared by neighbouring tiles"),
        ("--tile-frames", "frames", "N", "frames of a tile, 0: all"),
        ("--tile-frame-overlap", "frame_overlap", "N", "frames shared by consecutive tiles"),
    ):
        default = getattr(tiling, name)
        tiles.add_argument(flag, dest=f"tile_{name}", metavar=metavar, type=int, help=f"{text} (default: {default})")
    return group


def _message_options(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("messages").add_mutually_exclusive_group()
    group.add_argument("-v", "--verbose", action="count", default=0, help="say more; -vv also shows tracebacks")
    group.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")


def _threads(text: str) -> int:
    if (threads := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of threads; use 1 or more")
    return threads


def _frame_rate(text: str) -> float:
    try:
        return float(Fraction(text))
    except (ValueError, ArithmeticError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a frame rate such as 24, 23.976 or 24000/1001") from None


def _sigmas(text: str) -> list[float]:
    try:
        return [float(sigma) for sigma in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 1,0.9,0.5,0") from None
