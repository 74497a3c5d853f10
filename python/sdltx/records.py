"""What methods tell: values with names, which can be read as attributes and as a dictionary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any


class Record(Mapping[str, Any]):
    """Values with names: ``record.name`` and ``record["name"]`` are the same."""

    def _names(self) -> list[str]:
        return [one.name for one in fields(self)]  # type: ignore[arg-type]

    def __getitem__(self, name: str) -> Any:
        if name not in self._names():
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def to_dict(self) -> dict[str, Any]:
        """Returns all of it in types that JSON has."""
        return {name: _plain(value) for name, value in self.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value


@dataclass(frozen=True, eq=False)
class DeviceMemory(Record):
    """What is held on a device, in bytes."""

    device: str
    weights: int
    """Of weights that were brought there."""
    mapped: int
    """Of weights that are used where they lie in the files, which the system can take back."""
    inputs: int
    """Of values that live through a run."""
    working: int
    """Of what is computed, which goes back when a run ends."""


@dataclass(frozen=True, eq=False)
class StepEstimate(Record):
    """What a step of a clip takes."""

    step: str
    """Its name, such as "denoise"."""
    devices: list[DeviceMemory]
    host: int
    """Bytes of values on their way."""
    memory: int
    """Bytes in all, without what lies in files."""
    passing: int
    """Bytes of weights that are read from files each time they are used, as there is no room."""
    reading: float
    """Seconds that this takes, by a few reads of the file now; 0 where that is not known."""
    brought: int
    """Bytes of weights that are copied to devices each time, as there is no room."""
    tiles: dict[str, int] | None
    """What pictures are decoded in instead of larger tiles that do not fit, as arguments of :class:`sdltx.Tiling`."""
    misfit: str
    """Why the step cannot be, else empty."""
    operations: float
    """About how many multiply-adds it takes: steps of one kind take seconds in proportion."""


@dataclass(frozen=True, eq=False)
class Estimate(Record):
    """The memory that a clip takes."""

    memory: int
    """Bytes at most."""
    steps: list[StepEstimate]


def estimate_of(told: Mapping[str, Any]) -> Estimate:
    """Returns what the core tells."""
    steps = [
        StepEstimate(**{**one, "devices": [DeviceMemory(**device) for device in one["devices"]]})
        for one in told["steps"]
    ]
    return Estimate(told["memory"], steps)


@dataclass(frozen=True, eq=False)
class Recipe(Record):
    """A way to make a clip."""

    name: str
    purpose: str
    distilled: bool
    """Whether it is made for distilled checkpoints."""
    stages: int
    needs: list[str]


@dataclass(frozen=True, eq=False)
class Task(Record):
    """What can be made of what."""

    name: str
    purpose: str
    needs: str
    """How the command line asks for it."""


@dataclass(frozen=True, eq=False)
class ModelInfo(Record):
    """What was loaded."""

    model: str
    """Such as "LTX-2.3"."""
    version: str
    distilled: bool
    preset: str
    """Whose defaults apply unless others are asked for."""
    defaults: dict[str, Any]
    """Width, height, num_frames, frame_rate and steps of :meth:`sdltx.Pipeline.sample`."""
    negative_prompt: str
    """What clips are guided away from unless another is given."""
    own_defaults: bool
    """Whether they come from the files."""
    parts: list[str]
    note: str
    """For its users; may be empty."""
    image_crf: int
    """How much H.264 spoils pictures before they are encoded, as the checkpoint was trained with."""
    has_audio: bool


class Plan(Record):
    """Every option of a clip as it runs, and what the model adds to it; see :meth:`sdltx.Pipeline.resolve`."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        object.__setattr__(self, "_values", dict(values))

    def __setattr__(self, name: str, _value: object) -> None:
        raise AttributeError(f"a Plan is only read, so {name} cannot be set")

    def __getstate__(self) -> dict[str, Any]:
        return dict(self._values)

    def __setstate__(self, state: dict[str, Any]) -> None:
        object.__setattr__(self, "_values", state)

    def _names(self) -> list[str]:
        return list(self._values)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._values:
            raise AttributeError(name)
        return self._values[name]

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __dir__(self) -> list[str]:
        return sorted([*super().__dir__(), *self._values])

    def __repr__(self) -> str:
        return f"Plan({', '.join(f'{name}={value!r}' for name, value in self._values.items())})"
