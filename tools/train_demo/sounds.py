"""Sounds of the demo model's world.

All pitches are multiples of 100 Hz and all edges of notes lie on the 10 ms hop of the mel front end. A partial then has
the same phase at every hop, which makes the waveform a local function of the mel frames: a tiny vocoder learns it by
plain regression, without a discriminator.
"""

from __future__ import annotations

import numpy as np
from scenes import Scene

LOW_RATE, HIGH_RATE, HOP = 16000, 48000, 160  # what the mel spectrogram sees, what is heard, samples of the first
PITCH = {"low": 200, "mid": 600, "high": 1400}
PARTIALS = {
    "low": tuple(0.42 / k for k in range(1, 9)),
    "mid": (0.45, 0.12, 0.10, 0.04, 0.03),
    "high": (0.40, 0.06, 0.08, 0.03, 0.04, 0.02, 0.03),
}


def partials(pitch: float, amplitudes: tuple[float, ...], t: np.ndarray, limit: float) -> np.ndarray:
    """Sines at multiples of a pitch that lie below a limit; Hz and seconds."""
    wave = np.zeros_like(t)
    for k, amplitude in enumerate(amplitudes, 1):
        if pitch * k < limit:
            wave += amplitude * np.sin(2 * np.pi * pitch * k * t)
    return wave


def _clicks(hits: list[float], t: np.ndarray, limit: float) -> np.ndarray:
    wave = np.zeros_like(t)
    for hit in hits:
        since = np.maximum(t - hit, 0)
        pulse = np.sin(2 * np.pi * 1000 * since) + 0.6 * np.sin(2 * np.pi * 2500 * since)
        if limit > 8000:
            pulse = pulse + 0.3 * np.sin(2 * np.pi * 9000 * since)
        wave += (t >= hit) * 0.5 * pulse * np.exp(-since / 0.018)
    return wave


def _scale(kind: str, t: np.ndarray, limit: float) -> np.ndarray:
    """13 notes from 300 to 1500 Hz, or back."""
    step = np.minimum((t / 0.16).astype(int), 12)
    pitch = 300 + 100 * (step if kind == "rising" else 12 - step)
    wave = np.zeros_like(t)
    for value in np.unique(pitch):
        wave += np.where(pitch == value, partials(float(value), (0.42, 0.12, 0.06), t, limit), 0)
    return wave


def _beeps(t: np.ndarray) -> np.ndarray:
    """Loudness of pulses of 0.25 s every 0.4 s with edges of 10 ms."""
    u = (t + 1e-9) % 0.4
    gate = np.clip(u / 0.01, 0, 1) * np.clip((0.25 - u) / 0.01, 0, 1)
    return gate * gate * (3 - 2 * gate)


def render_sound(scene: Scene, seconds: float, rate: int = LOW_RATE, limit: float | None = None) -> np.ndarray:
    """float32 waveform; `limit` is the highest partial kept in Hz (None: just below half of the rate)."""
    limit = 0.96 * rate / 2 if limit is None else limit
    t = np.arange(round(seconds * rate), dtype=np.float64) / rate
    kind = scene.sound
    if kind == "silence":
        wave = np.zeros_like(t)
    elif kind == "click":
        wave = _clicks(scene.hits, t, limit)
    elif kind in ("rising", "falling"):
        wave = _scale(kind, t, limit)
    else:
        name, style = kind.split("_")
        wave = partials(PITCH[name], PARTIALS[name], t, limit)
        if style == "beep":
            wave = wave * _beeps(t)
    return wave.astype(np.float32)
