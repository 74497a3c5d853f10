"""One clip as it is asked for: settled once, then only read; as JSON a line of a batch, or what a clip remembers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _arguments
from .errors import InvalidRequestError
from .images import Condition, conditions_of
from .options import ROWS, Options, explicit, settled
from .values import Latents, Tiling, tiles

if TYPE_CHECKING:
    from typing_extensions import Unpack

# What clips remember besides, which asks for nothing.
_TOLD = frozenset(
    ("sdltx_version", "model", "model_version", "model_files", "device", "precision", "schedule", "passes", "upscalers")
)
_NAMED_BY_PATH = ("file", "files", "loras")


class Request:
    """What a clip is asked to be. Its attributes are only read; :meth:`replaced` gives another one."""

    prompt: str
    negative_prompt: str | None
    conditions: tuple[Condition, ...]
    """Pictures, also those that were given as ``image`` and ``last_image``."""
    tiling: Tiling | None
    noise: Latents | None
    initial: Latents | None
    options: Mapping[str, Any]
    """What was given of :class:`sdltx.options.Options`, as plain numbers, texts and lists."""

    @explicit
    def __init__(
        self,
        prompt: str,
        *,
        negative_prompt: str | None = None,
        image: Any | None = None,
        last_image: Any | None = None,
        conditions: Iterable[Condition] | None = None,
        tiling: Tiling | None = None,
        noise: Latents | None = None,
        initial: Latents | None = None,
        **options: Unpack[Options],
    ) -> None:
        """The arguments are those of :meth:`sdltx.Pipeline.generate`. Raises InvalidRequestError for other kinds."""
        self.prompt = _arguments.text("encode", "prompt", prompt)
        self.negative_prompt = negative_prompt
        if negative_prompt is not None:
            _arguments.text("encode", "negative prompt", negative_prompt)
        self.options = settled(options)
        self.conditions = tuple(conditions_of(image, last_image, conditions))
        numbers = tiles("decode", tiling)
        self.tiling = None if numbers is None else Tiling(*numbers)
        for name, value, what in (
            ("noise", noise, "start noise in the shapes of a result"),
            ("initial", initial, "what is refined"),
        ):
            if value is not None:
                _arguments.instance("sample", name, value, Latents, what)
        self.noise, self.initial = noise, initial
        if noise is not None and noise.frame_rate:
            self.options = {"frame_rate": noise.frame_rate, **self.options}

    def replaced(self, **changes: Any) -> Request:
        """Returns the same with other arguments."""
        given = {
            "prompt": self.prompt,
            "negative_prompt": self.negative_prompt,
            "conditions": self.conditions,
            "tiling": self.tiling,
            "noise": self.noise,
            "initial": self.initial,
            **self.options,
        }
        return Request(**{**given, **changes})

    def to_dict(self) -> dict[str, Any]:
        """Returns it as JSON takes it. Raises InvalidRequestError for start noise and latents, which have no text."""
        if self.noise is not None or self.initial is not None:
            raise InvalidRequestError("[request] start noise and initial latents cannot be written as text")
        told: dict[str, Any] = {"prompt": self.prompt, "negative_prompt": self.negative_prompt}
        for name, value in self.options.items():
            told[name] = [list(one) for one in value] if ROWS[name]["kind"] == "loras" else value
        if self.conditions:
            told["images"] = [one.to_dict() for one in self.conditions]
        if self.tiling is not None:
            told["tiling"] = list(self.tiling)
        return {name: value for name, value in told.items() if value is not None}

    @classmethod
    def from_dict(cls, told: Mapping[str, Any], folder: str | os.PathLike[str] = "") -> Request:
        """Returns what :meth:`to_dict` gave, or what a clip was made with (``video.metadata``).

        folder: where relative paths are looked for if they lead nowhere from here.

        Raises InvalidRequestError for names that there are not, values of another kind, and clips that were made from
        values which they do not keep.
        """
        if not isinstance(told, Mapping):
            _arguments.refuse("request", "a request", "an object with options by name", told)
        given = {name: value for name, value in told.items() if value is not None and name not in _TOLD}
        if told.get("upscalers"):
            given.setdefault("upscaler", told["upscalers"])
        for name in ("initial", "noise"):
            if given.get(name):
                raise InvalidRequestError(f"[request] it was made from values that it does not keep ({name})")
        images, tiling = given.pop("images", None), given.pop("tiling", None)
        if unknown := given.keys() - ROWS.keys():
            raise InvalidRequestError(f"[request] there is no option {', '.join(sorted(map(str, unknown)))}")
        if "prompt" not in given:
            raise InvalidRequestError("[request] it has no prompt")
        for name, value in given.items():
            if ROWS[name]["kind"] in _NAMED_BY_PATH:
                given[name] = _located(name, value, folder)
        return cls(
            given.pop("prompt"),
            negative_prompt=given.pop("negative_prompt", None),
            conditions=None if images is None else [_condition(one, folder) for one in _list("images", images)],
            tiling=None if tiling is None else _tiling(tiling),
            **given,
        )

    def __repr__(self) -> str:
        told = {"negative_prompt": self.negative_prompt, "tiling": self.tiling, **self.options}
        more = "".join(f", {name}={value!r}" for name, value in told.items() if value is not None)
        images = f", {len(self.conditions)} pictures" if self.conditions else ""
        return f"Request({self.prompt!r}{images}{more})"


def _tiling(value: Any) -> Tiling:
    if not isinstance(value, list) or len(value) != len(Tiling._fields):
        _arguments.refuse("request", "tiling", "a list of four numbers", value)
    return Tiling(*value)


def _list(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        _arguments.refuse("request", name, "a list", value)
    return value


def _located(name: str, value: Any, folder: str | os.PathLike[str]) -> Any:
    """Paths of an option, seen from the folder if they lead nowhere from here."""
    if isinstance(value, str):
        beside = Path(folder) / value
        return str(beside) if folder and not Path(value).exists() and beside.exists() else value
    if isinstance(value, list) and ROWS[name]["kind"] == "loras":
        return [
            [_located("file", one[0], folder), *one[1:]]
            if isinstance(one, list) and one
            else _located("file", one, folder)
            for one in value
        ]
    return [_located("file", one, folder) for one in value] if isinstance(value, list) else value


def _condition(entry: Any, folder: str | os.PathLike[str]) -> Condition:
    if isinstance(entry, str):
        entry = {"path": entry}
    if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
        _arguments.refuse("request", "images", "objects with a path, frame, strength and crf", entry)
    if unknown := entry.keys() - {"path", "frame", "strength", "crf", "sha256"}:
        raise InvalidRequestError(f"[request] images: there is no {', '.join(sorted(map(str, unknown)))}")
    rest = {name: entry[name] for name in ("frame", "strength", "crf") if entry.get(name) is not None}
    return Condition(_located("file", entry["path"], folder), **rest)
