"""Every sampler against its equations, restated in NumPy in double precision, over given estimates and noise."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import sdltx
from sdltx import _core

SAMPLERS = ("euler", "gradient_estimation", "euler_ancestral", "res_2s")
SIGMAS = {
    "distilled": _core.distilled_sigmas(),
    "ltx2": _core.ltx2_sigmas(12),
    "short": [0.9, 0.85, 0.8, 0.0],
    "open": [1.0, 0.6, 0.2],
}


class Problem:
    """Two streams of tokens, some of them conditioned, an estimate that depends on everything, and noise."""

    def __init__(self) -> None:
        rng = np.random.default_rng(11)
        self.streams = {
            "video": (
                rng.standard_normal((20, 6)),
                rng.standard_normal((20, 6)),
                np.repeat([0.0, 0.3, 1.0], [4, 3, 13]),
            ),
            "audio": (rng.standard_normal((9, 4)), np.zeros((9, 4)), np.ones(9)),
        }
        self.targets = {kind: rng.standard_normal(x[0].shape) for kind, x in self.streams.items()}
        self.calls = []

    def hold(self, kind, x0):
        _, clean, mask = self.streams[kind]
        return x0 * mask[:, None] + clean * (1 - mask[:, None])

    def estimate(self, video, audio, sigma, step=0):
        """x0 of both: something smooth and not linear."""
        self.calls.append((float(sigma), int(step)))
        results = []
        for kind, x, other in (("video", video, audio), ("audio", audio, video)):
            x = np.asarray(x, np.float64)
            pull = 0.3 * np.tanh(x) * sigma + 0.05 * math.sin(float(np.mean(other)))
            results.append(self.hold(kind, self.targets[kind] + pull))
        return tuple(results)

    def noise(self, video, step, kind, count):
        stream = (2 if kind else 0) + (0 if video else 1)
        return _core.normal_noise(5, stream, count, step + 1)


def standardised(x):
    for _ in range(2):
        x = (x - x.mean()) / x.std(ddof=1)
    return x


def restated(p: Problem, sampler: str, sigmas: list[float]):
    """The equations of the specification, stream by stream."""
    x = {kind: p.hold(kind, start) for kind, (start, _, _) in p.streams.items()}
    sigmas = [float(np.float32(s)) for s in sigmas]
    if sampler == "res_2s" and sigmas[-1] == 0:
        sigmas = [*sigmas[:-1], float(np.float32(0.0011)), 0.0]
    before, results = {}, []

    def noise(kind, step, which):
        return p.noise(kind == "video", step, which, x[kind].size).astype(np.float64).reshape(x[kind].shape)

    def sde(start, y, sigma, to, n):
        up = min(0.5 * to, 0.9999 * to)
        residual = math.sqrt(to * to - up * up)
        ratio = 1 - to + residual
        e = (start - y) / (sigma - to)
        return ratio * ((start - sigma * e) + residual / ratio * e) + up * standardised(n)

    for i, (s, t) in enumerate(itertools.pairwise(sigmas)):
        x0 = dict(zip(("video", "audio"), p.estimate(x["video"], x["audio"], s), strict=True))
        if sampler == "euler":
            x = {k: x[k] + (x[k] - x0[k]) / s * (t - s) for k in x}
        elif sampler == "gradient_estimation":
            if t == 0:
                x = x0
            else:
                v = {k: (x[k] - x0[k]) / s for k in x}
                aim = {k: x[k] - s * (before[k] + 2.0 * (v[k] - before[k])) for k in x} if before else x0
                x = {k: x[k] + (x[k] - aim[k]) / s * (t - s) for k in x}
                before = v
        elif sampler == "euler_ancestral":
            if t == 0:
                x = x0
            else:
                down = t * (1 + (t / s - 1) * 1.0)
                alpha = (1 - t) / (1 - down)
                c = math.sqrt(max(0.0, t * t - down * down * alpha * alpha))
                x = {k: p.hold(k, alpha * (down / s * x[k] + (1 - down / s) * x0[k]) + c * noise(k, i, 0)) for k in x}
        elif t == 0:
            x = x0
        else:
            h, middle = math.log(s / t), math.sqrt(s * t)
            f1, f2 = (lambda z: (math.exp(z) - 1) / z), (lambda z: (math.exp(z) - 1 - z) / z**2)
            a21, b2 = 0.5 * f1(-h / 2), 2 * f2(-h)
            b1 = f1(-h) - b2
            anchor = {k: x[k].copy() for k in x}
            e1 = {k: x0[k] - anchor[k] for k in x}
            mid = {k: anchor[k] + h * a21 * e1[k] for k in x}
            mid = {k: p.hold(k, sde(anchor[k], mid[k], s, middle, noise(k, i, 1))) for k in x}
            if h < 0.5 and s > 0.03:
                for _ in range(100):
                    anchor = {k: mid[k] - h * a21 * e1[k] for k in x}
                    e1 = {k: x0[k] - anchor[k] for k in x}
            second = dict(zip(("video", "audio"), p.estimate(mid["video"], mid["audio"], middle), strict=True))
            y = {k: anchor[k] + h * (b1 * e1[k] + b2 * (second[k] - anchor[k])) for k in x}
            x = {k: p.hold(k, sde(anchor[k], y[k], s, t, noise(k, i, 0))) for k in x}
        results.append(x)
    return results


@pytest.mark.parametrize("sigmas", SIGMAS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_step(sampler, sigmas):
    p = Problem()
    streams = [
        [p.hold(kind, start).astype(np.float32), clean.astype(np.float32), mask.astype(np.float32)]
        for kind, (start, clean, mask) in p.streams.items()
    ]
    got = _core.ops.run_sampler(sampler, SIGMAS[sigmas], *streams, p.estimate, p.noise)
    steps = [step for _, step in p.calls]
    expected = restated(Problem(), sampler, SIGMAS[sigmas])
    assert len(got) == len(expected)
    for after, wanted in zip(got, expected, strict=True):
        for kind, array in zip(("video", "audio"), after, strict=True):
            error = np.linalg.norm(array - wanted[kind]) / np.linalg.norm(wanted[kind])
            print(f"{sampler} {kind}: {error:.1e}")
            assert error < 1e-6
    # What is conditioned for good does not move.
    assert np.allclose(got[-1][0][:4], p.streams["video"][1][:4], atol=1e-6)
    assert steps[0] == 0


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_with_a_model(tiny, sampler):
    """As many estimates as told, progress to the end, one seed one clip, and another clip than Euler's."""
    options = {"width": 64, "height": 64, "num_frames": 9, "num_inference_steps": 4, "seed": 3, "guidance_scale": 1}
    options |= {"audio_guidance_scale": 1, "stg_scale": 0, "audio_stg_scale": 0}
    options |= {"modality_scale": 1, "audio_modality_scale": 1}
    context = tiny.encode("a red ball")
    events = []
    with tiny.trace("transformer_blocks.0.ff"):
        one = tiny.sample(context, sampler=sampler, **options, progress=lambda *e: events.append(e))
        runs = tiny._core.traced_runs()["transformer_blocks.0.ff"]
    assert runs == (9 if sampler == "res_2s" else 4)
    denoising = [event for event in events if event[0] == "denoise"]
    assert denoising[-1] == ("denoise", runs * 3, runs * 3)
    assert [done for _, done, _ in denoising] == sorted(done for _, done, _ in denoising)
    assert one.settings["sampler"] == sampler
    again = tiny.sample(context, sampler=sampler, **options)
    assert np.array_equal(one.video, again.video)
    assert np.array_equal(one.audio, again.audio)
    euler = tiny.sample(context, sampler="euler", **options)
    assert np.array_equal(one.video, euler.video) == (sampler == "euler")
    assert np.isfinite(one.video).all()
    other_seed = tiny.sample(context, sampler=sampler, **{**options, "seed": 4})
    assert not np.array_equal(one.video, other_seed.video)


def test_a_step_that_fails_can_be_repeated(tiny):
    """What a sampler remembers is that of the steps that were done."""
    context = tiny.encode("a red ball")
    options = {"width": 64, "height": 64, "num_frames": 9, "num_inference_steps": 4, "seed": 3}

    def stop(phase, done, total):
        if phase == "denoise" and done > total // 2:
            raise sdltx.Cancelled("enough")

    expected = tiny.sample(context, negative=context, sampler="gradient_estimation", **options)
    with pytest.raises(sdltx.Cancelled):
        tiny.sample(context, negative=context, sampler="gradient_estimation", **options, progress=stop)
    again = tiny.sample(context, negative=context, sampler="gradient_estimation", **options)
    assert np.array_equal(expected.video, again.video)
