"""A video like another one, with some of what was asked for changed."""

from __future__ import annotations

from typing import Any

from .bodies import Body
from .drafts import HIDDEN
from .store import Video


def remixed(source: Video, body: Body) -> Body:
    """What a video was asked to be, with what is changed; its files are taken over."""
    told = {name: value for name, value in source.request.items() if name not in HIDDEN}
    changed = body.fields.keys() | body.uploads.keys()
    for field, frame in (("input_reference", 0), ("last_image", -1)):
        if field in changed and "images" in told:
            told["images"] = [one for one in told["images"] if one.get("frame", 0) != frame]
    for name in ("images", "references"):
        if name in body.uploads:
            told.pop(name, None)
        elif name in told:
            told[name] = [_as_sent(source.id, one) for one in told[name]]
    for name in ("sound", "film"):
        if name in told and name in changed:
            del told[name]
        elif name in told:
            told[name] = _as_sent(source.id, told[name])
    # What says the same in another way is not said twice.
    ways = [{"seconds", "duration", "num_frames"}, {"sigmas", "num_inference_steps"}]
    if "size" in changed:
        ways.append({"size", "width", "height"})
    for names in ways:
        if changed & names:
            told = {name: value for name, value in told.items() if name not in names}
    if body.fields.get("video") is not False:  # else there are no pictures to write in that format
        told["format"] = source.file.rpartition(".")[2]
    return Body({**told, **body.fields}, body.uploads)


def _as_sent(id: str, entry: dict[str, Any]) -> dict[str, Any]:
    """A picture, sound, film or reference of a video, as a body names it."""
    told = {"file" if name == "path" else name: value for name, value in entry.items()}
    return {
        name: f"{id}/{value}" if name in ("file", "mask", "attention") and value is not None else value
        for name, value in told.items()
    }
