"""LTX-2.3 video and audio generation without PyTorch.

>>> import sdltx
>>> pipe = sdltx.load()
>>> pipe.generate("a red ball bounces on a blue floor", seed=1).save("clip.mp4")
"""

import atexit as _atexit
import logging as _logging

from . import _core
from ._core import __version__
from .errors import (
    BackendError,
    Cancelled,
    InvalidRequestError,
    ModelFileError,
    ModelMismatchError,
    OutOfMemoryError,
    SdltxError,
)
from .pipeline import Pipeline, load
from .values import Context, Latents, Tiling, Video

__all__ = [
    "BackendError",
    "Cancelled",
    "Context",
    "InvalidRequestError",
    "Latents",
    "ModelFileError",
    "ModelMismatchError",
    "OutOfMemoryError",
    "Pipeline",
    "SdltxError",
    "Tiling",
    "Video",
    "__version__",
    "load",
]

_logger = _logging.getLogger("sdltx")
_logger.addHandler(_logging.NullHandler())
_core.set_log(_logger.log)
_atexit.register(_core.set_log, None)  # the core may outlive the interpreter's logging
