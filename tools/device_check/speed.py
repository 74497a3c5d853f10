"""What a device takes at the release's widths: time, memory, and how fast it is copied to."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import weights
from checks import Row, Run

import sdltx
import sdltx._core_tests  # single operations
from sdltx import _core

ops = _core.ops
_LAYERS = 48  # of the release
_MIB, _GB = 2**20, 1e9


def copies(run: Run) -> Iterator[Row]:
    """From memory of this process to the device's, and back."""
    size = (8 if run.quick else 512) * _MIB
    names = ("weights to the device, one thread", "values to the device", "values from the device")
    for name, seconds in zip(names, ops.copy_seconds(run.device, size), strict=True):
        yield {"name": name, "MiB": size // _MIB, "GB/s": round(size / seconds / _GB, 2)}


def operations(run: Run) -> Iterator[Row]:
    """One at a time, as a block of the transformer and the VAE have them, and how far off their results are."""
    width, tokens = (256, 256) if run.quick else (4096, _tokens(run.size))
    heads, context, rng = width // 128, tokens if run.quick else 1024, np.random.default_rng(0)

    def values(*shape: int) -> np.ndarray[Any, Any]:
        return rng.standard_normal(shape, np.float32)

    def measured(name: str, work: float, unit: str, compute: Callable[[slice, bool], Any]) -> Row:
        ops.set_device("cpu")
        wanted = compute(slice(0, 64), True)  # some rows in float32
        ops.set_device(run.device)
        ops.set_runs(2 if run.quick else 6)
        try:
            found = compute(slice(None), False)
            seconds = min(ops.seconds_of_runs()[1:])  # the first one also prepares
        finally:
            ops.set_runs(1)
            ops.set_device("cpu")
        error = run.relative(
            found.reshape(-1, found.shape[-1])[: wanted.size // wanted.shape[-1]], wanted.reshape(-1, wanted.shape[-1])
        )
        return {"name": name, "ms": round(seconds * 1e3, 3), unit: round(work / seconds, 2), **error}

    x = values(tokens, 4 * width)
    for kind in ("bf16", "q8_0", "q4_K"):
        for out, columns in ((width, width), (4 * width, width), (width, 4 * width)):
            w = np.tile(ops.quantise(values(64, columns) / np.float32(columns**0.5), kind), out // 64)
            given = np.ascontiguousarray(x[:, :columns])
            work = 2e-12 * tokens * out * columns
            yield measured(
                f"{kind} {out}x{columns}, {tokens} rows",
                work,
                "TFLOP/s",
                lambda rows, exact, kind=kind, w=w, out=out, given=given: ops.linear(
                    kind, w, out, given[rows], exact=exact
                ),
            )
    q = values(tokens, heads, 128)
    for name, keys in (("self", tokens), ("text", context)):
        k, v = values(keys, heads, 128), values(keys, heads, 128)
        work = 4e-12 * tokens * keys * width
        yield measured(
            f"attention, {name}: {tokens} over {keys}, {heads} heads",
            work,
            "TFLOP/s",
            lambda rows, exact, k=k, v=v: ops.attention(q[rows], k, v, scale=128**-0.5, exact=exact),
        )
    h = np.ascontiguousarray(x[:, :width])
    size = 2e-9 * h.nbytes
    scale, shift, cos, sin = values(1, width), values(1, width), values(tokens, heads, 64), values(tokens, heads, 64)

    def norm(rows: slice, _exact: bool) -> Any:
        return ops.modulated_norm(h[rows], scale, shift, [(0, len(h[rows]), 0)], eps=1e-6)

    yield measured(f"norm and modulation of {tokens} rows", size, "GB/s", norm)
    yield measured("rotation of heads", size, "GB/s", lambda rows, _: ops.rotate_half(q[rows], cos[rows], sin[rows]))
    yield measured("GELU", 4 * size, "GB/s", lambda rows, exact: ops.gelu_tanh(x[rows], exact=exact))


def steps(run: Run) -> Iterator[Row]:
    """Of two blocks of the transformer, each by itself, and what 48 come to; memory beside what was said before."""
    path = run.data / "tiny-w" / "tiny-ltx-2.3-dit.safetensors" if run.quick else weights.blocks(_models(run), 2)
    for kind in ("bf16", "q8_0", "q4_k_m"):
        file = path
        if kind != "bf16":
            file = run.models / f"{path.stem}-{kind}.gguf"
            if not file.exists():
                sdltx.convert(path, output=file, type=kind)
        yield _denoised(run, kind, file)


def _denoised(run: Run, kind: str, file: Path) -> Row:
    rng, count = np.random.default_rng(0), 3
    rows, video, audio = (96, 128, 64) if run.quick else (1024, 4096, 2048)
    context = sdltx.Context(
        rng.standard_normal((rows, video), np.float32), rng.standard_normal((rows, audio), np.float32)
    )
    width, height, frames = run.size
    given: dict[str, Any] = {"width": width, "height": height, "num_frames": frames, "frame_rate": 24.0}
    given |= {"sigmas": [1 - i / count for i in range(count)] + [0], "preset": "distilled"}
    with sdltx.load(file, device=run.device) as pipe:
        told = next(step for step in pipe.estimate(**given)["steps"] if step["step"] == "denoise")["devices"][0]
        before, free, at = _free(run.device), [], dict[int, float]()
        # Once to prepare, and to see what is taken; once for the time.
        pipe.sample(context, seed=1, progress=lambda *_: free.append(_free(run.device)), **given)
        held = pipe.memory()[0]
        pipe.sample(
            context, seed=1, progress=lambda _phase, done, _total: at.setdefault(done, time.monotonic()), **given
        )
    blocks = max(at) // count  # that the model has
    step = statistics.median(at[(i + 1) * blocks] - at[i * blocks] for i in range(1, count))
    block = statistics.median(at[i + 1] - at[i] for i in range(blocks, max(at)) if i % blocks)
    if run.device.startswith("rpc:"):  # which says when it is ready at the end of a step only
        block = step / blocks
    row = {
        "name": f"{kind}, {width}x{height}x{frames}",
        "ms of a block": round(block * 1e3, 2),
        f"ms of a step of {_LAYERS}": round((step + (_LAYERS - blocks) * block) * 1e3, 1),
        "MiB said before": (told["weights"] + told["inputs"] + told["working"]) // _MIB,
        "MiB of weights": held["weights"] // _MIB,
    }
    return {**row, "MiB taken": (before - min(free)) // _MIB} if before else row


def coding(run: Run) -> Iterator[Row]:
    """Latents to pictures and sound, and pictures to latents."""
    width, height, frames = run.size
    folder = run.data / "tiny-a"
    path = folder / "tiny-ltx-2.3.safetensors" if run.quick else weights.decoders(_models(run))
    rng = np.random.default_rng(0)
    with sdltx.load(path, device=run.device) as pipe:
        channels, audio = pipe.latent_channels, 2 if run.quick else 8
        video = rng.standard_normal((channels, (frames - 1) // 8 + 1, height // 32, width // 32), np.float32)
        sound = rng.standard_normal((audio, round(25 * frames / 24), 16), np.float32)
        shown = rng.integers(0, 255, (25, height, width, 3), np.uint8)
        jobs: dict[str, Callable[[], Any]] = {
            f"decode {width}x{height}x{frames}": lambda: pipe.decode(sdltx.Latents(video, None, 24)),
            f"decode sound of {frames / 24:.1f} s": lambda: pipe._core.decode_audio(sound),
            f"encode {width}x{height}x25": lambda: pipe.encode_video(shown),
        }
        for name, job in jobs.items():
            took = []
            for _ in range(2):
                start = time.monotonic()
                job()
                took.append(time.monotonic() - start)
            yield {"name": name, "first s": round(took[0], 3), "s": round(took[1], 3)}


def _models(run: Run) -> Path:
    """Where models are made; they have the shapes of the release, which are among the data."""
    weights.real_layout.REAL = run.data / "real"
    return run.models


def _tokens(size: tuple[int, int, int]) -> int:
    width, height, frames = size
    return ((frames - 1) // 8 + 1) * (height // 32) * (width // 32)


def _free(device: str) -> int:
    """Bytes that its driver says are free; 0 of a worker's, who does not tell us."""
    return next((found.memory_free for found in sdltx.devices() if found.name == device.lower()), 0)
