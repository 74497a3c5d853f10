"""The compiled core. Use it through :mod:`sdltx`; every argument there is documented."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Progress = Callable[[str, int, int], object]  # (phase, done, total); raising stops the run

__version__: str
ggml_version: str

class SdltxError(Exception): ...
class ModelFileError(SdltxError): ...
class ModelMismatchError(SdltxError): ...
class OutOfMemoryError(SdltxError, MemoryError): ...
class InvalidRequestError(SdltxError, ValueError): ...
class Cancelled(SdltxError): ...
class BackendError(SdltxError): ...
class BusyError(SdltxError): ...

def set_log(callback: Callable[[int, str], None] | None) -> None: ...  # (level of `logging`, line)
def usable_processors() -> int: ...  # physical cores within affinity and quota
def end_on_second_signal() -> None: ...  # INT, TERM and HUP, as they are handled now
def guard_file(path: str) -> None: ...  # removed if the process ends by an assertion
def release_file(path: str) -> None: ...
def serve(host: str, port: int, *, device: str = "cpu", threads: int = 0) -> None: ...  # returns by an error only
def check(options: SampleOptions) -> None: ...

default_tiling: tuple[int, int, int, int]  # fields of sdltx.Tiling

class SampleOptions:
    def __init__(
        self,
        *,
        width: int | None = None,
        height: int | None = None,
        num_frames: int | None = None,
        frame_rate: float | None = None,
        num_inference_steps: int | None = None,
        sigmas: Sequence[float] | None = None,
        seed: int | None = None,
    ) -> None: ...

class Pipeline:
    def __init__(
        self,
        paths: Sequence[str],
        *,
        device: str = "cpu",
        precision: str = "auto",
        threads: int = 0,
        offload: str = "none",
        progress: Progress | None = None,
    ) -> None: ...
    @property
    def info(self) -> dict[str, Any]: ...
    @property
    def device(self) -> str: ...
    def unused_tensors(self) -> list[str]: ...
    def require(self, parts: Sequence[str]) -> None: ...
    def tokenize(self, text: str) -> NDArray[np.int32]: ...
    def encode(self, prompt: str, *, progress: Progress | None = None) -> tuple[Float32, Float32]: ...
    def resolve(self, options: SampleOptions) -> dict[str, Any]: ...
    def sample(
        self,
        video_context: Float32,
        audio_context: Float32,
        options: SampleOptions,
        *,
        video_noise: Float32 | None = None,
        audio_noise: Float32 | None = None,
        progress: Progress | None = None,
    ) -> tuple[Float32, Float32, dict[str, Any]]: ...
    def decode(
        self,
        video: Float32,
        *,
        tiling: tuple[int, int, int, int] | None = None,  # fields of sdltx.Tiling
        on_frames: Callable[[NDArray[np.uint8]], object],  # gets (n, H, W, 3) arrays that it may keep
        progress: Progress | None = None,
    ) -> None: ...
    def decode_audio(
        self, audio: Float32, *, piece_seconds: float = 4.0, progress: Progress | None = None
    ) -> tuple[Float32, int]: ...
    def decode_memory(
        self, frames: int, height: int, width: int, *, tiling: tuple[int, int, int, int] | None = None
    ) -> int: ...  # bytes, of a latent of this shape
    def estimate(
        self, options: SampleOptions, *, tiling: tuple[int, int, int, int] | None = None
    ) -> dict[str, int]: ...  # encode, denoise, decode: bytes
    def memory(self) -> list[dict[str, Any]]: ...  # device, weights, mapped, inputs, working
    def close(self) -> None: ...
    def trace(self, patterns: Sequence[str]) -> None: ...  # forgets what was traced before; [] turns tracing off
    def traced(self) -> dict[str, Float32]: ...
