"""One clip as it is asked for: settled once, then only read; as JSON a line of a batch, or what a clip remembers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from . import _arguments, _core
from .errors import InvalidRequestError
from .images import Condition, conditions_of
from .material import Film, Reference, Sound
from .options import ROWS, Options, explicit, settled
from .values import Latents, Tiling, tiles

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Arguments(Options, total=False):
    """Everything that a :class:`Request` takes but its prompt."""

    negative_prompt: str | None
    image: Any
    last_image: Any
    conditions: Iterable[Condition] | None
    sound: Any
    film: Any
    references: Iterable[Any] | None
    tiling: Tiling | None
    noise: Latents | None
    initial: Latents | None


# What clips remember besides, which asks for nothing.
_TOLD = frozenset(_core.told_names())


class Request:
    """What a clip is asked to be. Its attributes are only read; :meth:`replaced` gives another one."""

    prompt: str
    negative_prompt: str | None
    conditions: tuple[Condition, ...]
    """Pictures, also those that were given as ``image`` and ``last_image``."""
    tiling: Tiling | None
    sound: Sound | None
    film: Film | None
    references: tuple[Reference, ...]
    noise: Latents | None
    initial: Latents | None
    options: Mapping[str, Any]
    """What was given of :class:`sdltx.options.Options`, as plain numbers, texts and tuples."""

    @explicit
    def __init__(
        self,
        prompt: str,
        *,
        negative_prompt: str | None = None,
        image: Any | None = None,
        last_image: Any | None = None,
        conditions: Iterable[Condition] | None = None,
        sound: Any | None = None,
        film: Any | None = None,
        references: Iterable[Any] | None = None,
        tiling: Tiling | None = None,
        noise: Latents | None = None,
        initial: Latents | None = None,
        **options: Unpack[Options],
    ) -> None:
        """The arguments are those of :meth:`sdltx.Pipeline.generate`. Raises InvalidRequestError for other kinds."""
        if negative_prompt is not None:
            _arguments.text("encode", "negative prompt", negative_prompt)
        plain = settled(options)
        if noise is not None:
            _arguments.instance("sample", "noise", noise, Latents, "start noise in the shapes of a result")
            if noise.frame_rate:
                plain = {"frame_rate": noise.frame_rate, **plain}
        if initial is not None:
            _arguments.instance("sample", "initial", initial, Latents, "what is refined")
        numbers = tiles("decode", tiling)
        self.__setstate__(
            {
                "prompt": _arguments.text("encode", "prompt", prompt),
                "negative_prompt": negative_prompt,
                "conditions": tuple(one.settled() for one in conditions_of(image, last_image, conditions)),
                "sound": None if sound is None else Sound.of(sound),
                "film": None if film is None else Film.of(film),
                "references": _references(references),
                "tiling": None if numbers is None else Tiling(*numbers),
                "noise": _copied(noise),
                "initial": _copied(initial),
                "options": plain,
            }
        )

    def __setattr__(self, name: str, _value: object) -> None:
        raise AttributeError(f"a Request is only read; use replaced({name}=...)")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a Request is only read; use replaced({name}=None)")

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "options": dict(self.options)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update({**state, "options": MappingProxyType(state["options"])})

    @classmethod
    def of(cls, prompt: str | Request, given: Mapping[str, Any]) -> Request:
        """Returns a prompt, or a request, with other arguments; None stands for what is there."""
        more = {name: value for name, value in given.items() if value is not None}
        if not isinstance(prompt, Request):
            return cls(prompt, **more)
        return prompt.replaced(**more) if more else prompt

    def replaced(self, **changes: Any) -> Request:
        """Returns the same with other arguments."""
        given = {
            "prompt": self.prompt,
            "negative_prompt": self.negative_prompt,
            "conditions": self.conditions,
            "sound": self.sound,
            "film": self.film,
            "references": self.references,
            "tiling": self.tiling,
            "noise": self.noise,
            "initial": self.initial,
            **self.options,
        }
        if "prompt" in changes:  # which is another one
            given.pop("enhanced_from", None)
        return Request(**{**given, **changes})

    def loaded(self) -> Request:
        """Returns the same with its pictures, sound and films read already, so that their files need not be there.

        Raises InvalidRequestError for files that are missing or of another kind.
        """
        return self.replaced(
            conditions=[one.loaded() for one in self.conditions],
            sound=self.sound and self.sound.loaded(),
            film=self.film and self.film.loaded(),
            references=[one.loaded() for one in self.references],
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns it as JSON takes it.

        Raises InvalidRequestError for start noise, latents and pictures that are no files, as they have no text.
        """
        if self.noise is not None or self.initial is not None:
            raise InvalidRequestError("[request] start noise and initial latents cannot be written as text")
        if any(not isinstance(one.image, (str, os.PathLike)) for one in self.conditions):
            raise InvalidRequestError("[request] a picture that is no file cannot be written as text; save it first")
        told: dict[str, Any] = {"prompt": self.prompt, "negative_prompt": self.negative_prompt}
        for name, value in (("sound", self.sound), ("film", self.film)):
            if value is not None:
                told[name] = value.to_dict()
                if None in (told[name]["path"], told[name].get("mask", "")):
                    raise InvalidRequestError(f"[request] a {name} that is no file cannot be written as text; save it")
        if self.references:
            told["references"] = [one.to_dict() for one in self.references]
            if any(None in (one["path"], one.get("attention", "")) for one in told["references"]):
                raise InvalidRequestError("[request] a reference that is no file cannot be written as text; save it")
        for name, value in self.options.items():
            told[name] = listed(value)
        if self.conditions:
            told["images"] = [one.to_dict() for one in self.conditions]
        if self.tiling is not None:
            told["tiling"] = list(self.tiling)
        return {name: value for name, value in told.items() if value is not None}

    @classmethod
    def from_dict(cls, told: Mapping[str, Any], locate: Callable[[str], str] | None = None) -> Request:
        """Returns what :meth:`to_dict` gave, or what a clip was made with (``video.metadata``).

        locate: where the file of a path that is named lies.

        Raises InvalidRequestError for names that there are not, values of another kind, and clips that were made from
        values which they do not keep.
        """
        if not isinstance(told, Mapping):
            _arguments.refuse("request", "a request", "an object with options by name", told)
        given = {name: value for name, value in told.items() if value is not None and name not in _TOLD}
        if told.get("upscalers"):
            given.setdefault("upscaler", told["upscalers"])
        for name in ("initial", "noise"):
            if given.pop(name, None):
                raise InvalidRequestError(
                    f"[request] it was made from values that were given to Python ({name}), which it does not keep"
                )
        located = _Located(locate or (lambda path: path))
        images = located.conditions(given.pop("images", None))
        sound = located.material("sound", given.pop("sound", None))
        film = located.material("film", given.pop("film", None))
        references = located.references(given.pop("references", None))
        tiling = given.pop("tiling", None)
        if unknown := given.keys() - ROWS.keys():
            raise InvalidRequestError(f"[request] there is no option {', '.join(sorted(map(str, unknown)))}")
        if "prompt" not in given:
            raise InvalidRequestError("[request] it has no prompt")
        return cls(
            given.pop("prompt"),
            negative_prompt=given.pop("negative_prompt", None),
            conditions=images,
            sound=sound,
            film=film,
            references=references,
            tiling=None if tiling is None else _tiling(tiling),
            **{name: located.option(name, value) for name, value in given.items()},
        )

    def __repr__(self) -> str:
        told = {"negative_prompt": self.negative_prompt, "tiling": self.tiling, **self.options}
        more = "".join(f", {name}={value!r}" for name, value in told.items() if value is not None)
        images = f", {len(self.conditions)} pictures" if self.conditions else ""
        return f"Request({self.prompt!r}{images}{more})"


def _references(given: Any) -> tuple[Reference, ...]:
    if given is None:
        return ()
    if isinstance(given, (str, os.PathLike, Reference)) or not isinstance(given, Iterable):
        _arguments.refuse("reference", "references", "a list of films, pictures or sdltx.Reference", given)
    return tuple(Reference.of(one) for one in given)


def _copied(latents: Latents | None) -> Latents | None:
    """Arrays that were given may be written into afterwards."""
    if latents is None:
        return None
    return replace(latents, video=latents.video.copy(), audio=None if latents.audio is None else latents.audio.copy())


def listed(value: Any) -> Any:
    """Returns an option as JSON has it."""
    return [listed(one) for one in value] if isinstance(value, tuple) else value


def _tiling(value: Any) -> Tiling:
    if not isinstance(value, list) or len(value) != len(Tiling._fields):
        _arguments.refuse("request", "tiling", "four numbers", value)
    return Tiling(*value)


class _Located:
    """Reads what names files."""

    def __init__(self, locate: Callable[[str], str]) -> None:
        self._locate = locate

    def option(self, name: str, value: Any) -> Any:
        kind = ROWS[name]["kind"]
        # JSON knows one kind of numbers.
        if kind == "whole" and isinstance(value, float) and value.is_integer():
            return int(value)
        if kind == "wholes" and isinstance(value, list):
            return [int(one) if isinstance(one, float) and one.is_integer() else one for one in value]
        if kind == "file" and isinstance(value, str):
            return self._locate(value)
        if kind == "files":
            paths = [value] if isinstance(value, str) else value
            if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
                _arguments.refuse("request", name, "paths", value)
            return [self._locate(path) for path in paths]
        if kind == "loras":
            pairs: list[Any] | None = (
                [[one, 1.0] if isinstance(one, str) else one for one in value] if isinstance(value, list) else None
            )
            if pairs is None or not all(
                isinstance(one, list) and len(one) == 2 and isinstance(one[0], str) for one in pairs
            ):
                _arguments.refuse("request", name, "paths with strengths", value)
            return [(self._locate(path), strength) for path, strength in pairs]
        return value

    def material(self, name: str, entry: Any) -> Sound | Film | None:
        """A sound or a film: an object with its path, or the path alone."""
        if entry is None:
            return None
        told = {"path": entry} if isinstance(entry, str) else entry
        if not isinstance(told, dict) or told.get("path") is None:
            raise InvalidRequestError(f"[request] {name}: it does not name its file; give it as well")
        if unknown := told.keys() - {"path", "sha256", *(("start",) if name == "sound" else ("mask", "mask_sha256"))}:
            raise InvalidRequestError(f"[request] {name}: there is no {', '.join(sorted(map(str, unknown)))}")
        if not isinstance(told["path"], str):
            _arguments.refuse("request", f"{name}: path", "text", told["path"])
        path = self._locate(told["path"])
        if (mask := told.get("mask")) is not None and not isinstance(mask, str):
            _arguments.refuse("request", "film: mask", "a path", mask)
        if name == "film" and "mask" in told and mask is None:
            raise InvalidRequestError("[request] film: it does not name the file of its mask; give it as well")
        if name == "film":
            return Film(path, None if mask is None else self._locate(mask))
        return Sound(path, told.get("start") or 0.0)

    def references(self, entries: Any) -> list[Reference] | None:
        if entries is None:
            return None
        if not isinstance(entries, list):
            _arguments.refuse("request", "references", "a list", entries)
        found = []
        for entry in entries:
            told = {"path": entry} if isinstance(entry, str) else entry
            if not isinstance(told, dict) or not isinstance(told.get("path"), str):
                raise InvalidRequestError("[request] references: one does not name its file; give all of them")
            if unknown := told.keys() - {"path", "strength", "attention", "sha256", "attention_sha256"}:
                raise InvalidRequestError(f"[request] references: there is no {', '.join(sorted(map(str, unknown)))}")
            attention = told.get("attention")
            if attention is not None and not isinstance(attention, str):
                _arguments.refuse("request", "references: attention", "a path", attention)
            strength = told.get("strength")
            found.append(
                Reference(
                    self._locate(told["path"]),
                    1.0 if strength is None else strength,
                    None if attention is None else self._locate(attention),
                )
            )
        return found

    def conditions(self, entries: Any) -> list[Condition] | None:
        if entries is None:
            return None
        if not isinstance(entries, list):
            _arguments.refuse("request", "images", "a list", entries)
        return [self._condition(entry) for entry in entries]

    def _condition(self, entry: Any) -> Condition:
        if isinstance(entry, str):
            entry = {"path": entry}
        if not isinstance(entry, dict):
            _arguments.refuse("request", "images", "objects with a path, frame, strength and crf", entry)
        if not isinstance(entry.get("path"), str):
            raise InvalidRequestError("[request] images: there is a picture that it does not name; give all of them")
        if unknown := entry.keys() - {"path", "frame", "strength", "crf", "sha256"}:
            raise InvalidRequestError(f"[request] images: there is no {', '.join(sorted(map(str, unknown)))}")
        rest = {name: entry[name] for name in ("frame", "strength", "crf") if entry.get(name) is not None}
        for name in ("frame", "crf"):
            if isinstance(value := rest.get(name), float) and value.is_integer():
                rest[name] = int(value)
        return Condition(self._locate(entry["path"]), **rest)
