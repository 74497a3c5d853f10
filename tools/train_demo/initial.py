"""How weights begin: what makes networks this small train in minutes."""

from __future__ import annotations

import math

import torch
from torch import nn


def _normal(weight: torch.Tensor, gain: float) -> None:
    nn.init.normal_(weight, std=gain / math.sqrt(weight[0].numel()))


def video_vae(module: nn.Module) -> None:
    """Unit gain, quiet residual branches, upsamplers that begin as (noisy) nearest neighbours.

    PyTorch's default shrinks the signal at every layer of the decoder's linear trunk, adds biases of the same size and
    gives each sub-pixel a filter of its own, so that training stalls at the mean picture. Biases of the first
    convolutions matter: PixelNorm keeps only the direction of a vector, and without an offset dark and bright grey have
    the same one.
    """

    def shared(weight: torch.Tensor, phases: int, gain: float) -> None:
        common = torch.randn_like(weight[::phases]).repeat_interleave(phases, 0)
        weight.copy_((0.95 * common + 0.3 * torch.randn_like(weight)) * gain / math.sqrt(weight[0].numel()))

    with torch.no_grad():
        for name, m in module.named_modules():
            if isinstance(m, (nn.Conv3d, nn.Conv2d)):
                after_silu = any(part in name for part in ("conv1", "conv2", "conv_out"))
                _normal(m.weight, (1.7 if after_silu else 1.0) * (0.3 if "conv2" in name else 1.0))
                nn.init.zeros_(m.bias)
                if name.startswith("conv_in"):
                    nn.init.normal_(m.bias, std=0.7)
            if type(m).__name__ == "DepthToSpaceUpsample":
                shared(m.conv.conv.weight, math.prod(m.stride), 1.0)
        if type(module).__name__ == "VideoDecoder":
            shared(module.conv_out.conv.weight, module.patch_size**2, 0.6)
        elif type(module).__name__ == "VideoEncoder":
            module.conv_out.conv.bias[-1] = -4.6  # a quiet posterior: its deviation is 0.1


def vocoder(module: nn.Module, gain_in: float, gain_out: float) -> None:
    """Unit gain, quiet residual branches, the input centred on a usual log-mel value."""
    for name, m in module.named_modules():
        if isinstance(m, nn.ConvTranspose1d):
            nn.init.normal_(m.weight, std=1 / math.sqrt(m.in_channels * m.kernel_size[0] / m.stride[0]))
        elif isinstance(m, nn.Conv1d):
            ends = {"conv_pre": gain_in, "conv_post": gain_out}
            _normal(m.weight, ends.get(name, 0.3 if "convs2" in name else 1.0))
        else:
            continue
        if m.bias is not None:
            nn.init.zeros_(m.bias)
    with torch.no_grad():
        module.conv_pre.bias.copy_(7.0 * module.conv_pre.weight.sum((1, 2)))


def transformer(module: nn.Module) -> None:
    """Residual branches begin small, modulation neutral with gates at 1."""
    depth = math.sqrt(2 * len(module.transformer_blocks))
    for name, p in module.named_parameters():
        if name.endswith("scale_shift_table") or "scale_shift_table_a2v" in name:
            nn.init.normal_(p, std=0.02)
            with torch.no_grad():
                if "a2v_ca" in name:
                    p[4].fill_(0.5)  # the fifth row is the gate
                elif p.shape[0] == 9:
                    for gate in (2, 5, 8):
                        p[gate].fill_(1.0)
        elif name.endswith("adaln_single.linear.weight") or name in ("proj_out.weight", "audio_proj_out.weight"):
            nn.init.normal_(p, std=0.01)
        elif name.endswith(".bias"):
            nn.init.zeros_(p)
        elif name.endswith(("to_out.0.weight", "ff.net.2.weight")):
            _normal(p, 1 / depth)
        elif "to_gate_logits" in name:
            nn.init.zeros_(p)
        elif p.ndim == 2 and "timestep_embedder" not in name:
            _normal(p, 1)
