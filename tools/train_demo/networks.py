"""The networks of config.json and gemma.json: an LTX-2.3 with 7 million weights."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import initial
import reference as ltx
import torch
from torch import nn

HERE = Path(__file__).parent
CONFIG: dict[str, Any] = json.loads((HERE / "config.json").read_text())
GEMMA: dict[str, Any] = json.loads((HERE / "gemma.json").read_text())
HEADS = CONFIG["transformer"]["num_attention_heads"]
VIDEO_WIDTH = HEADS * CONFIG["transformer"]["attention_head_dim"]
AUDIO_WIDTH = HEADS * CONFIG["transformer"]["audio_attention_head_dim"]
REGISTERS = CONFIG["transformer"]["connector_num_learnable_registers"]
CONTEXT_ROWS = 1024  # of a prompt, at inference


def _without_statistics(*modules: nn.Module) -> None:
    for module in modules:
        for m in module.modules():
            if type(m).__name__ == "PerChannelStatistics":
                m.get_buffer("std-of-means").fill_(1.0)
                m.get_buffer("mean-of-means").zero_()


def set_statistics(module: nn.Module, mean: torch.Tensor, std: torch.Tensor) -> None:
    """Of the latents, per channel."""
    module.per_channel_statistics.get_buffer("mean-of-means").copy_(mean)
    module.per_channel_statistics.get_buffer("std-of-means").copy_(std)


def video_vae() -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder; latents are neither shifted nor scaled."""
    pair = ltx.VideoEncoderConfigurator.from_config(CONFIG), ltx.VideoDecoderConfigurator.from_config(CONFIG)
    for module in pair:
        initial.video_vae(module)
    _without_statistics(*pair)
    return pair


def audio_vae() -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder; latents are neither shifted nor scaled."""
    pair = ltx.AudioEncoderConfigurator.from_config(CONFIG), ltx.AudioDecoderConfigurator.from_config(CONFIG)
    _without_statistics(*pair)
    with torch.no_grad():
        pair[1].conv_out.conv.bias.fill_(-9.0)  # the log-mel of near silence
    return pair


def vocoder() -> nn.Module:
    """With the Fourier basis and mel filters of its bandwidth extension."""
    voc = ltx.VocoderConfigurator.from_config(CONFIG)
    initial.vocoder(voc.vocoder, 0.25, 0.3)
    initial.vocoder(voc.bwe_generator, 0.25, 0.03)
    stft = voc.mel_stft.stft_fn
    n = stft.forward_basis.shape[-1]
    bins = n // 2 + 1
    angle = 2 * math.pi / n * torch.arange(bins, dtype=torch.float64)[:, None] * torch.arange(n, dtype=torch.float64)
    fourier = torch.cat([torch.cos(angle), -torch.sin(angle)])
    window = torch.hann_window(n, dtype=torch.float64)
    stft.forward_basis.copy_((fourier * window)[:, None].float())
    stft.inverse_basis.copy_((torch.linalg.pinv(fourier * n / voc.hop_length).T * window)[:, None].float())
    bands = voc.mel_stft.mel_basis.shape[0]
    voc.mel_stft.mel_basis.copy_(ltx.slaney_filters(bins, voc.input_sampling_rate, bands).T)
    return voc


def _plain_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """As scaled_dot_product_attention, but several times faster to train on a CPU at these sizes."""
    b, tokens, width = q.shape
    head = width // heads
    q, k, v = (x.view(b, -1, heads, head).transpose(1, 2).reshape(b * heads, -1, head) for x in (q * head**-0.5, k, v))
    scores = torch.bmm(q, k.mT)
    if mask is not None:
        scores = (scores.view(b, heads, tokens, -1) + mask).view(b * heads, tokens, -1)
    out = torch.bmm(scores.softmax(-1), v)
    return out.view(b, heads, tokens, head).transpose(1, 2).reshape(b, tokens, width)


def _use_plain_attention(module: nn.Module) -> None:
    for m in module.modules():
        if hasattr(m, "attention_function"):
            m.attention_function = _plain_attention


def transformer() -> nn.Module:
    """Both streams."""
    dit = ltx.LTXModelConfigurator.from_config(CONFIG)
    initial.transformer(dit)
    _use_plain_attention(dit)
    return dit


class TextEncoder(nn.Module):
    """Gemma, the feature extractor and both connectors, for batches.

    The reference replaces the padding to the left of one prompt by registers; this does the same for a batch whose rows
    differ in length, to the right of them, which is the same as rotations count differences of positions only.
    """

    def __init__(self) -> None:
        super().__init__()
        from transformers import Gemma3TextConfig, Gemma3TextModel

        self.gemma = Gemma3TextModel(Gemma3TextConfig(**GEMMA, attn_implementation="eager"))
        hidden, states = GEMMA["hidden_size"], GEMMA["num_hidden_layers"] + 1
        self.features = ltx.FeatureExtractorV2(
            video_aggregate_embed=nn.Linear(hidden * states, VIDEO_WIDTH),
            embedding_dim=hidden,
            audio_aggregate_embed=nn.Linear(hidden * states, AUDIO_WIDTH),
        )
        self.video_connector = ltx.Embeddings1DConnectorConfigurator.from_config(CONFIG)
        self.audio_connector = ltx.AudioEmbeddings1DConnectorConfigurator.from_config(CONFIG)
        _use_plain_attention(self)
        for connector in (self.video_connector, self.audio_connector):
            registers = torch.randn_like(connector.learnable_registers, dtype=torch.float32) * 0.5
            connector.learnable_registers = nn.Parameter(registers)

    @staticmethod
    def _connect(connector: nn.Module, features: torch.Tensor, lengths: torch.Tensor, rows: int) -> torch.Tensor:
        b, n, width = features.shape
        registers = connector.learnable_registers.to(features.dtype).repeat(rows // REGISTERS, 1)
        padded = nn.functional.pad(features, (0, 0, 0, rows - n))
        is_text = torch.arange(rows)[None] < lengths[:, None]
        x = torch.where(is_text[..., None], padded, registers[None].expand(b, -1, -1))
        rope = ltx.precompute_freqs_cis(
            indices_grid=torch.arange(rows, dtype=torch.float32)[None, None],
            dim=width,
            out_dtype=x.dtype,
            theta=connector.positional_embedding_theta,
            max_pos=connector.positional_embedding_max_pos,
            num_attention_heads=connector.num_attention_heads,
            rope_type=ltx.LTXRopeType.SPLIT,
            freq_grid_generator=ltx.generate_freq_grid_np,
        )
        rope = tuple(part.expand(b, -1, -1, -1) for part in rope)
        for block in connector.transformer_1d_blocks:
            x = block(x, attention_mask=None, pe=rope)
        return ltx.rms_norm(x)

    def contexts(self, ids: torch.Tensor, mask: torch.Tensor, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Of picture and sound, (batch, rows, width); ids and mask (batch, tokens), padded to the right."""
        states = self.gemma(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
        video, audio = self.features(torch.stack(states, -1), mask)
        lengths = mask.sum(1)
        return (
            self._connect(self.video_connector, video, lengths, rows),
            self._connect(self.audio_connector, audio, lengths, rows),
        )


def weights_of(module: nn.Module) -> int:
    """How many there are."""
    return sum(p.numel() for p in module.parameters())
