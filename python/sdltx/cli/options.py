"""Arguments that several commands share, and how their help looks."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import sdltx
from sdltx import _core, settings
from sdltx.options import ROWS

from .._files import exists
from .job import Job
from .messages import say

_Number = TypeVar("_Number", int, float)
_MOST_BYTES = 1 << 23  # of a text that is typed

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


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, like every other error."""

    def error(self, message: str) -> NoReturn:
        """Ends the process as argparse does."""
        say(f"error: {message}; see {self.prog} --help")
        raise SystemExit(2)


def add_command(
    commands: Any, name: str, run: Callable[[Job], None], purpose: str, example: str
) -> argparse.ArgumentParser:
    """Adds a command that calls ``run``."""
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=purpose,
        description=f"{purpose[0].upper()}{purpose[1:]}.",
        epilog=f"example:\n  {example}\n\n{_EPILOG}",
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=32, width=100),
        allow_abbrev=False,
    )
    command.set_defaults(command=run, parser=command)
    return command


def model_options(command: argparse.ArgumentParser) -> None:
    """Adds which model, and how it computes."""
    group = command.add_argument_group("model")
    group.add_argument(
        "-m",
        "--model",
        metavar="FILE",
        action="append",
        default=[],
        help="file or folder of the model, safetensors or GGUF, or a set that was pulled, such as "
        "ltx-2.3-distilled:q4_k_m; repeat it for models in several files, in any order (default: the small built-in "
        "demonstration model)",
    )
    # As sd-cli calls them.
    group.add_argument(
        "--diffusion-model",
        "--vae",
        "--llm",
        dest="model",
        action="append",
        default=argparse.SUPPRESS,
        help=argparse.SUPPRESS,
    )
    group.add_argument(
        "--device",
        metavar="NAME",
        help="where to compute: cpu, a GPU, auto, or rpc:HOST:PORT for a machine where sdltx-cli worker runs; several "
        "with commas share the blocks (default: auto, the best GPU that has room, else cpu)",
    )
    group.add_argument(
        "--precision",
        choices=("auto", "f32"),
        help="auto: as the weights are stored; f32: exact and slow (default: auto)",
    )
    group.add_argument(
        "--offload",
        choices=("auto", "none", "stage", "blocks"),
        help="how long weights stay in memory: as long as there is room (auto), for the whole run, for one stage of it "
        "(encode, denoise, decode), or for one block of a network, which takes the least; the clip is the same "
        "(default: auto)",
    )
    group.add_argument(
        "--max-memory",
        metavar="GIB",
        type=float,
        help="take at most so much memory of the machine; negative: leave so much free; 0: what is there, the default",
    )
    group.add_argument("--max-vram", metavar="GIB", type=float, help="the same of each GPU")
    group.add_argument("-t", "--threads", metavar="N", type=threads, help="CPU threads (default: one per core)")


def output_options(
    command: argparse.ArgumentParser, required: bool = False, silent: str = "write a silent clip"
) -> argparse._ArgumentGroup:
    """Adds where the clip goes, and how it is decoded."""
    from sdltx import sound

    group = command.add_argument_group("output (existing files are replaced)")
    group.add_argument(
        "-o",
        "--output",
        "--output-path",
        metavar="FILE",
        required=required,
        help="the clip: .mp4, .webm, .gif, .webp, .png for one picture per frame (name_0001.png, or as a pattern like "
        "name_%%03d.png says), or .wav for its sound alone",
    )
    group.add_argument("--no-audio", action="store_true", help=silent)
    group.add_argument("--audio-out", metavar="FILE.wav", help="also write the sound to a file of its own")
    group.add_argument(
        "--metadata",
        choices=settings.KEPT,
        default="full",
        help="what the clip tells of how it was made: all, so that --from repeats it; all but the folders of files; or "
        "nothing (default: full)",
    )
    group.add_argument(
        "--overwrite",
        action="store_true",
        help="of one picture per frame, also replace pictures that are not from sdltx",
    )
    group.add_argument(
        "--wav-format", choices=tuple(sound.FORMATS), default="s16", help="samples of .wav files (default: s16)"
    )
    tile_options(command)
    return group


def tile_options(command: argparse.ArgumentParser) -> None:
    """Adds the pieces that pictures are decoded in."""
    tiles = command.add_argument_group(
        "decoding in tiles (smaller ones take less memory and more time, and change the picture a little)"
    )
    tiling = sdltx.Tiling()
    for flag, name, metavar, text in (
        ("--tile-size", "size", "PX", "longer side of a tile, 0: whole pictures"),
        ("--tile-overlap", "overlap", "PX", "pixels shared by neighbouring tiles"),
        ("--tile-frames", "frames", "N", "frames of a tile, 0: all"),
        ("--tile-frame-overlap", "frame_overlap", "N", "frames shared by consecutive tiles"),
    ):
        default = getattr(tiling, name)
        tiles.add_argument(flag, dest=f"tile_{name}", metavar=metavar, type=int, help=f"{text} (default: {default})")


def message_options(command: argparse.ArgumentParser) -> None:
    """Adds how much is said."""
    group = command.add_argument_group("messages").add_mutually_exclusive_group()
    group.add_argument("-v", "--verbose", action="count", default=0, help="say more; -vv also shows tracebacks")
    group.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")


def threads(text: str) -> int:
    """Reads a number of CPU threads."""
    with suppress(ValueError):
        if 1 <= (number := int(text)) <= _core.max_threads:
            return number
    shown = text if len(text) <= 20 else f"{text[:17]}..."
    raise argparse.ArgumentTypeError(f"{shown!r} is not a number of threads; use 1 to {_core.max_threads}")


def picture(text: str) -> sdltx.Condition:
    """Reads ``PATH[:FRAME[:STRENGTH[:CRF]]]``; a file whose name has such an end is meant as a whole."""
    parts = text.split(":")
    for count in range(0 if exists(text) else min(3, len(parts) - 1), -1, -1):
        split = len(parts) - count
        try:
            numbers = [kind(number) for kind, number in zip((int, float, int), parts[split:], strict=False)]
        except ValueError:
            continue
        try:
            return sdltx.Condition(":".join(parts[:split]), *numbers)
        except sdltx.InvalidRequestError as error:
            raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None
    raise AssertionError  # without numbers it is a path


def lora(text: str) -> tuple[str, float]:
    """Reads ``PATH[:STRENGTH]``; a file whose name has such an end is meant as a whole."""
    path, colon, strength = text.rpartition(":")
    if colon and not exists(text):
        with suppress(ValueError):
            return path, float(strength)
    return text, 1.0


def reference(text: str) -> sdltx.Reference:
    """Reads ``PATH[:STRENGTH]``."""
    path, strength = lora(text)
    try:
        return sdltx.Reference(path, strength)
    except sdltx.InvalidRequestError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None


def frame_rate(text: str) -> float:
    """Reads frames per second, also as a fraction."""
    try:
        # Fraction would compute the power of ten of an exponent, however large.
        return float(Fraction(text)) if "/" in text else float(text)
    except (ValueError, ArithmeticError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a frame rate such as 24, 23.976 or 24000/1001") from None


def numbers(text: str) -> list[float]:
    """Reads numbers with commas between them."""
    return _listed(text, float, "numbers such as 1,0.9,0.5,0")


def blocks(text: str) -> list[int]:
    """Reads block numbers with commas between them."""
    return _listed(text, int, "whole numbers such as 28,29")


def _listed(text: str, kind: Callable[[str], _Number], what: str) -> list[_Number]:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of {what}") from None


def text_file(path: str) -> str:
    """Reads a UTF-8 text file."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise argparse.ArgumentTypeError(f"{path} is longer than {_MOST_BYTES >> 20} MiB")
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise argparse.ArgumentTypeError(f"{path} is not UTF-8 text (byte {error.start})") from None


class _Frames(argparse.Action):
    """A number of frames, or "auto", which is a duration."""

    def __call__(self, parser: argparse.ArgumentParser, to: argparse.Namespace, text: Any, _flag: Any = None) -> None:
        """Sets the one or the other."""
        if text == "auto":
            to.duration, to.num_frames = "auto", None
            return
        try:
            setattr(to, self.dest, int(text))
        except ValueError:
            parser.error(f"argument {'/'.join(self.option_strings)}: invalid int value: {text!r}; or auto")


# What flags do that leave something out; their rows tell what is there without them.
_SWITCHES = {"video": "make sound alone, without computing pictures; -o names a .wav file"}


def seconds_between(text: str) -> list[float]:
    """Reads two times, A:B."""
    return _listed(text.replace(":", ",", 1), float, "two times in seconds such as 1.5:3")


_READERS: dict[str, Callable[[str], Any]] = {
    "whole": int,
    "real": float,
    "wholes": blocks,
    "reals": numbers,
    "loras": lora,
}


def clip_option(group: Any, name: str, more: str = "") -> None:
    """Adds an option of a clip as its row tells. ``more``: goes on from its help."""
    row = ROWS[name]
    kinds: dict[str, Any] = {"metavar": row["metavar"]}
    if row["kind"] == "flag":
        kinds = {"action": "store_const", "const": not row["flags"].startswith("--no-")}
    elif row["choices"]:
        kinds["choices"] = row["choices"]
    elif name == "frame_rate":
        kinds["type"] = frame_rate
    elif name == "num_frames":
        kinds["action"] = _Frames
    elif name == "enhance_system":
        kinds["type"] = text_file
    elif name == "retake":
        kinds["type"] = seconds_between
    elif row["kind"] in _READERS:
        kinds["type"] = _READERS[row["kind"]]
    if row["kind"] in ("files", "loras"):
        kinds["action"] = "append"
        more += "; repeat it for several"
    elif row["choices"]:
        more += f"; one of {', '.join(row['choices'])}"
    text = _SWITCHES.get(name, row["help"] + more)
    group.add_argument(*row["flags"].split(), dest=name, help=text.replace("%", "%%"), **kinds)
