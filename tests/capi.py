"""libsdltx.so through ctypes, as a program without our package's Python would use it."""

from __future__ import annotations

import ctypes as c
import json
import re
from pathlib import Path

import numpy as np

from sdltx import _core

HEADER = Path(__file__).parent.parent / "csrc" / "sdltx.h"
LIBRARY = c.CDLL(str(Path(_core.__file__).parent / "libsdltx.so"))
OK, MISMATCH, INVALID, CANCELLED, BACKEND, BUSY = 0, 2, 4, 5, 6, 7
PICTURES, SOUND, BOTH = 1, 2, 3

Progress = c.CFUNCTYPE(c.c_int32, c.c_char_p, c.c_int64, c.c_int64, c.c_void_p)
OnStep = c.CFUNCTYPE(c.c_int32, c.c_int64, c.c_int64, c.c_void_p, c.c_void_p)
OnFrames = c.CFUNCTYPE(c.c_int32, c.POINTER(c.c_uint8), *[c.c_int64] * 4, c.c_void_p)
Log = c.CFUNCTYPE(None, c.c_int32, c.c_char_p, c.c_void_p)
_TYPES = {
    "int32_t": c.c_int32,
    "uint32_t": c.c_uint32,
    "int64_t": c.c_int64,
    "double": c.c_double,
    "size_t": c.c_size_t,
    "sdltx_progress_fn": Progress,
    "sdltx_step_fn": OnStep,
    "sdltx_frames_fn": OnFrames,
    "char *": c.c_char_p,
}


def declarations() -> str:
    """The header without comments and directives."""
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.S)
    return re.sub(r"^#.*$", "", text, flags=re.M)


def functions() -> dict[str, int]:
    """Every function of the header and how many arguments it has."""
    found = re.findall(r"SDLTX_API [^;(]*?(sdltx_\w+)\(([^;]*)\);", declarations())
    return {name: 0 if arguments == "void" else arguments.count(",") + 1 for name, arguments in found}


def structs() -> dict[str, list[tuple[str, str, int]]]:
    """Every struct of the header: (type, name, entries) of its fields; pointers that are no text are "void *"."""
    found = {}
    for name, body in re.findall(r"typedef struct (sdltx_\w+) \{(.*?)\}", declarations(), flags=re.S):
        fields = found[name] = []
        for line in filter(None, map(str.strip, body.split(";"))):
            kind, star, names = re.fullmatch(r"(?:const )?(\w+)((?:\*| const)*) (.*)", line, flags=re.S).groups()
            for field in names.split(","):
                field, count = re.fullmatch(r"(\w+)(?:\[(\d+)\])?", field.strip()).groups()
                pointer = "char *" if (kind, star) == ("char", "*") else "void *"
                fields.append((pointer if star else kind, field, int(count or 0)))
    return found


def structure(name: str) -> type[c.Structure]:
    """A struct of the header for ctypes."""
    fields = []
    for kind, field, count in structs()[name]:
        of = _TYPES.get(kind, c.c_void_p)
        fields.append((field, of * count if count else of))
    return type(name, (c.Structure,), {"_fields_": fields})


Array = structure("sdltx_array")
Frames = structure("sdltx_frames")
Sound = structure("sdltx_sound")

for _name in functions():
    getattr(LIBRARY, _name).restype = c.c_int32
for _name in ("sdltx_set_log", "sdltx_explain_crashes"):
    getattr(LIBRARY, _name).restype = None
for _name in ("sdltx_last_error", "sdltx_version"):
    getattr(LIBRARY, _name).restype = c.c_char_p


class Failed(Exception):
    """A status and its line."""

    def __init__(self, status: int) -> None:
        super().__init__(LIBRARY.sdltx_last_error().decode())
        self.status = status


def call(name, *arguments):
    """Calls a function and raises what it returns."""
    status = getattr(LIBRARY, "sdltx_" + name)(*arguments)
    if status != OK:
        raise Failed(status)


def made(name, *arguments):
    """The object that a function gives through its last argument."""
    out = c.c_void_p(1)
    call(name, *arguments, c.byref(out))
    return out


def text(name, *arguments):
    """The same for strings, which are freed."""
    out = made(name, *arguments)
    value = c.string_at(out.value).decode()
    LIBRARY.sdltx_string_free(out)
    return value


def borrowed_text(name, *arguments):
    """The same for strings that stay the object's."""
    return c.string_at(made(name, *arguments).value).decode()


def strings(*values):
    """An array of strings."""
    return (c.c_char_p * len(values))(*(str(value).encode() for value in values))


def free(kind, handle):
    """Gives an object back."""
    getattr(LIBRARY, f"sdltx_{kind}_free")(handle)


def options(kind, **fields):
    """A struct of options with these fields."""
    struct = structure(f"sdltx_{kind}_options")()
    call(f"{kind}_options_init", c.byref(struct), 1)
    for name, value in fields.items():
        setattr(struct, name, value.encode() if isinstance(value, str) else value)
    return struct


def callbacks(**fields):
    """Callbacks, and the payload of them."""
    struct = structure("sdltx_callbacks")(version=1)
    for name, value in fields.items():
        setattr(struct, name, value)
    return struct


def _bytes(value):
    return value if isinstance(value, bytes) else str(value).encode()


def request(**fields):
    """A request with these options, by the setters of their kinds; ``noise``: two arrays, ``initial``: latents."""
    handle = made("request_new")
    kinds = {row["name"]: row["kind"] for row in json.loads(text("options"))}
    for name, value in fields.items():
        kind = kinds.get(name, name)
        named = handle, name.encode()
        if kind == "noise":
            call("request_set_noise", handle, *map(c.byref, value))
        elif kind == "initial":
            call("request_set_initial", handle, value)
        elif kind in ("text", "choice", "file"):
            call("request_set_text", *named, _bytes(value))
        elif kind in ("whole", "flag"):
            call("request_set_int", *named, c.c_int64(value))
        elif kind == "real":
            call("request_set_float", *named, c.c_double(value))
        elif kind == "wholes":
            call("request_set_ints", *named, (c.c_int64 * len(value))(*value), c.c_size_t(len(value)))
        elif kind == "reals":
            call("request_set_floats", *named, (c.c_double * len(value))(*value), c.c_size_t(len(value)))
        elif kind == "files":
            for one in value:
                call("request_add_text", *named, _bytes(one))
        else:
            for path, strength in value:
                call("request_add_lora", *named, _bytes(path), c.c_double(strength))
    return handle


def load(*paths, **fields):
    """A pipeline."""
    return made("load", strings(*paths), c.c_size_t(len(paths)), c.byref(options("load", **fields)))


def array(values):
    """An array that lends ``values``."""
    values = np.ascontiguousarray(values, np.float32)
    out = Array(values.ctypes.data, (*values.shape, *[-1] * (4 - values.ndim)), values.ndim)
    out.kept = values
    return out


def values(lent):
    """A copy of a lent array, None if it is absent."""
    if not lent.data:
        return None
    shape = lent.shape[: lent.dims]
    flat = np.ctypeslib.as_array(c.cast(lent.data, c.POINTER(c.c_float)), (int(np.prod(shape)),))
    return flat.reshape(shape).copy()


def pair(kind, handle, *more):
    """Video and audio values of a context or of latents."""
    video, audio = Array(), Array()
    call(f"{kind}_get", handle, c.byref(video), c.byref(audio), *more)
    return values(video), values(audio)


def frames_of(video):
    """(F, H, W, 3), and frames per second."""
    got = Frames()
    call("video_frames", video, c.byref(got))
    shape = (got.num_frames, got.height, got.width, 3)
    flat = np.ctypeslib.as_array(c.cast(got.rgb, c.POINTER(c.c_uint8)), (int(np.prod(shape)),))
    return flat.reshape(shape).copy(), got.frame_rate


def sound_of(video):
    """(channels, n) and Hz; None of a silent clip."""
    got = Sound()
    call("video_sound", video, c.byref(got))
    if not got.samples:
        return None
    lent = Array(got.samples, (got.channels, got.num_samples, 0, 0), 2)
    return values(lent), got.sample_rate
