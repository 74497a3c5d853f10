"""Pictures that a clip shows at some of its frames, and how they are read."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from . import _arguments
from ._files import sha256_of
from .errors import BackendError, InvalidRequestError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image
else:
    from ._lazy import Image, NDArray, np

_MAX_CRF = 51
_LONGEST_SIDE = 16384  # of pictures in H.264


@dataclass(frozen=True, eq=False)
class Condition:
    """A picture that a clip shows at one of its frames.

    It is turned as its EXIF says and brought to 8-bit RGB: its colours are those of its profile in sRGB (the reference
    takes all for sRGB), transparency is left out, of more bits the upper ones stay. Then it is compressed as a frame of
    H.264 and back, because models learned from such frames, scaled to cover the clip, and cut on both sides.
    """

    image: str | os.PathLike[str] | Image | NDArray[np.uint8]
    """A file, a picture of Pillow, or RGB bytes (H, W, 3), of any size."""
    frame: int = 0
    """Of the clip; negative ones count from its end. 0: what the clip begins with. Others are keyframes that the clip
    finds its way to, exactly or nearly."""
    strength: float = 1.0
    """1: the picture as it is; less: a start that is denoised further; 0: no effect."""
    crf: int | None = None
    """Quality of H.264, from 1 (best) to 51; 0: no compression; None: what the checkpoint was made with."""
    _read: NDArray[np.uint8] | None = field(default=None, repr=False, kw_only=True)
    _sha256: str | None = field(default=None, repr=False, kw_only=True)

    def __post_init__(self) -> None:
        if isinstance(self.image, (str, os.PathLike)):
            _arguments.path("image", self.image)
        object.__setattr__(self, "frame", _arguments.whole("image", "frame", self.frame))
        strength = _arguments.real("image", "strength", self.strength)
        if not 0 <= strength <= 1:
            raise InvalidRequestError(f"[image] strength {strength:g} is not between 0 and 1")
        object.__setattr__(self, "strength", strength)
        crf = _arguments.integer("image", "crf", self.crf)
        if crf is not None and not 0 <= crf <= _MAX_CRF:
            raise InvalidRequestError(f"[image] crf {crf} is not between 0 (no compression) and {_MAX_CRF}")
        object.__setattr__(self, "crf", crf)

    def to_dict(self) -> dict[str, Any]:
        """Returns what a clip remembers of it; ``path`` is None for a picture that is no file."""
        told: dict[str, Any] = {"path": None, "frame": self.frame, "strength": self.strength, "crf": self.crf}
        if isinstance(self.image, (str, os.PathLike)):
            told["path"] = os.fspath(self.image)
            # So that another picture under this name is noticed.
            if (checksum := self._sha256 or sha256_of(self.image)) is not None:
                told["sha256"] = checksum
        return told

    def settled(self) -> Condition:
        """Returns the same with its pixels, if they are given as an array or a picture, copied: those may change."""
        if isinstance(self.image, (str, os.PathLike)):
            return self
        pixels = self.loaded()._read
        assert pixels is not None
        return self if pixels is self.image else replace(self, image=pixels, _read=pixels)

    def loaded(self) -> Condition:
        """Returns the same with its picture read already. Raises InvalidRequestError for what is no single picture."""
        if self._read is not None:
            return self
        checksum = sha256_of(self.image) if isinstance(self.image, (str, os.PathLike)) else None
        return replace(self, _read=read(self.image), _sha256=checksum)


def conditions_of(image: Any | None, last_image: Any | None, more: Iterable[Condition] | None) -> list[Condition]:
    """Returns all pictures of a call: for the first frame, others, for the last frame."""
    if more is not None and (isinstance(more, Condition) or not isinstance(more, Iterable)):
        _arguments.refuse("image", "conditions", "a list of sdltx.Condition", more)
    found = [] if image is None else [Condition(image)]
    for condition in () if more is None else more:
        found.append(_arguments.instance("image", "conditions", condition, Condition, "a list of sdltx.Condition"))
    return found if last_image is None else [*found, Condition(last_image, -1)]


def frames_of(conditions: Iterable[Condition]) -> list[tuple[None, None, int, float]]:
    """Returns pictures as the core takes those whose pixels do not count."""
    return [(None, None, one.frame, one.strength) for one in conditions]


def pixels(condition: Condition, crf: int) -> NDArray[np.uint8]:
    """Returns the picture (H, W, 3) as a model gets it, before it is scaled; crf: of one that does not tell.

    Raises InvalidRequestError for what is no single picture.
    """
    array = read(condition.image) if condition._read is None else condition._read
    crf = crf if condition.crf is None else condition.crf
    # H.264 stores colours of two by two pixels.
    return array if crf == 0 or min(array.shape[:2]) < 2 else _compressed(array, crf)


def read(image: Any) -> NDArray[np.uint8]:
    """Returns a picture as RGB bytes (H, W, 3), whatever it is given as, see :class:`Condition`; arrays are copied.

    Raises InvalidRequestError for what is no single picture.
    """
    import numpy as np
    from PIL import Image as Pillow

    from . import _pictures

    if isinstance(image, (str, os.PathLike)):
        return _pictures.read(image)
    if isinstance(image, Pillow.Image):
        return _pictures.of_pillow(image, "the picture")
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise InvalidRequestError(
            "[image] expected a file, a picture of Pillow or RGB bytes (H, W, 3) uint8, got "
            f"{array.shape} {array.dtype}"
        )
    copied = np.array(array, order="C")
    copied.flags.writeable = False
    return copied


def _compressed(array: NDArray[np.uint8], crf: int) -> NDArray[np.uint8]:
    """The picture as a video of one frame has it; odd edges are cut off."""
    import av
    import numpy as np
    from PIL import Image as Pillow

    if (longest := max(array.shape[:2])) > _LONGEST_SIDE:
        size = [max(2, side * _LONGEST_SIDE // longest) for side in array.shape[1::-1]]
        array = np.asarray(Pillow.fromarray(array).resize((size[0], size[1]), Pillow.Resampling.LANCZOS))
    height, width = (side // 2 * 2 for side in array.shape[:2])
    file = io.BytesIO()
    try:
        with av.open(file, "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=1, options={"crf": str(crf), "preset": "veryfast"})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            frame = av.VideoFrame.from_ndarray(array[:height, :width].copy(), format="rgb24")
            container.mux(stream.encode(frame.reformat(format="yuv420p")))
            container.mux(stream.encode())
        file.seek(0)
        with av.open(file) as container:
            decoded: NDArray[np.uint8] = next(container.decode(video=0)).to_ndarray(format="rgb24")
    except (av.FFmpegError, StopIteration) as error:
        raise BackendError(f"[image] cannot compress the picture with H.264 ({error}); use crf 0") from None
    return decoded
