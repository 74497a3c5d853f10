"""LTX-2.3 video and audio generation without PyTorch.

>>> import sdltx
>>> pipe = sdltx.load()
>>> pipe.generate("a red triangle moves right over a navy background", seed=1).save("clip.mp4")
"""

# ruff: noqa: E402 (the core is loaded under an environment of its own)

import atexit as _atexit
import logging as _logging
import os as _os

# OpenMP reads these once, when the core is loaded. Its threads would spin at every barrier, which makes a run many
# times slower as soon as another process wants a core. Sleeping at once doubles the time of a small model, whose work
# between barriers is short: 300 looks, some microseconds, cost neither.
_waiting = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "300"}
if _waiting.keys() & _os.environ.keys():
    _waiting = {}
_os.environ.update(_waiting)
try:
    from . import _core
except ImportError as _error:
    from ._core_missing import explained as _explained

    raise _explained(_error) from None

for _name in _waiting:
    del _os.environ[_name]  # they are not for child processes and other libraries

from ._core import __version__, default_negative_prompt
from .conversion import convert
from .doctor import Device, devices
from .errors import (
    BackendError,
    BusyError,
    Cancelled,
    InvalidRequestError,
    ModelFileError,
    ModelMismatchError,
    OutOfMemoryError,
    SdltxError,
)
from .images import Condition
from .inspection import ModelReport, inspect
from .material import Film, Reference, Sound
from .options import recipes, tasks
from .pipeline import Pipeline, load
from .progress import Bars
from .request import Request
from .values import Context, Latents, Tiling, Video

__all__ = [
    "BackendError",
    "Bars",
    "BusyError",
    "Cancelled",
    "Condition",
    "Context",
    "Device",
    "Film",
    "InvalidRequestError",
    "Latents",
    "ModelFileError",
    "ModelMismatchError",
    "ModelReport",
    "OutOfMemoryError",
    "Output",
    "Pipeline",
    "Reference",
    "Request",
    "SdltxError",
    "Sound",
    "Tiling",
    "Video",
    "__version__",
    "convert",
    "default_negative_prompt",
    "devices",
    "inspect",
    "load",
    "pull",
    "recipes",
    "tasks",
]


_LATER = ("hub", "media", "model_sets", "preview", "sound")


def __getattr__(name: str) -> object:
    """Imports what takes longer than the rest when it is asked for."""
    if name in _LATER:
        from importlib import import_module

        return import_module(f"sdltx.{name}")
    if name == "pull":
        from .hub import pull

        return pull
    if name == "Output":
        from .diffusers_style import Output

        return Output
    raise AttributeError(f"module 'sdltx' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER, "Output", "pull"})


_logger = _logging.getLogger("sdltx")
_logger.addHandler(_logging.NullHandler())
_core.set_log(_logger.log)
_atexit.register(_core.set_log, None)  # the core may outlive the interpreter's logging
