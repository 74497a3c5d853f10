"""Sound alone: WAV files."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _arguments
from ._files import Source, check_writable, failures_named, replacing
from .errors import BackendError, InvalidRequestError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray
else:
    from ._lazy import ArrayLike, NDArray, np

_LOUD = 1.5
_logger = logging.getLogger("sdltx")

SUFFIX = ".wav"
FORMATS = {"s16": "pcm_s16le", "f32": "pcm_f32le"}
"""Sample formats: 16-bit integers, or the floats that the vocoder gives."""


def is_sound(path: str | os.PathLike[str]) -> bool:
    """Whether a file of this name holds sound alone."""
    return Path(path).suffix.lower() == SUFFIX


def check_output(path: str | os.PathLike[str]) -> None:
    """Raises the InvalidRequestError that :func:`write` would: call it before a long run."""
    if not is_sound(path):
        raise InvalidRequestError(f"[output] {Path(path).name!r} is no name for sound alone; it must end in {SUFFIX}")
    check_writable(path)


def samples_of(where: str, samples: ArrayLike) -> NDArray[np.float32]:
    """Returns sound (channels, n) as float32 in [-1, 1].

    samples: floats, or the integers of 16 or 32 bits that files hold, which are divided by their range.

    Raises InvalidRequestError for other types and shapes and for values that are not finite. Floats beyond 1.5 are
    probably integers in disguise: a warning in the log says so.
    """
    import numpy as np

    array = np.asarray(samples)
    if array.ndim != 2 or (array.dtype.kind != "f" and array.dtype not in (np.int16, np.int32)):
        raise InvalidRequestError(
            f"[{where}] expected sound (channels, n) in float32, int16 or int32, got {array.shape} {array.dtype}"
        )
    if array.dtype.kind == "i":
        scaled: NDArray[np.float32] = (array / np.float64(-np.iinfo(array.dtype).min)).astype(np.float32)
        return scaled
    values: NDArray[np.float32] = array.astype(np.float32, copy=False)
    if not np.isfinite(values).all():
        raise InvalidRequestError(f"[{where}] the sound holds values that are not finite")
    if values.size and np.abs(values).max() > _LOUD:
        _logger.warning("[%s] the sound goes up to %g where 1 is the loudest; is it of integers?", where, values.max())
    return values


def write(
    path: str | os.PathLike[str],
    samples: NDArray[np.float32],
    sample_rate: int,
    *,
    sample_format: str = "s16",
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Writes samples (channels, n), 1 or 2 channels; see :func:`samples_of` for what they may be.

    sample_format: one of :data:`FORMATS`; integers are rounded.
    metadata: JSON-serialisable settings to keep in the file; :func:`sdltx.media.read_settings` gets them back.

    An existing file is replaced when all is written. Raises InvalidRequestError for a path that cannot be written or
    arrays of another shape, BackendError if the disk fails.
    """
    import av
    import numpy as np

    check_output(path)
    if sample_format not in FORMATS:
        _arguments.refuse("output", "sample_format", f"one of {', '.join(FORMATS)}", sample_format)
    samples = samples_of("output", samples)
    if len(samples) not in (1, 2):
        raise InvalidRequestError(f"[output] expected sound (1 or 2 channels, n), got {samples.shape}")
    interleaved = np.ascontiguousarray(samples.T, dtype=np.float32).reshape(1, -1)
    if sample_format == "s16":
        interleaved = np.clip(np.rint(interleaved * 32768), -32768, 32767).astype(np.int16)
    layout = ("mono", "stereo")[len(samples) - 1]
    with replacing(path) as temporary:
        try:
            with av.open(str(temporary), "w", format="wav") as container:
                container.metadata["comment"] = json.dumps(dict(metadata or {}))
                stream = container.add_stream(FORMATS[sample_format], rate=sample_rate)
                stream.layout = layout
                packed = {"s16": "s16", "f32": "flt"}[sample_format]
                frame = av.AudioFrame.from_ndarray(interleaved, format=packed, layout=layout)
                frame.sample_rate = sample_rate
                for packet in (*stream.encode(frame), *stream.encode(None)):
                    container.mux(packet)
        except av.FFmpegError as error:
            with failures_named(path):
                raise BackendError(f"[output] cannot write {path}: {error.strerror or error}") from error


def read_settings(path: Path) -> str | None:
    """Returns the JSON text of the settings in a file; None if there is none."""
    import av

    with Source(path) as file, av.open(file, format="wav") as container:
        text: str | None = container.metadata.get("comment")
        return text
