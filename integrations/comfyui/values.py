"""ComfyUI's values and ours: IMAGE is a tensor (n, H, W, 3) in [0, 1], AUDIO a waveform (1, channels, n) and a rate."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

import sdltx
from sdltx.options import ROWS

_EXPECTED = {
    "duration": "auto or a number of seconds",
    "whole": "a whole number",
    "real": "a number",
    "wholes": "whole numbers with commas between them",
    "reals": "numbers with commas between them",
}


def picture_of(image: Any, index: int) -> np.ndarray:
    """RGB bytes (H, W, 3) of one picture of an IMAGE; index: 0 for the first, -1 for the last."""
    _check_any(image)
    values = np.asarray(image[index].cpu(), np.float32)[..., :3]
    return np.clip(np.rint(values * 255), 0, 255).astype(np.uint8)


def _check_any(images: Any) -> None:
    if len(images) == 0:
        raise sdltx.InvalidRequestError("[image] there is no picture in this IMAGE")


def film_of(images: Any, frame_rate: float, audio: Any | None) -> sdltx.Video:
    """A film of all pictures of an IMAGE, with an AUDIO."""
    _check_any(images)
    frames = np.stack([picture_of(images, i) for i in range(len(images))])
    samples, rate = (None, None) if audio is None else sound_of(audio)
    return sdltx.Video(frames, samples, rate, frame_rate)


def sound_of(audio: Any) -> tuple[np.ndarray, int]:
    """Samples (channels, n) and their rate, of an AUDIO."""
    return np.asarray(audio["waveform"][0].cpu(), np.float32), int(audio["sample_rate"])


def images_of(frames: np.ndarray) -> Any:
    """An IMAGE of RGB bytes (F, H, W, 3)."""
    import torch  # which ComfyUI has

    return torch.from_numpy(frames.astype(np.float32) / 255)


def audio_of(samples: np.ndarray | None, rate: int | None) -> Any:
    """An AUDIO; of a clip without sound a short silence, as nodes after this one expect something."""
    import torch

    if samples is None or rate is None:
        samples, rate = np.zeros((2, 1), np.float32), 48_000
    return {"waveform": torch.from_numpy(np.array(samples, np.float32)[None]), "sample_rate": rate}


def option_of(name: str, text: str) -> Any:
    """The value of an option as its row tells. Raises InvalidRequestError for a text that is none."""
    kind, text = ROWS[name]["kind"], text.strip()
    if kind == "choice" and text not in ROWS[name]["choices"]:
        raise sdltx.InvalidRequestError(f"[{name}] {text!r} is none of {', '.join(ROWS[name]['choices'])}")
    if kind == "file" and not text:
        raise sdltx.InvalidRequestError(f"[{name}] no file is given")
    if kind in ("text", "choice", "file"):
        return text
    if kind == "flag":
        if text.lower() not in ("true", "false"):
            raise sdltx.InvalidRequestError(f"[{name}] {text!r} is neither true nor false")
        return text.lower() == "true"
    try:
        if kind == "duration":
            return text if text == "auto" else _finite(text.removesuffix("s"))
        if kind in ("whole", "real"):
            return (int if kind == "whole" else _finite)(text)
        if kind in ("wholes", "reals"):
            return [(int if kind == "wholes" else _finite)(part) for part in text.strip("[]").split(",")]
    except ValueError:
        raise sdltx.InvalidRequestError(f"[{name}] {text!r} is not {_EXPECTED[kind]}") from None
    # Files: one a line, a LoRA with its strength after a colon.
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise sdltx.InvalidRequestError(f"[{name}] no file is given")
    if kind == "files":
        return lines
    found = []
    for line in lines:
        path, _, strength = line.rpartition(":")
        try:
            found.append((path, float(strength)) if path else (line, 1.0))
        except ValueError:
            found.append((line, 1.0))
    return found


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError
    return value


def settings_of(latents: sdltx.Latents) -> str:
    """What a clip remembers, as text."""
    return json.dumps(dict(latents.settings), ensure_ascii=False, indent=1)
