"""What importing this adds to :mod:`sdltx._core`, for tests and benchmarks."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._core import ClipOptions, Float32, Progress, _Condition, _Latents

class Pipeline:  # further methods
    def set_patience(self, multiply_adds: int) -> None: ...  # of an operation, for tests; not after close()
    def pretend_memory(self, bytes: Sequence[int]) -> None: ...  # of the devices and the host, for tests
    def unused_tensors(self) -> list[str]: ...
    def hidden_states(self, prompt: str) -> Float32: ...
    def writing_prompt(self, prompt: str, system: str) -> list[int]: ...
    def next_scores(self, ids: Sequence[int], then: Sequence[int]) -> Float32: ...
    def sample(
        self,
        video_context: Float32,
        audio_context: Float32,
        options: ClipOptions,
        *,
        video_noise: Float32 | None = None,
        audio_noise: Float32 | None = None,
        negative: tuple[Float32, Float32] | None = None,
        conditions: Sequence[_Condition] = ...,
        initial: _Latents | None = None,  # what is refined
        second_noise: _Latents | None = None,  # of the second stage
        progress: Progress | None = None,
        on_step: Callable[[int, int, Float32, Float32 | None], object] | None = None,
    ) -> tuple[Float32, Float32 | None, dict[str, Any]]: ...
    def sampler(
        self,
        video_context: Float32,
        audio_context: Float32,
        options: ClipOptions,
        *,
        video_noise: Float32 | None = None,
        audio_noise: Float32 | None = None,
        negative: tuple[Float32, Float32] | None = None,
        conditions: Sequence[_Condition] = ...,
        initial: _Latents | None = None,
        step_noise: Callable[..., Any] | None = None,  # (video, step, kind, count); None: from the seed
        video: dict[str, Any] = ...,  # what is given of a stream, by the names of Spec, for tests
        audio: dict[str, Any] = ...,
        loras: Sequence[tuple[str, float]] = ...,
    ) -> Sampler: ...
    def velocity(  # of one call of the transformer, for tests
        self,
        video: dict[str, Any],  # tokens (T, C), timesteps (T), positions (axes, T, 2), context (rows, D)
        audio: dict[str, Any] | None,
        *,
        sigma: float,
        skip_video_self_attn: Sequence[int] = ...,
        skip_audio_self_attn: Sequence[int] = ...,
        skip_cross_modal: bool = False,
        loras: Sequence[tuple[str, float]] = ...,
    ) -> tuple[Float32, Float32 | None]: ...
    def traced_runs(self) -> dict[str, int]: ...

class Sampler:  # a denoising loop, step by step
    def step(self) -> None: ...
    @property
    def index(self) -> int: ...
    @property
    def num_steps(self) -> int: ...
    @property
    def state(self) -> tuple[dict[str, Any], dict[str, Any]]: ...  # clean, mask, positions, bias of both streams
    @property
    def video(self) -> Float32: ...  # tokens (T, C)
    @property
    def audio(self) -> Float32: ...
    @property
    def video_denoised(self) -> Float32: ...  # of the last step
    @property
    def audio_denoised(self) -> Float32: ...

class ModelFiles:
    def __init__(self, paths: Sequence[str | bytes]) -> None: ...
    def names(self) -> list[str]: ...
    def metadata(self, key: str, prefix: str = "") -> str | None: ...
    def config_from_shapes(self, section: str) -> str: ...  # JSON
    def dtype(self, name: str) -> str: ...
    def tensor(self, name: str) -> Float32: ...

class Tokenizer:
    def __init__(self, paths: Sequence[str | bytes]) -> None: ...
    def encode(self, text: str) -> NDArray[np.int32]: ...
    def decode(self, ids: Sequence[int]) -> str: ...
    @property
    def size(self) -> int: ...

def fit_image(image: NDArray[np.uint8], height: int, width: int) -> Float32: ...  # (height, width, 3) in [-1, 1]
def write_answer(
    paths: Sequence[str | bytes],
    system: str,
    user: str,
    *,
    most: int = 64,
    seed: int = 0,
    precision: str = "auto",
    device: str = "cpu",
) -> str: ...
def encode_tokens(
    paths: Sequence[str | bytes], ids: Sequence[int], *, precision: str = "f32", device: str = "cpu"
) -> Float32: ...
def frames_of_duration(seconds: float, frame_rate: float) -> int: ...

class Extension:  # the bookkeeping of a film that goes on, for tests
    def __init__(
        self,
        film: NDArray[np.uint8],
        sound: Float32 | None,
        rate: int,
        frame_rate: float,
        before: bool,
        context: int,
        wanted: int,
        window: int,
        audio_frames: int,
    ) -> None: ...
    @property
    def done(self) -> bool: ...
    @property
    def pictures(self) -> NDArray[np.uint8]: ...
    @property
    def sound(self) -> Float32 | None: ...
    def kept(self, latents: Float32) -> tuple[Float32, int]: ...
    def kept_sound(self, latents: Float32) -> tuple[Float32, int]: ...
    def add(self, window: NDArray[np.uint8], made: Float32, rate: int) -> None: ...
    @property
    def film(self) -> NDArray[np.uint8]: ...
    @property
    def whole_sound(self) -> Float32 | None: ...

def attention_of_mask(  # of the tokens of a reference, for tests
    mask: NDArray[np.uint8], attention: float, width: int, height: int, cells: tuple[int, int, int]
) -> list[float]: ...
def within(positions: Float32, start: float, end: float) -> list[float]: ...  # 1 for tokens in it, in part at least
def video_positions(frames: int, height: int, width: int, frame_rate: float) -> Float32: ...
def audio_positions(frames: int) -> Float32: ...
def rope_table(positions: Float32, dim: int, max_pos: Sequence[float], theta: float) -> tuple[Float32, Float32]: ...
def distilled_sigmas() -> list[float]: ...
def distilled_stage_2_sigmas() -> list[float]: ...
def ltx2_sigmas(steps: int, tokens: int = 4096, stretch: bool = True) -> list[float]: ...
def normal_noise(seed: int, stream: int, count: int, step: int = 0) -> Float32: ...

class ops:  # noqa: N801  a module: the op builders one at a time, for their tests
    @staticmethod
    def resample(wave: Float32, from_rate: int, to_rate: int) -> Float32: ...
    @staticmethod
    def log_mel(wave: Float32, bins: int = 64) -> Float32: ...
    @staticmethod
    def run_sampler(
        sampler: str,
        sigmas: Sequence[float],
        video: Sequence[Float32],  # latent (T, C), clean (T, C), mask (T)
        audio: Sequence[Float32],
        denoise: Callable[..., Any],  # (video, audio, sigma, step) -> both estimates
        noise: Callable[..., Any],  # (video, step, kind, count)
    ) -> list[Any]: ...
    @staticmethod
    def conv3d(
        path: str,
        name: str,
        x: Float32,
        out: int,
        kernel: Sequence[int],
        *,
        time: str = "replicate",
        piece_bytes: int = 0,
        exact: bool = False,
        bias: bool = True,
        lowering: str = "own",  # or "windows", "columns"
        reflect: bool = False,
        residual: Float32 | None = None,
        threads: int = 0,
    ) -> tuple[Float32, int]: ...
    @staticmethod
    def set_device(device: str) -> None: ...  # where what follows on this thread is computed
    @staticmethod
    def copy_seconds(device: str, bytes: int) -> list[float]: ...  # as weights go there, straight, back
    @staticmethod
    def drawn_token(scores: Sequence[float], uniform: float) -> int: ...
    @staticmethod
    def uniform_noise(seed: int, step: int) -> float: ...
    @staticmethod
    def tidied(text: str) -> str: ...
    @staticmethod
    def set_runs(runs: int) -> None: ...  # how often what follows is run
    @staticmethod
    def seconds_of_runs() -> list[float]: ...  # each of the last ones
    @staticmethod
    def quantise(rows: Float32, type: str) -> NDArray[np.uint8]: ...  # (n, K), a type of ggml
    @staticmethod
    def linear(
        type: str,
        w: NDArray[np.uint8],  # (outputs, K) by quantise(), or codes of "e4m3" or "e5m2"
        outputs: int,
        x: Float32,  # (T, K)
        bias: Float32 | None = None,
        scale: Float32 | None = None,  # (1) or (outputs)
        *,
        powers: NDArray[np.uint8] | None = None,  # of blocks of 32, in tiles
        activation: str = "none",  # or "gelu_tanh"
        exact: bool = False,
        patience: int = 0,
        threads: int = 0,
        own: bool = True,  # by our kernel, or the product by ggml's
    ) -> Float32: ...
    @staticmethod
    def attention(
        q: Float32,
        k: Float32,
        v: Float32,
        mask: Float32 | None = None,
        *,
        scale: float,
        exact: bool = False,
        kernel: str = "own",  # or "device", "plain"
        patience: int = 0,
        threads: int = 0,
    ) -> Float32: ...
    @staticmethod
    def biased_attention(  # where some tokens count less; see AttentionBias
        q: Float32,
        k: Float32,
        v: Float32,
        *,
        rows: Float32,
        which: Sequence[int],
        own: Float32,
        count: int,
        scale: float,
        exact: bool = False,
        patience: int = 0,
        threads: int = 0,
    ) -> Float32: ...
    @staticmethod
    def depth_to_space(x: Float32, stride: Sequence[int]) -> Float32: ...
    @staticmethod
    def pad_width(x: Float32, before: int, after: int) -> Float32: ...
    @staticmethod
    def modulate(
        x: Float32,  # (T, D)
        scale1: Float32,  # (K, D)
        shift: Float32,
        runs: Sequence[tuple[int, int, int]],  # first row, count, value
    ) -> Float32: ...
    @staticmethod
    def gated_sum(
        x: Float32,  # (T, D)
        y: Float32,
        gate: Float32,  # (K, D)
        runs: Sequence[tuple[int, int, int]],
        *,
        threads: int = 0,
    ) -> Float32: ...
    @staticmethod
    def rms_norm(x: Float32, w: Float32 | None = None, *, eps: float) -> Float32: ...
    @staticmethod
    def normed_heads(
        x: Float32,  # (T, rows, n head_dim)
        w: Float32,  # (n head_dim)
        head_dim: int,
        cos: Float32 | None = None,  # (T, heads or 1, head_dim / 2)
        sin: Float32 | None = None,
        *,
        eps: float,
        threads: int = 0,
    ) -> Float32: ...
    @staticmethod
    def modulated_norm(
        x: Float32,  # (T, D)
        scale1: Float32,  # (K, D)
        shift: Float32,
        runs: Sequence[tuple[int, int, int]],  # first row, count, value
        *,
        eps: float,
        threads: int = 0,
    ) -> Float32: ...
    @staticmethod
    def gelu_tanh(x: Float32, *, exact: bool = True) -> Float32: ...
    @staticmethod
    def rotate_half(x: Float32, cos: Float32, sin: Float32) -> Float32: ...
    @staticmethod
    def stop_ends_all_pieces(device: str) -> bool: ...
    @staticmethod
    def resident_after_advice(path: str, seconds: float = 5.0) -> float: ...
    @staticmethod
    def abort(message: str) -> None: ...  # ends the process
