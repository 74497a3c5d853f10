"""LTX-2.5 against the reference: text encoder, transformer, sampling, whole clips (the parity kit's tiny-ltx25)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import read_safetensors, run, write_safetensors
from compare import assert_close
from conftest import DATA
from test_transformer import PARTS, STAGES, block_outputs, contexts, inputs

import sdltx
from sdltx import _core

pytestmark = pytest.mark.sanitize

FOLDER = Path(os.environ.get("SDLTX_TINY25_DIR", DATA / "tiny-ltx25"))
VARIANT = json.loads((FOLDER / "variant.json").read_text())


def file(kind: str) -> Path:
    return FOLDER / VARIANT["files"][kind]


def rewritten(source: Path, to: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy with another header: what ``change`` makes of it."""
    header, values = read_safetensors(source)
    change(header)
    write_safetensors(to, header, values)
    return to


PARTS_OF_A_CLIP = [file(kind) for kind in ("transformer", "text_encoder", "video_vae_conv", "audio_vae")]


@pytest.fixture(scope="module")
def golden() -> Callable[[str], dict[str, np.ndarray]]:
    """Reads a golden file by its stem."""
    return lambda name: dict(np.load(FOLDER / "goldens" / f"{name}.npz"))


@pytest.fixture(scope="module")
def pipe() -> sdltx.Pipeline:
    """The tiny model in exact float32."""
    return sdltx.load(*PARTS_OF_A_CLIP, precision="f32")


@pytest.fixture(scope="module")
def prompts(golden):
    e2e = golden("e2e")
    return {"pos": str(golden("tokens")["prompts"][0]), "empty": "", "e2e": str(e2e["prompt"])}


def test_tokens(golden):
    tokens = golden("tokens")
    tokenizer = _core.Tokenizer([str(file("text_encoder"))])
    for i, prompt in enumerate(tokens["prompts"]):
        got = tokenizer.encode(str(prompt).strip())[:1024]
        assert np.array_equal(got, tokens[f"ids_{i}"]), str(prompt)[:80]


def test_hidden_states(pipe, golden, prompts):
    text = golden("text")
    states = pipe._core.hidden_states(prompts["pos"])
    for layer, expected in enumerate(text["pos.hidden_states"]):
        assert_close(f"hidden state {layer}", states[layer], expected, 2e-4)
    assert_close("empty", pipe._core.hidden_states("")[-1], text["empty.last_hidden_state"], 2e-4)
    short = _core.encode_tokens([str(file("text_encoder"))], text["short.ids"])
    for layer in {int(name.split(".")[1].removeprefix("layer")) for name in text if name.startswith("short.layer")}:
        if layer + 1 < len(short) - 1:
            assert_close(f"short, layer {layer}", short[layer + 1], text[f"short.layer{layer}.output"], 2e-4)
    assert_close("pictures", pipe._core.hidden_states("a <|image|> b"), text["placeholder.hidden_states"], 2e-4)


@pytest.mark.parametrize("tag", ["pos", "empty"])
def test_contexts(pipe, golden, prompts, tag):
    text = golden("text")
    with pipe.trace("*_features") as traced:
        context = pipe.encode(prompts[tag])
    rows = text[f"{tag}.context_rows"]
    for kind, values in (("video", context.video), ("audio", context.audio)):
        if f"{tag}.{kind}_features" in text:
            assert_close(f"{tag} {kind} features", traced[f"{kind}_features"], text[f"{tag}.{kind}_features"], 2e-4)
        assert_close(f"{tag} {kind} context", values[rows], text[f"{tag}.{kind}_context"], 2e-4)


def velocity(pipe, golden, case, audio=True, marks=None, **more):
    """Of the golden's case, with the marks that it tells unless others are given."""
    g = golden("transformer")
    video, sound, sigma = inputs(golden, case, "pos", g.get(f"{case}.positions"))
    told = g.get(f"{case}.keyframes_mask", g["t2v.keyframes_mask"]).reshape(-1)
    video["marked"] = [bool(m) for m in (told if marks is None else marks)]
    return pipe._core.velocity(video, sound if audio else None, sigma=sigma, **more)


def test_transformer_stage_by_stage(pipe, golden):
    g = golden("transformer")
    with pipe.trace("*") as traced:
        video, audio = velocity(pipe, golden, "t2v")
    for kind, prefix, way in (("video", "", "a2v"), ("audio", "audio_", "v2a")):
        for theirs, ours in STAGES.items():
            name = "t2v." + theirs.format(kind=kind)
            got = traced[ours.format(kind=kind, prefix=prefix, way=way)]
            assert_close(name, got.reshape(g[name].shape), g[name])
    for part, module in PARTS.items():
        for suffix, ours in (("_in", ".in"), ("_out", "")):
            name = f"t2v.block0.{part}{suffix}"
            assert_close(name, traced[f"transformer_blocks.0.{module}{ours}"], g[name])
    for kind, got in (("video", video), ("audio", audio)):
        assert_close(f"{kind} blocks", block_outputs(traced, kind), g[f"t2v.{kind}_block_outputs"])
        assert_close(f"{kind} velocity", got, g[f"t2v.{kind}_velocity"])


@pytest.mark.parametrize("case", ["stg", "isolated", "video_only", "lora", "no_marker", "i2v", "keyframe"])
def test_case(pipe, golden, case):
    g = golden("transformer")
    more = {
        "stg": {name: g["stg.blocks"].tolist() for name in ("skip_video_self_attn", "skip_audio_self_attn")},
        "isolated": {"skip_cross_modal": True},
        "video_only": {"audio": False},
        "lora": {"loras": [(str(file("lora")), float(g["lora.strength"]))]},
        "no_marker": {"marks": []},
    }.get(case, {})
    source = case if f"{case}.video_latent" in g else "t2v"
    for kind, got in zip(("video", "audio"), velocity(pipe, golden, source, **more), strict=True):
        if f"{case}.{kind}_velocity" in g:
            assert_close(f"{case} {kind}", got, g[f"{case}.{kind}_velocity"])


@pytest.mark.parametrize("case", ["slots", "slots_initial"])
def test_pictures_that_are_made_beside_the_clip(pipe, golden, case):
    g = golden("transformer")
    for kind, got in zip(("video", "audio"), velocity(pipe, golden, case), strict=True):
        assert_close(f"{case} {kind}", got, g[f"{case}.{kind}_velocity"])


def test_modulation_of_the_prompt_by_a_table_alone(golden, tmp_path):
    def change(header):
        config = json.loads(header["__metadata__"]["config"])
        config["transformer"]["use_prompt_adaln_single"] = False
        header["__metadata__"]["config"] = json.dumps(config)

    changed = rewritten(file("transformer"), tmp_path / "static.safetensors", change)
    g = golden("transformer")
    with sdltx.load(changed, precision="f32") as static:
        for kind, got in zip(("video", "audio"), velocity(static, golden, "t2v"), strict=True):
            assert_close(f"static {kind}", got, g[f"static_prompt.{kind}_velocity"])


def noise_of_steps(g, run):
    """For the sampler: what the reference drew at the start (-1), for all tokens, and in each step."""

    def noise(video, step, kind, count):
        stream = "video" if video else "audio"
        return g[f"{run}.{stream}_noise"] if step < 0 else g[f"{run}.{stream}_step_noise"][step]

    return noise


def grid(tokens, shape):
    """Video tokens (T, C) of the clip alone as (C, F, H, W)."""
    frames, height, width = shape
    return tokens[: frames * height * width].T.reshape(-1, frames, height, width)


def sound(tokens):
    return tokens.reshape(len(tokens), -1, 16).transpose(1, 0, 2)


def begin(pipe, golden, run, negative=None, conditions=(), **options):
    """The loop of a trajectory, with the noise of its own."""
    g, t = golden("trajectory"), golden("transformer")
    frames, height, width = (int(n) for n in t["pixel_shape"])
    context = contexts(golden)
    return pipe._core.sampler(
        context["video"],
        context["audio"],
        _core.ClipOptions(width=width, height=height, num_frames=frames, frame_rate=float(t["fps"]), **options),
        negative=negative,
        conditions=conditions,
        step_noise=noise_of_steps(g, run),
    )


def walk(loop, g, run):
    """All steps, compared one by one."""
    for kind in ("video", "audio"):
        assert_close(f"{kind} start", getattr(loop, kind), g[f"{run}.{kind}_latents"][0], 1e-6)
    for i in range(loop.num_steps):
        loop.step()
        for kind in ("video", "audio"):
            assert_close(f"{kind} x{i + 1}", getattr(loop, kind), g[f"{run}.{kind}_latents"][i + 1])


def test_distilled_trajectory(pipe, golden):
    """With the schedule and the sampler of the preset, which nobody asks for."""
    loop = begin(pipe, golden, "distilled")
    assert loop.num_steps == 8
    walk(loop, golden("trajectory"), "distilled")


def test_trajectory_with_pictures(pipe, golden):
    """One at the start and one appended: what is held stays held through the noise of each step."""
    g = golden("trajectory")
    conditions = [
        (None, g["i2v.image_latent"], 0, 1.0),
        (None, g["i2v.keyframe_latent"], int(g["i2v.keyframe_frame_idx"]), float(g["i2v.keyframe_strength"])),
    ]
    walk(begin(pipe, golden, "i2v", conditions=conditions), g, "i2v")


def test_trajectory_with_generated_keyframes(pipe, golden):
    g = golden("trajectory")
    loop = begin(pipe, golden, "slots", num_generated_keyframes=3, sampler="euler")
    walk(loop, g, "slots")
    cells = g["slots.keyframes"][0, 0].size
    made = loop.video[-3 * cells :].T.reshape(g["slots.keyframes"].shape)
    assert_close("keyframes", made, g["slots.keyframes"])


def test_generated_keyframes_in_two_stages():
    asked = {"width": 128, "height": 128, "num_frames": 33, "frame_rate": 24, "seed": 3}
    with sdltx.load(*PARTS_OF_A_CLIP, precision="f32") as pipe:
        context = pipe.encode("a fox")
        both = pipe.sample(context, **asked, upscaler=file("upsampler"), num_generated_keyframes=2)
        assert both.settings["num_generated_keyframes"] == 2
        assert both.video.shape == (4, 5, 4, 4)
        without = pipe.sample(context, **asked, upscaler=file("upsampler"))
        assert not np.allclose(both.video, without.video)
        # The clip remembers it, and is made again.
        told = {name: both.settings[name] for name in ("num_generated_keyframes", "seed")}
        again = pipe.sample(context, **{**asked, **told}, upscaler=file("upsampler"))
        assert np.array_equal(again.video, both.video)
        more, less = (pipe.estimate(**asked, num_generated_keyframes=count)["steps"][1]["memory"] for count in (4, 0))
        assert more > less


def test_keyframes_for_which_there_is_no_room(pipe, tiny):
    with pytest.raises(sdltx.InvalidRequestError, match="has no room for 12 generated keyframes"):
        pipe.resolve(num_frames=9, num_generated_keyframes=12)
    with pytest.raises(sdltx.ModelMismatchError, match=r"keyframes are generated by LTX-2\.5"):
        tiny.check(width=64, height=64, num_frames=9, num_generated_keyframes=1)


def test_guided_trajectory(pipe, golden):
    g = golden("trajectory")
    scales = {}
    for ours, theirs in (
        ("guidance_scale", "cfg_scale"),
        ("stg_scale", "stg_scale"),
        ("guidance_rescale", "rescale_scale"),
        ("modality_scale", "modality_scale"),
    ):
        for prefix, kind in (("", "video"), ("audio_", "audio")):
            scales[prefix + ours] = float(g[f"guided.{kind}_{theirs}"])
    negative = contexts(golden, "neg")
    loop = begin(
        pipe,
        golden,
        "guided",
        negative=(negative["video"], negative["audio"]),
        preset="dev",
        sigmas=g["guided.sigmas"].tolist(),
        stg_blocks=g["guided.stg_blocks"].tolist(),
        **scales,
    )
    walk(loop, g, "guided")


def test_prompt_to_a_clip_in_two_stages(pipe, golden):
    """The first is ancestral, the second is not."""
    g = golden("e2e")
    frames, height, width = (int(n) for n in g["second.pixel_shape"])
    size = {"num_frames": frames, "frame_rate": float(g["fps"])}
    cells = (frames - 1) // 8 + 1
    context = pipe.encode(str(g["prompt"]))
    first = pipe._core.sampler(
        context.video,
        context.audio,
        _core.ClipOptions(width=width // 2, height=height // 2, **size),
        step_noise=noise_of_steps(g, "first"),
    )
    for _ in range(first.num_steps):
        first.step()
    small = sdltx.Latents(
        grid(first.video, (cells, height // 64, width // 64)).copy(), sound(first.audio).copy(), size["frame_rate"]
    )
    assert_close("first video", small.video, g["first.video_latent"])
    assert_close("first audio", small.audio, g["first.audio_latent"])
    large = pipe.upsample(small, file("upsampler"))
    assert_close("upscaled", large.video, g["upscaled_latent"])
    second = sdltx.Latents(
        grid(g["second.video_noise"], (cells, height // 32, width // 32)),
        sound(g["second.audio_noise"]),
        size["frame_rate"],
    )
    sigmas = _core.distilled_stage_2_sigmas()
    latents = pipe.sample(
        context, width=width, height=height, **size, sigmas=sigmas, sampler="euler", initial=large, noise=second
    )
    assert_close("video", latents.video, g["second.video_latent"])
    assert_close("audio", latents.audio, g["second.audio_latent"])
    clip = pipe.decode(latents)
    off = np.abs(clip.frames.astype(int) - g["conv.frames_u8"])
    print(f"frames: {(off == 0).mean():.4%} of bytes equal, at most {off.max()} off")
    assert (off <= 1).mean() >= 0.999
    assert_close("wave", clip.audio, g["wave"], 1e-3)


def test_stages_of_a_recipe_have_their_own_samplers(pipe):
    with sdltx.load(*PARTS_OF_A_CLIP, file("upsampler").parent) as whole:
        told = whole.resolve(width=128, height=128, num_frames=9, recipe="distilled-two-stage")
    assert told["recipe"] == "distilled-two-stage"
    assert [stage["sampler"] for stage in told["stages"]] == ["euler_ancestral", "euler"]
    assert pipe.resolve(width=64, height=64, num_frames=9)["sampler"] == "euler_ancestral"
    assert pipe.resolve(width=64, height=64, num_frames=9, preset="dev")["sampler"] == "euler"
    assert pipe.resolve(width=64, height=64, num_frames=9, preset="distilled")["preset"] == "distilled-2.5"


def test_conv_vae(pipe, golden):
    g = golden("conv_vae")
    assert_close("encode", pipe.encode_video(g["encode.video_u8"]), g["encode.latent"])
    assert_close("encode a picture", pipe.encode_video(g["encode.video_u8"][:1]), g["encode.image_latent"])
    frames = []
    pipe._core.decode(g["decode.latent"], tiling=(0, 0, 0, 0), on_frames=frames.append, raw=True)
    assert_close("decode", np.concatenate(frames).transpose(3, 0, 1, 2)[:, :, ::3, ::3], g["decode.video_sub3"])
    up = pipe.upsample(sdltx.Latents(g["upsample.latent"], None, 24), file("upsampler"))
    assert_close("upsample", up.video, g["upsample.output"])


# --- files ---


def renamed(header: dict[str, Any], to: Callable[[str], str]) -> None:
    for name in list(header):
        if name != "__metadata__":
            header[to(name)] = header.pop(name)


def changed_encoder(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    return rewritten(file("text_encoder"), tmp_path / "encoder.safetensors", change)


def test_the_other_spelling_and_a_tokenizer_of_signed_bytes(pipe, tmp_path, prompts):
    """As transformers names the tower, and as ComfyUI stores the tokenizer."""

    def change(header):
        renamed(header, lambda name: name.replace("model.", "model.language_model.", 1))
        header["tokenizer_json"]["dtype"] = "I8"

    with sdltx.load(file("transformer"), changed_encoder(tmp_path, change), precision="f32") as other:
        assert np.array_equal(other.encode(prompts["pos"]).video, pipe.encode(prompts["pos"]).video)
        assert not other._core.unused_tensors() or all(
            name.startswith(("vision_model.", "multi_modal_projector.", "audio_projector.", "hf_asset__"))
            for name in other._core.unused_tensors()
        )


def test_sound_without_biases_of_its_feed_forward_layers(pipe, golden, tmp_path):
    """They are found where they are: none gives what zeros give."""
    block = "model.diffusion_model.transformer_blocks"
    names = [f"{block}.{i}.audio_ff.net.{n}.bias" for i in range(VARIANT["layers"]) for n in ("0.proj", "2")]
    header, values = read_safetensors(file("transformer"))
    zeros = bytearray(values)
    for name in names:
        begin, end = header[name]["data_offsets"]
        zeros[begin:end] = bytes(end - begin)
    with_zeros = write_safetensors(tmp_path / "zeros.safetensors", header, bytes(zeros))
    without = rewritten(file("transformer"), tmp_path / "none.safetensors", lambda h: [h.pop(name) for name in names])
    with sdltx.load(with_zeros, precision="f32") as one, sdltx.load(without, precision="f32") as other:
        for a, b in zip(velocity(one, golden, "t2v"), velocity(other, golden, "t2v"), strict=True):
            assert np.array_equal(a, b)
        assert not np.allclose(a, velocity(pipe, golden, "t2v")[1])


def config_of_gemma(header: dict[str, Any], change: Callable[[dict[str, Any]], object]) -> None:
    config = json.loads(header["__metadata__"]["gemma_config"])
    change(config)
    header["__metadata__"]["gemma_config"] = json.dumps(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.pop("model.layers.1.layer_scalar"), "1 of 6 layers of Gemma 4 lack 'layer_scalar'"),
        (
            lambda h: config_of_gemma(h, lambda c: c.update(gemma_version="gemma4-12b-ltx-v2")),
            "the text encoder is gemma4-12b-ltx-v2, and .* was trained with gemma4-tiny-ltx-v1",
        ),
        (
            lambda h: config_of_gemma(h, lambda c: c["text_config"].update(hidden_size_per_layer_input=256)),
            "the text encoder is Gemma 4 E2B or E4B",
        ),
        (
            lambda h: config_of_gemma(h, lambda c: c["text_config"].update(enable_moe_block=True)),
            "the text encoder is Gemma 4 26B-A4B",
        ),
        (lambda h: config_of_gemma(h, lambda c: c.update(model_type="gemma4")), "a Gemma 4 of another kind"),
        (lambda h: h.pop("tokenizer_json"), "came without its tokenizer"),
        (
            lambda h: config_of_gemma(h, lambda c: c["text_config"]["layer_types"].pop()),
            "contradicts itself",
        ),
        (lambda h: h["__metadata__"].pop("gemma_config"), "a Gemma 4 of another size, without a configuration"),
    ],
)
def test_encoders_that_are_refused(tmp_path, change, message):
    broken = changed_encoder(tmp_path, change)
    with pytest.raises((sdltx.ModelMismatchError, sdltx.ModelFileError), match=message):
        sdltx.load(file("transformer"), broken)


def test_an_encoder_that_does_not_tell_its_training(tmp_path, caplog):
    silent = changed_encoder(tmp_path, lambda h: config_of_gemma(h, lambda c: c.pop("gemma_version")))
    sdltx.load(file("transformer"), silent).close()
    assert "does not say which training of Gemma 4 it is" in caplog.text


def test_a_transformer_without_its_marker(golden, tmp_path, caplog):
    """Early copies lack it: as with one of zeros, and it is told."""
    name = "model.diffusion_model.keyframes_abs_pos_embedding"
    path = rewritten(file("transformer"), tmp_path / "t.safetensors", lambda h: h.pop(name))
    g = golden("transformer")
    with sdltx.load(path, precision="f32") as early:
        assert "lacks keyframes_abs_pos_embedding" in caplog.text
        for kind, got in zip(("video", "audio"), velocity(early, golden, "t2v"), strict=True):
            assert_close(kind, got, g[f"no_marker.{kind}_velocity"])


def test_a_marker_without_its_axis_of_one(pipe, golden, tmp_path):
    def change(header):
        header["model.diffusion_model.keyframes_abs_pos_embedding"]["shape"].pop(0)

    path = rewritten(file("transformer"), tmp_path / "t.safetensors", change)
    with sdltx.load(path, precision="f32") as other:
        for a, b in zip(velocity(other, golden, "t2v"), velocity(pipe, golden, "t2v"), strict=True):
            assert np.array_equal(a, b)


# --- how long ---


def test_duration_head(golden, prompts):
    g = golden("duration")
    with sdltx.load(*PARTS_OF_A_CLIP, file("duration_head"), precision="f32") as pipe:
        with pipe.trace("duration_head.*") as traced:
            got = pipe._core.duration((g["video_tokens"], g["audio_tokens"]))
        assert_close("pooled", traced["duration_head.attention_pooler"].reshape(g["pooled"].shape), g["pooled"])
        assert_close("hidden", traced["duration_head.mlp_hidden"].reshape(-1), g["hidden"])
        assert_close("seconds", np.array([got]), g["seconds"])
        nothing = np.zeros((0, 0), np.float32)
        assert_close(
            "video only", np.array([pipe._core.duration((g["video_tokens"], nothing))]), g["seconds_video_only"]
        )
        assert_close(
            "audio only", np.array([pipe._core.duration((nothing, g["audio_tokens"]))]), g["seconds_audio_only"]
        )
        for tag in ("pos", "empty"):
            assert_close(tag, np.array([pipe.duration(pipe.encode(prompts[tag]))]), g[f"{tag}.seconds"])


def test_frames_of_a_duration(golden):
    for seconds, rate, frames in golden("duration")["frames.table"]:
        assert _core.frames_of_duration(float(f"{seconds:.7g}"), float(f"{rate:.6g}")) == frames, (seconds, rate)


SMALL = {"width": 64, "height": 64, "frame_rate": 8.0, "num_inference_steps": 1}


def test_clips_as_long_as_their_prompts_ask_for(prompts):
    with sdltx.load(*PARTS_OF_A_CLIP, file("duration_head"), precision="f32") as pipe:
        context = pipe.encode(prompts["pos"])
        frames = _core.frames_of_duration(pipe.duration(context), 8.0)
        latents = pipe.sample(context, **SMALL, duration="auto", seed=3)
        assert latents.settings["num_frames"] == frames == 25
        assert "duration" not in latents.settings
        same = pipe.sample(context, **SMALL, num_frames=frames, seed=3)
        assert np.array_equal(latents.video, same.video)
        one = pipe.sample(context, **SMALL, duration="auto")
        assert np.array_equal(one.video, pipe.sample(context, **SMALL, num_frames=frames, seed=one.seed).video)
        clip = pipe.generate(prompts["pos"], **SMALL, duration="auto", seed=3)
        assert len(clip.frames) == frames
        with pytest.raises(sdltx.InvalidRequestError, match="frame 100"):
            pipe.sample(
                context, **SMALL, duration="auto", conditions=[sdltx.Condition(np.zeros((64, 64, 3), np.uint8), 100)]
            )
        assert pipe.resolve(**SMALL, duration="auto")["duration"] == "auto"


@pytest.mark.parametrize(
    ("duration", "frames"), [("5s", 41), (5, 41), (5.0, 41), ("2.5", 17), ("0.01s", 1), ("1e0s", 9)]
)
def test_durations_in_seconds(pipe, duration, frames):
    assert pipe.resolve(**SMALL, duration=duration)["num_frames"] == frames


def test_durations_that_are_none(pipe):
    for wrong in ("", "s", "five", "-1s", 0, float("nan"), "1e9s", "5m", "null", "[5]"):
        with pytest.raises(sdltx.InvalidRequestError, match=r"the duration .* is none"):
            pipe.resolve(**SMALL, duration=wrong)
    with pytest.raises(sdltx.InvalidRequestError, match="give one of them"):
        pipe.resolve(**SMALL, duration="5s", num_frames=9)
    with pytest.raises(sdltx.ModelMismatchError, match="duration head"):
        pipe.sample(pipe.encode("a"), **SMALL, duration="auto")


def test_pictures_are_spoilt_as_the_vae_is_used_to(pipe, tiny_paths, tmp_path):
    assert pipe.info["image_crf"] == 18
    with sdltx.load(*tiny_paths) as older:
        assert older.info["image_crf"] == 33

    def older_vae(header):
        header["__metadata__"]["model_version"] = "2.3.0"

    vae = rewritten(file("video_vae_conv"), tmp_path / "vae.safetensors", older_vae)
    with sdltx.load(file("transformer"), file("text_encoder"), vae) as mixed:
        assert mixed.info["image_crf"] == 33


def test_on_a_worker(pipe, golden, workers):
    """The marker, missing biases and the duration head on a device without host memory."""
    g = golden("duration")
    with sdltx.load(*PARTS_OF_A_CLIP, file("duration_head"), device=workers[0], precision="f32") as there:
        for there_got, here_got in zip(velocity(there, golden, "slots"), velocity(pipe, golden, "slots"), strict=True):
            assert_close("velocity", there_got, here_got, 1e-5)
        seconds = there._core.duration((g["video_tokens"], g["audio_tokens"]))
        assert_close("seconds", np.array([seconds]), g["seconds"])


@pytest.mark.parametrize("options", [{"offload": "blocks"}, {"offload": "stage"}, {"threads": 1}])
def test_placements_give_the_same_bits(options):
    asked = {"width": 64, "height": 64, "num_frames": 9, "frame_rate": 24, "num_inference_steps": 2, "seed": 4}
    with sdltx.load(*PARTS_OF_A_CLIP) as one, sdltx.load(*PARTS_OF_A_CLIP, **options) as other:
        a, b = (pipe.sample(pipe.encode("a fox"), **asked) for pipe in (one, other))
    assert np.array_equal(a.video, b.video)
    assert np.array_equal(a.audio, b.audio)


def test_default_precision_stays_near_float32(golden, pipe):
    with sdltx.load(*PARTS_OF_A_CLIP) as fast:
        for got, exact in zip(velocity(fast, golden, "t2v"), velocity(pipe, golden, "t2v"), strict=True):
            assert_close("velocity", got, exact, 1e-2)
        a, b = (one.encode("a fox") for one in (fast, pipe))
        assert_close("context", a.video, b.video, 3e-2)


@pytest.mark.parametrize(
    ("kind", "output", "tolerance"), [("keep", "t.gguf", 0), ("q8_0", "t.gguf", 3e-2), ("bf16", "t.safetensors", 1e-2)]
)
def test_converted(pipe, golden, tmp_path, kind, output, tolerance):
    """The marker stays exact, and what tells the text encoder stays with the transformer."""
    sdltx.convert(file("transformer"), output=tmp_path / output, type=kind)
    told = sdltx.inspect(tmp_path / output)
    marker = next(one for one in told.tensors if one.name.endswith("keyframes_abs_pos_embedding"))
    assert marker.type == "F32"
    with sdltx.load(tmp_path / output, file("text_encoder"), precision="f32") as other:
        assert other.info["version"] == "2.5.0"
        for got, expected in zip(velocity(other, golden, "t2v"), velocity(pipe, golden, "t2v"), strict=True):
            if tolerance:
                assert_close(kind, got, expected, tolerance)
            else:
                assert np.array_equal(got, expected)

    def another(header):
        config_of_gemma(header, lambda c: c.update(gemma_version="gemma4-12b-ltx-v2"))

    with pytest.raises(sdltx.ModelMismatchError, match="was trained with gemma4-tiny-ltx-v1"):
        sdltx.load(tmp_path / output, changed_encoder(tmp_path, another))


# --- seams ---


def test_a_clip_in_two_stages_is_made_again_with_both_samplers(tmp_path):
    """It remembers the sampler of the first alone."""
    with sdltx.load(*PARTS_OF_A_CLIP) as pipe:
        asked = {
            "width": 128,
            "height": 128,
            "num_frames": 9,
            "frame_rate": 8,
            "seed": 3,
            "upscaler": file("upsampler"),
        }
        told = pipe.resolve(**asked, sampler="euler_ancestral")
        assert [stage["sampler"] for stage in told["stages"]] == ["euler_ancestral", "euler"]
        told = pipe.resolve(**asked, sampler="gradient_estimation")
        assert [stage["sampler"] for stage in told["stages"]] == ["gradient_estimation"] * 2


@pytest.mark.parametrize("shape", [[], [64], [2, 16], [0]])
def test_a_damaged_duration_head(tmp_path, shape):
    def change(header):
        header["duration_head.video_modality_emb"]["shape"] = shape

    path = rewritten(file("duration_head"), tmp_path / "head.safetensors", change)
    with pytest.raises(sdltx.SdltxError):
        sdltx.load(*PARTS_OF_A_CLIP, path)
    assert sdltx.inspect(path).problems


def test_pictures_late_in_a_clip_of_open_length(prompts):
    """Its frames are looked at once its length is known."""
    picture = np.zeros((64, 64, 3), np.uint8)
    with sdltx.load(*PARTS_OF_A_CLIP, file("duration_head"), precision="f32") as pipe:
        late = {"width": 64, "height": 64, "frame_rate": 50, "duration": "auto", "num_inference_steps": 1}
        assert pipe.estimate(**late, conditions=[sdltx.Condition(picture, 300)])["steps"]
        made = pipe.sample(pipe.encode(prompts["pos"]), **late, conditions=[sdltx.Condition(picture, 130)])
        assert made.settings["num_frames"] == 153
        assert pipe.resolve(**{**late, "frame_rate": 0.01})["num_frames"] == 1


def test_estimates_refuse_what_runs_refuse(tiny):
    with pytest.raises(sdltx.ModelMismatchError, match="duration head"):
        tiny.estimate(duration="auto")
    with pytest.raises(sdltx.ModelMismatchError, match="keyframes are generated"):
        tiny.estimate(num_generated_keyframes=3)


def test_a_converted_folder_goes_with_its_text_encoder(tmp_path):
    written = sdltx.convert(*PARTS_OF_A_CLIP, file("duration_head"), output=f"{tmp_path}/all/", type="bf16")
    assert sorted(path.name.split(".")[0] for path in written) == [
        "audio_vae",
        "duration_head",
        "transformer",
        "video_vae",
    ]
    with sdltx.load(tmp_path / "all", file("text_encoder")) as pipe:
        assert len(pipe.info["parts"]) == 9
    (one,) = sdltx.convert(file("duration_head"), *PARTS_OF_A_CLIP, output=tmp_path / "one.safetensors", type="bf16")
    with sdltx.load(one, file("text_encoder")) as pipe:
        assert len(pipe.info["parts"]) == 9


def test_a_transformer_that_tells_nothing_takes_its_encoder(tmp_path, caplog):
    path = rewritten(file("transformer"), tmp_path / "t.safetensors", lambda h: h["__metadata__"].clear())
    config = json.loads(read_safetensors(file("transformer"))[0]["__metadata__"]["config"])

    def change(header):
        header["__metadata__"] = {"config": json.dumps(config)}

    path = rewritten(file("transformer"), tmp_path / "t.safetensors", change)
    with sdltx.load(path, file("text_encoder")) as pipe:
        assert pipe.info["model"] == "LTX-2.5"
    assert "says nothing of its version" in caplog.text


def test_a_gemma_3_that_tells_its_configuration(tiny_paths, tmp_path):
    """The metadata is no mark of Gemma 4."""
    folder = Path(tiny_paths[1])
    header, values = read_safetensors(folder / "model.safetensors")
    header.setdefault("__metadata__", {})["gemma_config"] = (folder / "config.json").read_text()
    (tmp_path / "gemma").mkdir()
    for name in ("config.json", "tokenizer.model"):
        (tmp_path / "gemma" / name).write_bytes((folder / name).read_bytes())
    write_safetensors(tmp_path / "gemma" / "model.safetensors", header, values)
    with sdltx.load(tiny_paths[0], tmp_path / "gemma") as pipe:
        assert "text encoder" in pipe.info["parts"]


def test_lengths_from_the_command_line_replace_remembered_ones(tmp_path):
    small = ["-m", FOLDER, "--fps", "8", "-W", "64", "-H", "64", "--steps", "1", "-s", "3"]
    done = run("generate", *small, "-p", "a", "--num-frames", "9", "-o", tmp_path / "a.mp4")
    assert done.returncode == 0, done.stderr
    again = ["-m", FOLDER, "--from", tmp_path / "a.mp4"]
    for more, frames in ((["--duration", "2s"], 17), (["--num-frames", "auto"], 25)):
        done = run("generate", *again, *more, "-o", tmp_path / "b.webp", "--overwrite")
        assert done.returncode == 0, done.stderr
        assert sdltx.media.read_settings(tmp_path / "b.webp")["num_frames"] == frames
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text('{"prompt": "a", "duration": "auto", "output": "f-%03d.png"}\n{"prompt": "b", "num_frames": 17}\n')
    for _ in range(2):
        done = run("batch", jobs, *small, "--duration", "1s", "-o", tmp_path / "clips")
        assert done.returncode == 0, done.stderr
    assert "2 of 2 clips are there already" in done.stderr or "all 2" in done.stderr, done.stderr
    assert len(list((tmp_path / "clips").glob("f-*.png"))) == 25
