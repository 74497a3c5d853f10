"""A model that is open: what it is, and what it holds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from . import _arguments, _core
from .progress import Callback
from .records import DeviceMemory, ModelInfo, Plan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:
    from ._lazy import NDArray, np

_Self = TypeVar("_Self", bound="OpenModel")


class OpenModel:
    """What a pipeline is before it makes anything."""

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        *,
        device: str | Sequence[str],
        precision: str,
        threads: int | None,
        offload: str,
        max_memory: float | None,
        max_vram: float | None,
        progress: Callback | None,
    ) -> None:
        number_of_threads = _arguments.threads("load", threads)
        files = [_arguments.path("load", path) for path in paths]
        _arguments.callback("load", "progress", progress)
        devices = ",".join(_arguments.names("load", "device", [device] if isinstance(device, str) else device))
        for name, value in (("precision", precision), ("offload", offload)):
            _arguments.unicode("load", name, _arguments.instance("load", name, value, str, "a name"))
        self._core = _core.Pipeline(
            [_arguments.raw(file) for file in files],
            device=devices,
            precision=precision,
            threads=number_of_threads,
            offload=offload,
            max_memory=_arguments.number("load", "max_memory", max_memory) or 0.0,
            max_vram=_arguments.number("load", "max_vram", max_vram) or 0.0,
            progress=progress,
        )
        self.files = [Path(file).name for file in files]
        """Names of the files and folders that it was loaded from."""
        self.device = self._core.device
        """Name of the device that it runs on; several are separated by commas."""
        self.precision = precision
        """How it computes: "auto" or "f32"."""
        self.offload = offload
        """How long weights stay: "auto", "none", "stage" or "blocks"."""

    @property
    def latent_channels(self) -> int:
        """Channels of :attr:`Latents.video`."""
        return self._core.latent_channels

    def decoder_fingerprint(self) -> str:
        """Returns hexadecimal digits that tell video decoders apart."""
        return self._core.decoder_fingerprint()

    def encoder_fingerprint(self) -> str:
        """Returns hexadecimal digits that tell text encoders, with their projections, apart."""
        return self._core.encoder_fingerprint()

    def opened_files(self) -> list[Path]:
        """Returns the files that it reads from."""
        return [Path(path) for path in self._core.opened()]

    def encoder_bytes(self) -> int:
        """Returns the size of text encoder and projection as they are stored, in bytes."""
        return self._core.encoder_bytes()

    def memory(self) -> list[DeviceMemory]:
        """What is held on each device, the one that computes first."""
        return [DeviceMemory(**one) for one in self._core.memory()]

    def close(self) -> None:
        """Gives all memory and files back; what would compute raises InvalidRequestError afterwards."""
        self._core.close()

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def info(self) -> ModelInfo:
        """What was loaded."""
        return ModelInfo(**self._core.info)

    def require(self, *parts: str) -> None:
        """Raises ModelMismatchError if a part that is needed was not among the files; it names all that are missing.

        parts: of "transformer", "text encoder", "text projection" and "video decoder".
        """
        self._core.require(parts)

    def tokenize(self, text: str) -> NDArray[np.int32]:
        """Returns the token ids (n,) of ``text``, int32, with the leading <bos> and without padding."""
        return self._core.tokenize(_arguments.text("tokenize", "text", text))

    @property
    def presets(self) -> list[Plan]:
        """The kinds of checkpoints, by name, and the options that each makes clips with."""
        return [Plan(one) for one in _core.preset_table()]
