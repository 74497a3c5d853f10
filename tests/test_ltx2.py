"""LTX-2.0: every stage that differs from 2.3, against the reference, with the tests that 2.3 has."""

from __future__ import annotations

import json

import numpy as np
import pytest
from commands import generate, read_safetensors
from compare import assert_close
from conftest import DATA

# The fixtures below stand for those of the same names, so these tests run on LTX-2.0.
from test_audio import decoded, test_audio_vae_stages, test_prompt_to_sound  # noqa: F401
from test_guidance import test_guided_trajectory  # noqa: F401
from test_sampler import (  # noqa: F401
    test_auto_precision_stays_near_float32,
    test_distilled_trajectory,
    test_prompt_to_frames,
)
from test_text import prompts, test_connector_stages, test_hidden_states  # noqa: F401
from test_transformer import (  # noqa: F401
    PARTS,
    STAGES,
    block_outputs,
    run,
    test_case,
    test_per_token_modulation,
    test_video_only,
)
from test_video_vae import channels_first, decode, test_decode_one_latent_frame, test_tiled_decode  # noqa: F401

import sdltx
from sdltx import _core, media

FOLDER = DATA / "tiny-ltx2"
DIT = "model.diffusion_model."


@pytest.fixture(scope="module")
def tiny_paths():
    return [str(FOLDER / "tiny-ltx-2.safetensors"), str(FOLDER / "gemma")]


@pytest.fixture(scope="module")
def tiny(tiny_paths):
    with sdltx.load(*tiny_paths, precision="f32") as pipe:
        yield pipe


@pytest.fixture(scope="module")
def stored():
    """The goldens as the reference wrote them: its contexts are what the connectors give."""
    return {path.stem: dict(np.load(path)) for path in (FOLDER / "goldens").glob("*.npz")}


def projected(weights, kind, context):
    """The caption projection, which the reference computes inside the transformer."""
    name = f"{DIT}{'audio_' if kind == 'audio' else ''}caption_projection.linear_"
    x = context.astype(np.float64) @ weights.tensor(f"{name}1.weight").T + weights.tensor(f"{name}1.bias")
    x = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return (x @ weights.tensor(f"{name}2.weight").T + weights.tensor(f"{name}2.bias")).astype(np.float32)


@pytest.fixture(scope="module")
def golden(stored, tiny_paths):
    weights = _core.ModelFiles(tiny_paths[:1])
    text = dict(stored["text"])
    for name, value in text.items():
        if name.endswith("_context"):
            text[name] = projected(weights, name.split(".")[1].removesuffix("_context"), value)
    return {**stored, "text": text}.__getitem__


def test_what_it_is(tiny, tiny_paths):
    assert tiny.info["model"] == "LTX-2.0"
    assert tiny.info["preset"] == "dev-2.0"
    report = sdltx.inspect(*tiny_paths)
    assert (report.model, report.problems, report.unexpected, report.missing) == ("LTX-2.0", (), (), ())


@pytest.mark.device
@pytest.mark.parametrize("tag", ["pos", "neg", "empty"])
def test_contexts(tiny, golden, stored, prompts, tag):  # noqa: F811
    rows = stored["text"][f"{tag}.context_rows"]
    with tiny.trace("*_features", "*.output") as traced:
        context = tiny.encode(prompts[tag])
    for kind in ("video", "audio"):
        if tag != "empty":
            features = stored["text"][f"{tag}.{kind}_features"]
            assert_close(f"{tag} {kind} features", traced[f"{kind}_features"], features)
        connected = traced[f"{kind}_embeddings_connector.output"][rows]
        assert_close(f"{tag} {kind} connector", connected, stored["text"][f"{tag}.{kind}_context"])
        got = getattr(context, kind)[rows]
        assert_close(f"{tag} {kind} context", got, golden("text")[f"{tag}.{kind}_context"])


@pytest.mark.device
def test_text_to_video_stage_by_stage(tiny, golden):
    g = golden("transformer")
    with tiny.trace("*") as traced:
        velocity = dict(zip(("video", "audio"), run(tiny, golden, "t2v"), strict=True))
    assert not [name for name in traced if "prompt" in name]
    for kind, prefix, way in (("video", "", "a2v"), ("audio", "audio_", "v2a")):
        for theirs, ours in STAGES.items():
            name = "t2v." + theirs.format(kind=kind)
            if "prompt" not in name:
                got = traced[ours.format(kind=kind, prefix=prefix, way=way)]
                assert_close(name, got.reshape(g[name].shape), g[name])
        assert_close(f"{kind} blocks", block_outputs(traced, kind), g[f"t2v.{kind}_block_outputs"])
        assert_close(f"{kind} velocity", velocity[kind], g[f"t2v.{kind}_velocity"])
    for part, module in PARTS.items():
        for suffix, ours in (("_in", ".in"), ("_out", "")):
            name = f"t2v.block0.{part}{suffix}"
            assert_close(name, traced[f"transformer_blocks.0.{module}{ours}"], g[name])


def test_decode_stage_by_stage(tiny, golden):
    g = golden("video_vae")
    with tiny.trace("vae.decoder.*") as traced:
        video, _ = decode(tiny, g["decode.latent"])
    names = {"conv_in": "conv_in"} | {f"up{i}": f"up_blocks.{i}" for i in range(7)}
    for theirs, ours in names.items():
        got = channels_first(traced[f"vae.decoder.{ours}"])
        whole = f"decode.{theirs}" in g
        name = f"decode.{theirs}" if whole else f"decode.{theirs}_sub3"
        assert_close(name, got if whole else got[..., ::3, ::3], g[name])
    assert_close("video", video[..., ::3, ::3], g["decode.video_sub3"])


def test_vocoder_stages(golden, decoded):  # noqa: F811
    g, (traced, wave, rate) = golden("audio"), decoded
    assert rate == int(g["sampling_rate"]) == 24000
    for ours in ["conv_pre", *(f"ups.{i}" for i in range(5)), "resblocks.0", "resblocks.2"]:
        name = "vocoder." + ours.replace("ups.", "up").replace("resblocks.", "resblock")
        got = traced[f"vocoder.{ours}"].T
        full = name in g
        assert_close(name, got if full else got[..., ::5], g[name if full else f"{name}_sub5"])
    assert_close("wave", wave, g["wave"], 1e-3)


def test_pieces_of_sound_meet_without_a_seam(tiny):
    latents = np.random.default_rng(5).standard_normal((2, 60, 16)).astype(np.float32)
    whole, _ = tiny._core.decode_audio(latents, piece_seconds=0)
    pieces, _ = tiny._core.decode_audio(latents, piece_seconds=0.7)
    assert whole.shape == pieces.shape == (2, 240 * (4 * 59 + 1))
    assert np.abs(whole - pieces).max() <= 1e-5


def test_a_clip(tiny_paths, tmp_path):
    done = generate("-m", tiny_paths[0], "-m", tiny_paths[1], "-o", tmp_path / "clip.mp4")
    assert done.returncode == 0, done.stderr
    assert "LTX-2.0" in str(media.read_settings(tmp_path / "clip.mp4"))


def test_weights_a_block_at_a_time_and_on_devices(tiny, tiny_paths, workers):
    options = {"width": 64, "height": 64, "num_frames": 9, "num_inference_steps": 2, "seed": 3}
    expected = tiny.generate("a red ball", **options)
    for more in ({"offload": "blocks"}, {"device": ",".join(workers)}):
        with sdltx.load(*tiny_paths, precision="f32" if "offload" in more else "auto", **more) as pipe:
            got = pipe.generate("a red ball", **options)
        if "offload" in more:
            assert np.array_equal(got.frames, expected.frames)
        else:
            assert np.abs(got.frames.astype(int) - expected.frames).mean() < 2


def test_shapes_tell_the_configuration(tiny_paths):
    """All that a file of 2.0 without metadata leaves open is how many heads there are, which are the release's."""
    config = json.loads(read_safetensors(tiny_paths[0])[0]["__metadata__"]["config"])
    files = _core.ModelFiles(tiny_paths)
    vae = json.loads(files.config_from_shapes("vae"))
    assert vae["decoder_blocks"] == config["vae"]["decoder_blocks"]
    assert vae["spatial_padding_mode"] == "reflect"
    vocoder = json.loads(files.config_from_shapes("vocoder"))
    for key in ("upsample_rates", "upsample_kernel_sizes", "resblock_kernel_sizes", "upsample_initial_channel"):
        assert vocoder[key] == config["vocoder"][key]
    transformer = json.loads(files.config_from_shapes("transformer"))
    assert not transformer["apply_gated_attention"]
    assert "caption_proj_before_connector" not in transformer
    assert transformer["caption_channels"] == 64
