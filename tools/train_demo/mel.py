"""The mel front end of the audio VAE."""

from __future__ import annotations

import reference as ltx
import torch
from sounds import HOP, LOW_RATE

_PROCESSOR = ltx.AudioProcessor(LOW_RATE, 64, HOP, 1024)


def log_mel(wave: torch.Tensor) -> torch.Tensor:
    """(batch, samples) at 16 kHz -> (batch, 2, frames, 64)."""
    stereo = ltx.Audio(waveform=wave[:, None].expand(-1, 2, -1), sampling_rate=LOW_RATE)
    return _PROCESSOR.waveform_to_mel(stereo)
