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
def inspect(paths: Sequence[str | bytes]) -> str: ...  # JSON, as csrc/model/inspect.h says

max_threads: int

def usable_processors() -> int: ...  # physical cores within affinity and quota
def end_on_second_signal() -> None: ...  # INT, TERM and HUP, as they are handled now
def guard_file(path: str) -> None: ...  # removed if the process ends by an assertion
def release_file(path: str) -> None: ...
def remove_guarded_files() -> None: ...  # now
def serve(
    host: str, port: int, *, device: str, threads: int, max_memory: float
) -> None: ...  # returns by an error only
def check(options: ClipOptions) -> None: ...
def check_tiling(tiling: tuple[int, int, int, int] | None) -> None: ...

presets: list[str]
recipes: list[str]
file_types: list[str]  # of Conversion
file_parts: list[str]
max_prompt_bytes: int

default_tiling: tuple[int, int, int, int]  # fields of sdltx.Tiling

def preset_table() -> list[dict[str, Any]]: ...
def recipe_table() -> list[dict[str, Any]]: ...
def task_table() -> list[dict[str, Any]]: ...
def told_names() -> list[str]: ...  # what clips remember besides options
def option_table() -> list[dict[str, Any]]: ...  # the rows of csrc/clip/options.def

samplers: list[str]
guidance_methods: list[str]
default_negative_prompt: str

class ClipOptions:
    def __init__(self, **kwargs: Any) -> None: ...  # of sdltx.options.Options, without None

class Job:
    def __init__(
        self,
        options: ClipOptions,  # prompts and tiles too
        *,
        conditions: Sequence[_Condition] = ...,
        noise: _Latents | None = None,
        initial: _Latents | None = None,
        context: tuple[Float32, Float32] | None = None,  # that need not be encoded
        negative: tuple[Float32, Float32] | None = None,
        latents: _Latents | None = None,  # that need not be denoised
        pictures: bool = True,
        sound: bool = True,
        sound_first: bool = False,
        given_sound: dict[str, Any] | None = None,  # see material.core_material()
        given_film: dict[str, Any] | None = None,
        references: Sequence[dict[str, Any]] = ...,
        second_noise: _Latents | None = None,  # of a second stage, for tests
    ) -> None: ...

class Conversion:
    def __init__(
        self,
        paths: Sequence[str | bytes],
        *,
        format: str,
        type: str,
        tensor_types: Sequence[tuple[str, str]],
        parts: Sequence[str],
        imatrix: str,
        threads: int,
    ) -> None: ...
    @property
    def parts(self) -> list[str]: ...
    @property
    def bytes(self) -> int: ...
    @property
    def files(self) -> list[str]: ...
    @property
    def types(self) -> list[tuple[str, str]]: ...
    def write(self, path: str, *, progress: Progress | None = None) -> None: ...

# Video and audio.
_Latents = tuple[Float32 | None, Float32 | None]
# Picture (H, W, 3) or latent (C, 1, H', W'), frame, strength.
_Condition = tuple[NDArray[np.uint8] | None, Float32 | None, int, float]

class Pipeline:
    def __init__(
        self,
        paths: Sequence[str | bytes],
        *,
        device: str,
        precision: str,
        threads: int,
        offload: str,
        max_memory: float,
        max_vram: float,
        progress: Progress | None = None,
    ) -> None: ...
    @property
    def info(self) -> dict[str, Any]: ...
    def doubts(self, job: Job) -> list[str]: ...
    @property
    def device(self) -> str: ...
    def decoder_fingerprint(self) -> str: ...
    def encoder_fingerprint(self) -> str: ...
    def encoder_bytes(self) -> int: ...
    def opened(self) -> list[str]: ...
    @property
    def latent_channels(self) -> int: ...
    def require(self, parts: Sequence[str]) -> None: ...
    def check_latents(self, video: Sequence[int], audio: Sequence[int] | None) -> None: ...  # their shapes
    def tokenize(self, text: str) -> NDArray[np.int32]: ...
    def encode(self, prompt: str, *, progress: Progress | None = None) -> tuple[Float32, Float32]: ...
    def enhance(self, prompt: str, *, system: str = "", seed: int = 0, progress: Progress | None = None) -> str: ...
    def resolve(self, job: Job) -> dict[str, Any]: ...
    def upscalers(self) -> list[tuple[str, str]]: ...
    def check(self, job: Job) -> None: ...
    # `on`: what is told of jobs by their numbers: encoded(i, context, negative), step(i, done, steps, latents),
    # denoised(i, latents, plan), sound(i, (samples, rate) or None), frames(i, pixels), decoded(i), and
    # finished(i, exception or None)
    def run(
        self, jobs: Sequence[Job], *, progress: Progress | None = None, on: dict[str, Callable[..., object]] = ...
    ) -> None: ...
    @property
    def whole_progress(self) -> tuple[float, float | None]: ...
    def duration(self, context: tuple[Float32, Float32]) -> float: ...  # seconds
    def decode(
        self,
        video: Float32,
        *,
        tiling: tuple[int, int, int, int] | None = None,  # fields of sdltx.Tiling
        on_frames: Callable[[NDArray[Any]], object],  # gets (n, H, W, 3) arrays that it may keep
        raw: bool = False,  # float32 in [-1, 1] in place of bytes
        progress: Progress | None = None,
    ) -> None: ...
    def decode_audio(
        self, audio: Float32, *, piece_seconds: float = 4.0, progress: Progress | None = None
    ) -> tuple[Float32, int]: ...
    def encode_video(
        self,
        frames: NDArray[np.uint8] | Float32,  # (F, H, W, 3), RGB; floats in [-1, 1]
        *,
        tiling: tuple[int, int, int, int] | None = None,
        progress: Progress | None = None,
    ) -> Float32: ...  # (C, F', H', W')
    def upsample(
        self, video: Float32, frame_rate: float, upscaler: str | bytes, *, progress: Progress | None = None
    ) -> tuple[Float32, float]: ...
    def estimate(self, job: Job) -> dict[str, Any]: ...  # steps, memory: see Pipeline.estimate
    def memory(self) -> list[dict[str, Any]]: ...  # device, weights, mapped, inputs, working
    def close(self) -> None: ...
    def encode_audio(self, samples: Float32, sample_rate: int) -> Float32: ...
    def trace(self, patterns: Sequence[str]) -> None: ...  # forgets what was traced before; [] turns tracing off
    def traced(self) -> dict[str, Float32]: ...

def cpu_kernels() -> str: ...  # the name of those that are used; InvalidRequestError for a bad SDLTX_CPU_KERNELS
def cpu_kernel_names() -> list[str]: ...  # that are built in and run here, the best first
def backends() -> dict[str, dict[str, str]]: ...  # that are built in: what their kernels use, such as "AVX2": "1"
def devices() -> list[dict[str, Any]]: ...  # name, description, kind, memory_free, memory_total
