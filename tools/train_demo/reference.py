"""The reference implementation's classes (ltx-core 1.0.0), which the networks are made of."""

from __future__ import annotations

import importlib.machinery
import math
import sys
import types
from typing import Any

import torch
from torch import nn


def slaney_filters(bins: int, rate: int, bands: int) -> torch.Tensor:
    """Triangular mel filters of Slaney's scale and area: (bins, bands), from 0 to half of the rate."""
    step, knee, log_step = 200.0 / 3, 1000.0, math.log(6.4) / 27.0
    top = knee / step + math.log(rate / 2 / knee) / log_step
    mels = torch.linspace(0, top, bands + 2, dtype=torch.float64)
    hz = torch.where(mels < knee / step, mels * step, knee * torch.exp(log_step * (mels - knee / step)))
    frequencies = torch.linspace(0, rate / 2, bins, dtype=torch.float64)
    slopes = hz[None] - frequencies[:, None]
    falling, rising = -slopes[:, :-2] / (hz[1:-1] - hz[:-2]), slopes[:, 2:] / (hz[2:] - hz[1:-1])
    return (torch.clamp(torch.minimum(falling, rising), min=0) * (2.0 / (hz[2:] - hz[:-2]))).float()


class _MelSpectrogram(nn.Module):
    """The one transform of torchaudio that ltx-core uses."""

    def __init__(
        self, sample_rate: int, n_fft: int, win_length: int, hop_length: int, n_mels: int, **other: Any
    ) -> None:
        super().__init__()
        self.n_fft, self.win, self.hop, self.power = n_fft, win_length, hop_length, other.get("power", 1.0)
        self.register_buffer("window", other.get("window_fn", torch.hann_window)(win_length))
        self.register_buffer("filters", slaney_filters(n_fft // 2 + 1, sample_rate, n_mels))

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        flat = wave.reshape(-1, wave.shape[-1])
        spectrum = torch.stft(
            flat, self.n_fft, self.hop, self.win, self.window, center=True, pad_mode="reflect", return_complex=True
        ).abs()
        mel = torch.matmul((spectrum**self.power).transpose(-1, -2), self.filters).transpose(-1, -2)
        return mel.reshape(*wave.shape[:-1], *mel.shape[-2:])


def _stand_in_for_torchaudio() -> None:
    try:
        import torchaudio  # noqa: F401

        return
    except ImportError:
        pass
    import transformers  # noqa: F401  (asks whether torchaudio is there, which must come before the stand-in)

    package, transforms = types.ModuleType("torchaudio"), types.ModuleType("torchaudio.transforms")
    package.__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
    transforms.MelSpectrogram = _MelSpectrogram  # type: ignore[attr-defined]
    package.transforms = package.functional = transforms  # type: ignore[attr-defined]
    sys.modules |= dict.fromkeys(("torchaudio.transforms", "torchaudio.functional"), transforms)
    sys.modules["torchaudio"] = package


_stand_in_for_torchaudio()

from ltx_core.components.diffusion_steps import EulerDiffusionStep  # noqa: E402
from ltx_core.components.patchifiers import AudioPatchifier, VideoLatentPatchifier  # noqa: E402
from ltx_core.components.schedulers import LTX2Scheduler  # noqa: E402
from ltx_core.guidance.perturbations import BatchedPerturbationConfig  # noqa: E402
from ltx_core.model.audio_vae.model_configurator import (  # noqa: E402
    AudioDecoderConfigurator,
    AudioEncoderConfigurator,
    VocoderConfigurator,
)
from ltx_core.model.audio_vae.ops import AudioProcessor  # noqa: E402
from ltx_core.model.transformer.modality import Modality  # noqa: E402
from ltx_core.model.transformer.model_configurator import LTXModelConfigurator  # noqa: E402
from ltx_core.model.transformer.rope import (  # noqa: E402
    LTXRopeType,
    generate_freq_grid_np,
    precompute_freqs_cis,
)
from ltx_core.model.video_vae.model_configurator import (  # noqa: E402
    VideoDecoderConfigurator,
    VideoEncoderConfigurator,
)
from ltx_core.text_encoders.gemma.embeddings_connector import (  # noqa: E402
    AudioEmbeddings1DConnectorConfigurator,
    Embeddings1DConnectorConfigurator,
)
from ltx_core.text_encoders.gemma.feature_extractor import FeatureExtractorV2  # noqa: E402
from ltx_core.tools import AudioLatentTools, VideoLatentTools  # noqa: E402
from ltx_core.types import Audio, AudioLatentShape, VideoLatentShape  # noqa: E402
from ltx_core.utils import rms_norm  # noqa: E402

__all__ = [
    "Audio",
    "AudioDecoderConfigurator",
    "AudioEmbeddings1DConnectorConfigurator",
    "AudioEncoderConfigurator",
    "AudioLatentShape",
    "AudioLatentTools",
    "AudioPatchifier",
    "AudioProcessor",
    "BatchedPerturbationConfig",
    "Embeddings1DConnectorConfigurator",
    "EulerDiffusionStep",
    "FeatureExtractorV2",
    "LTX2Scheduler",
    "LTXModelConfigurator",
    "LTXRopeType",
    "Modality",
    "VideoDecoderConfigurator",
    "VideoEncoderConfigurator",
    "VideoLatentPatchifier",
    "VideoLatentShape",
    "VideoLatentTools",
    "VocoderConfigurator",
    "generate_freq_grid_np",
    "precompute_freqs_cis",
    "rms_norm",
    "slaney_filters",
]
