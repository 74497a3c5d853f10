"""Gemma's tower, the feature extractor and the connectors against the reference."""

from __future__ import annotations

import json

import numpy as np
import pytest
from compare import assert_close

from sdltx import _core

pytestmark = pytest.mark.sanitize


@pytest.fixture(scope="module")
def prompts(golden):
    e2e = golden("e2e")
    return {"pos": str(e2e["prompt"]), "neg": str(e2e["negative_prompt"]), "empty": ""}


@pytest.mark.device
def test_hidden_states(tiny, golden, prompts):
    states = tiny._core.hidden_states(prompts["pos"])
    expected = golden("text")["pos.hidden_states"]
    for layer in range(len(expected)):
        # The CPU in default precision is 1.1e-2 off.
        assert_close(f"hidden state {layer}", states[layer], expected[layer], 2e-4, on_device=1.2e-2)


@pytest.mark.device
@pytest.mark.parametrize("tag", ["pos", "neg", "empty"])
def test_contexts(tiny, golden, prompts, tag):
    text = golden("text")
    with tiny.trace("*_features") as traced:
        context = tiny.encode(prompts[tag])
    assert context.video.shape[0] == context.audio.shape[0] == 1024
    rows = text[f"{tag}.context_rows"]
    for kind, values in (("video", context.video), ("audio", context.audio)):
        if tag != "empty":
            assert_close(f"{tag} {kind} features", traced[f"{kind}_features"], text[f"{tag}.{kind}_features"])
        assert_close(f"{tag} {kind} context", values[rows], text[f"{tag}.{kind}_context"])


@pytest.mark.device
@pytest.mark.parametrize("kind", ["video", "audio"])
def test_connector_stages(tiny, golden, prompts, kind):
    text = golden("text")
    rows = text["pos.connector_rows"]
    path = f"{kind}_embeddings_connector"
    with tiny.trace(f"{path}.*") as traced:
        tiny.encode(prompts["pos"])
    assert_close(f"{kind} input", traced[f"{path}.input"][rows], text[f"pos.connector.{kind}_input"])
    for i in range(2):
        got = traced[f"{path}.transformer_1d_blocks.{i}"][rows]
        assert_close(f"{kind} block {i}", got, text[f"pos.connector.{kind}_block{i}"])


def test_surrounding_space_is_stripped_and_only_space_is_the_empty_prompt(tiny):
    assert np.array_equal(tiny.tokenize(" \t\u3000 a \u00a0\n"), tiny.tokenize("a"))
    assert np.array_equal(tiny.tokenize(" \n\u2003 "), [2])


def test_long_prompts_are_cut_at_1024_tokens(tiny, caplog):
    with caplog.at_level("WARNING", logger="sdltx"):
        assert len(tiny.tokenize("snow " * 5000)) == 1024
    assert "only the first 1024" in caplog.text


GEMMA_270 = ["caption_short", "caption_700", "digits", "empty", "japanese", "special_text"]


def gemma_errors(states: np.ndarray, expected: dict) -> np.ndarray:
    """Relative error per (layer, recorded position): <bos> is 1e5 large, one number over all would see only it."""
    at = expected["positions"]
    difference = np.linalg.norm(states[:, at].astype(np.float64) - expected["states"], axis=-1)
    return difference / np.linalg.norm(expected["states"], axis=-1)


@pytest.mark.by_day(3)
@pytest.mark.parametrize("name", GEMMA_270)
def test_real_gemma_in_float32(gemma270, name, request):
    expected = np.load(request.path.parent / "data" / "gemma3-270m" / f"{name}.npz")
    states = _core.encode_tokens([str(gemma270)], expected["ids"].tolist(), precision="f32")
    errors = gemma_errors(states, expected)
    print(f"{name}: worst {errors.max():.2e}")
    assert errors.max() <= 1.5e-3
    # A checksum over all positions, the unrecorded ones too.
    projection = np.random.Generator(np.random.PCG64(20)).standard_normal((states.shape[-1], 2)).astype(np.float32)
    assert_close(f"{name} checksum", states.astype(np.float64) @ projection, expected["proj"], 1.5e-3)


@pytest.mark.by_day(2)
@pytest.mark.parametrize("name", GEMMA_270)
def test_real_gemma_with_its_quantised_weights(gemma270, name, request):
    expected = np.load(request.path.parent / "data" / "gemma3-270m" / f"{name}.npz")
    states = _core.encode_tokens([str(gemma270)], expected["ids"].tolist(), precision="auto")
    errors = gemma_errors(states, expected)
    print(f"{name}: median {np.median(errors):.3f}, worst {errors.max():.3f}")
    assert np.median(errors) <= 0.08


def test_config_json_is_needed_and_checked(tiny_dir, tmp_path):
    from shutil import copytree

    import sdltx

    folder = copytree(tiny_dir / "gemma", tmp_path / "gemma")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["num_attention_heads"] = 3
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(sdltx.ModelMismatchError, match="contradicts itself"):
        _core.encode_tokens([str(folder)], [2])
    (folder / "config.json").unlink()
    with pytest.raises(sdltx.ModelFileError, match=r"config\.json is missing"):
        _core.encode_tokens([str(folder)], [2])
