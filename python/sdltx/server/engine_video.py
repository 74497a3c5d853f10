"""A video on its way through the engine: written to its folder, with pictures to be shown of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._files import replacing
from ..errors import SdltxError
from ..request import Request
from ..values import Latents
from ..writing import Files, Manner, WrittenClip

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

THUMBNAIL, SPRITES, PREVIEW = "thumbnail.webp", "spritesheet.jpg", "preview.webp"
_COLUMNS, _ROWS = 4, 4  # pictures of a sheet
_SIDE = 320  # pixels, at most


class EncodedOnly(SdltxError):
    """Ends a run after its first part."""


class ServedVideo(WrittenClip):
    """Writes a video to its folder."""

    def __init__(self, id: str, request: Request, files: Files, manner: Manner, **given: Any) -> None:
        super().__init__(request, files, manner, **given)
        self.id = id
        self.only_encode = False
        """Whether it ends when its prompts are encoded."""
        self.guided = True
        """Whether its negative prompt counts."""
        self.was_cancelled = self.told_of_error = False
        self.seconds: dict[str, float] = {}
        """That its parts took, by the name of progress."""
        self.show: Callable[[ServedVideo, int, Latents], None] | None = None
        self._shown: list[Any] = []
        self._seen = 0

    def is_encoded(self) -> bool:
        """Whether nothing of its prompts is left to be encoded."""
        negative = self.negative is not None or not self.guided
        return self.latents is not None or (self.context is not None and negative)

    def on_started(self) -> None:
        """Forgets pictures of a run before."""
        super().on_started()
        self._shown, self._seen = [], 0

    def on_encoded(self) -> None:
        """Keeps what was encoded."""
        super().on_encoded()
        if self.only_encode:
            raise EncodedOnly("[serve] encoded")

    def on_step(self, done: int, steps: int, estimate: Latents) -> None:
        """Has it shown."""
        if self.show is not None and done < steps:
            self.show(self, done, estimate)

    def on_frames(self, frames: NDArray[np.uint8]) -> None:
        """Keeps small pictures of some."""
        super().on_frames(frames)
        from PIL import Image

        wanted = {self.num_frames * i // (_COLUMNS * _ROWS) for i in range(_COLUMNS * _ROWS)}
        for number, frame in enumerate(frames, self._seen):
            if number in wanted:
                picture = Image.fromarray(frame)
                picture.thumbnail((_SIDE, _SIDE))
                self._shown.append(picture)
        self._seen += len(frames)

    def on_decoded(self) -> None:
        """Writes the small pictures before the video appears, so that they are there when it is."""
        if self._shown:
            assert self.files.output is not None
            folder = Path(self.files.output).parent
            with replacing(folder / THUMBNAIL) as temporary:
                self._shown[0].save(temporary, "WEBP")
            with replacing(folder / SPRITES) as temporary:
                _sheet(self._shown).save(temporary, "JPEG", quality=85)
        super().on_decoded()

    def abort(self) -> None:
        """Drops what is half written."""
        super().abort()
        self._shown, self._seen = [], 0

    def plan_made(self) -> dict[str, Any]:
        """Returns what only a video that is made knows."""
        assert self.latents is not None
        told: dict[str, Any] = {"result_frames": self.num_frames}
        if self.request.options.get("enhanced_from"):
            told["prompt"] = self.request.prompt
        return told


def _sheet(pictures: list[Any]) -> Any:
    from PIL import Image

    width, height = pictures[0].size
    rows = -(-len(pictures) // _COLUMNS)
    sheet = Image.new("RGB", (width * min(_COLUMNS, len(pictures)), height * rows))
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (width * (i % _COLUMNS), height * (i // _COLUMNS)))
    return sheet
