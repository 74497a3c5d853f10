"""Every case of the joint transformer against the reference, stage by stage."""

from __future__ import annotations

import json

import numpy as np
import pytest
import reference_runs
from compare import assert_close

from sdltx import _core

pytestmark = pytest.mark.sanitize


def contexts(golden, tag="pos"):
    return reference_runs.contexts(golden("text"), tag)


def inputs(golden, case, tag="pos", positions=None):
    """Arguments of velocity() for the golden's case."""
    g = golden("transformer")
    frames, height, width = (int(n) for n in g["pixel_shape"])
    sigma = np.float32(g["sigma"])
    context = contexts(golden, tag)
    streams = {}
    for kind in ("video", "audio"):
        tokens = g[f"{case}.{kind}_latent"]
        if kind == "audio":
            where = _core.audio_positions(len(tokens))
        elif positions is not None:
            where = positions
        else:
            where = _core.video_positions((frames - 1) // 8 + 1, height // 32, width // 32, float(g["fps"]))
        mask = g.get(f"{case}.denoise_mask") if kind == "video" else None
        timesteps = np.full(len(tokens), sigma) if mask is None else mask.reshape(-1) * sigma
        streams[kind] = {"tokens": tokens, "timesteps": timesteps, "positions": where, "context": context[kind]}
    return streams["video"], streams["audio"], float(sigma)


def run(pipe, golden, case, tag="pos", audio=True, positions=None, **perturbation):
    video, sound, sigma = inputs(golden, case, tag, positions)
    return pipe._core.velocity(video, sound if audio else None, sigma=sigma, **perturbation)


def block_outputs(traced, kind):
    count = sum(name.endswith(f".{kind}") for name in traced)
    return np.stack([traced[f"transformer_blocks.{i}.{kind}"] for i in range(count)])


STAGES = {
    "{kind}_patchify": "{prefix}patchify_proj",
    "{kind}_adaln": "{prefix}adaln_single",
    "{kind}_embedded_timestep": "{prefix}adaln_single.emb",
    "{kind}_prompt_adaln": "{prefix}prompt_adaln_single",
    "{kind}_av_scale_shift": "av_ca_{kind}_scale_shift_adaln_single",
    "{kind}_av_gate": "av_ca_{way}_gate_adaln_single",
}
PARTS = {
    "self_attn": "attn1",
    "text_attn": "attn2",
    "ff": "ff",
    "audio_self_attn": "audio_attn1",
    "audio_text_attn": "audio_attn2",
    "audio_ff": "audio_ff",
    "a2v_attn": "audio_to_video_attn",
    "v2a_attn": "video_to_audio_attn",
}


def check_stages(g, traced):
    """What comes before the blocks, and what goes into each step of block 0 and comes out."""
    for kind, prefix, way in (("video", "", "a2v"), ("audio", "audio_", "v2a")):
        for ours_to, ours in STAGES.items():
            name = "t2v." + ours_to.format(kind=kind)
            got = traced[ours.format(kind=kind, prefix=prefix, way=way)]
            assert_close(name, got.reshape(g[name].shape), g[name])
    for part, module in PARTS.items():
        for suffix, ours in (("_in", ".in"), ("_out", "")):
            name = f"t2v.block0.{part}{suffix}"
            assert_close(name, traced[f"transformer_blocks.0.{module}{ours}"], g[name])


@pytest.mark.device
def test_text_to_video_stage_by_stage(tiny, golden):
    g = golden("transformer")
    with tiny.trace("*") as traced:
        video, audio = run(tiny, golden, "t2v")
    check_stages(g, traced)
    for part in ("self_attn", "a2v_attn"):
        for label, ours in (("q", "q"), ("k", "k"), ("v", "v"), ("out", "attention")):
            name = f"t2v.block0.{part}.{label}"
            got = traced[f"transformer_blocks.0.{PARTS[part]}.{ours}"]
            assert_close(name, got.reshape(g[name].shape), g[name])
    for kind, got in (("video", video), ("audio", audio)):
        assert_close(f"{kind} blocks", block_outputs(traced, kind), g[f"t2v.{kind}_block_outputs"])
        assert_close(f"{kind} velocity", got, g[f"t2v.{kind}_velocity"])


@pytest.mark.device
@pytest.mark.parametrize("case", ["neg", "stg", "isolated", "i2v_own_av", "keyframe_own_av"])
def test_case(tiny, golden, case):
    g = golden("transformer")
    options = {}
    if case == "stg":
        blocks = g["stg.blocks"].tolist()
        options = {"skip_video_self_attn": blocks, "skip_audio_self_attn": blocks}
    elif case == "isolated":
        options = {"skip_cross_modal": True}
    source = case.removesuffix("_own_av")
    source = source if f"{source}.video_latent" in g else "t2v"
    with tiny.trace("transformer_blocks.?.video", "transformer_blocks.?.audio") as traced:
        video, audio = run(
            tiny, golden, source, "neg" if case == "neg" else "pos", positions=g.get(f"{source}.positions"), **options
        )
    for kind, got in (("video", video), ("audio", audio)):
        if f"{case}.{kind}_block_outputs" in g:
            assert_close(f"{kind} blocks", block_outputs(traced, kind), g[f"{case}.{kind}_block_outputs"])
        assert_close(f"{case} {kind} velocity", got, g[f"{case}.{kind}_velocity"])


@pytest.mark.device
def test_video_only(tiny, golden):
    video, audio = run(tiny, golden, "t2v", audio=False)
    assert audio is None
    assert_close("video_only", video, golden("transformer")["video_only.video_velocity"])


@pytest.mark.device
def test_per_token_modulation(tiny, golden):
    g = golden("transformer")
    with tiny.trace("adaln_single") as traced:
        run(tiny, golden, "i2v", positions=g["i2v.positions"])
    # One column per distinct timestep: the conditioned first frame, then the rest.
    assert_close("adaln", traced["adaln_single"], g["i2v.video_adaln_first_last"])


def test_rope_tables(tiny_dir, golden):
    g = golden("rope")
    config = json.loads((tiny_dir / "variant.json").read_text())["transformer_config"]
    video_width = config["num_attention_heads"] * config["attention_head_dim"]
    audio_width = config["audio_num_attention_heads"] * config["audio_attention_head_dim"]
    max_pos = config["positional_embedding_max_pos"]
    theta = config["positional_embedding_theta"]
    rows = np.repeat(np.arange(1024, dtype=np.float32)[None, :, None], 2, axis=2)
    tables = {
        "video_self": (g["video_positions"], video_width, max_pos, None),
        "video_cross": (g["video_positions"], audio_width, max_pos[:1], None),
        "audio_self": (g["audio_positions"], audio_width, max_pos[:1], None),
        "audio_cross": (g["audio_positions"], audio_width, max_pos[:1], None),
        "video_connector": (rows, video_width, config["connector_positional_embedding_max_pos"], g["connector_rows"]),
        "audio_connector": (rows, audio_width, config["connector_positional_embedding_max_pos"], g["connector_rows"]),
    }
    for name, (positions, width, scales, pick) in tables.items():
        for part, table in zip(("cos", "sin"), _core.rope_table(positions, width, scales, theta), strict=True):
            expected = g[f"{name}_{part}"]  # (heads, tokens, head_dim / 2)
            got = table.reshape(len(table), expected.shape[0], -1).transpose(1, 0, 2)
            assert_close(f"{name} {part}", got if pick is None else got[:, pick], expected)


def test_positions(golden):
    g, t = golden("rope"), golden("transformer")
    frames, height, width = (int(n) for n in t["pixel_shape"])
    small = _core.video_positions((frames - 1) // 8 + 1, height // 32, width // 32, float(t["fps"]))
    assert np.array_equal(small, g["video_positions"])
    assert np.array_equal(_core.audio_positions(g["audio_positions"].shape[1]), g["audio_positions"])
    big = _core.video_positions(16, 16, 24, 24.0)[:, [0, 1, 23, 24, 383, 384, 767, 768, -385, -1]]
    assert np.array_equal(big, g["big_video_positions_ends"])
    assert np.array_equal(_core.audio_positions(126)[:, [0, 1, 2, 3, 4, -2, -1]], g["big_audio_positions_ends"])
