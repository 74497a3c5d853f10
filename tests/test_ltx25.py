"""LTX-2.5 against the reference: text encoder, transformer, sampling, whole clips (the parity kit's tiny-ltx25)."""

from __future__ import annotations

import json

import numpy as np
import pytest
from compare import assert_close
from ltx25 import PARTS_OF_A_CLIP, file, golden, pipe, prompts, rewritten, velocity  # noqa: F401
from test_transformer import block_outputs, check_stages, contexts

import sdltx
from sdltx import _core

pytestmark = pytest.mark.sanitize


def test_tokens(golden):
    tokens = golden("tokens")
    tokenizer = _core.Tokenizer([str(file("text_encoder"))])
    for i, prompt in enumerate(tokens["prompts"]):
        got = tokenizer.encode(str(prompt).strip())[:1024]
        assert np.array_equal(got, tokens[f"ids_{i}"]), str(prompt)[:80]


@pytest.mark.device
def test_hidden_states(pipe, golden, prompts):
    text = golden("text")
    states = pipe._core.hidden_states(prompts["pos"])
    for layer, expected in enumerate(text["pos.hidden_states"]):
        assert_close(f"hidden state {layer}", states[layer], expected, 2e-4, on_device=1.2e-2)
    assert_close("empty", pipe._core.hidden_states("")[-1], text["empty.last_hidden_state"], 2e-4)
    short = _core.encode_tokens([str(file("text_encoder"))], text["short.ids"])
    for layer in {int(name.split(".")[1].removeprefix("layer")) for name in text if name.startswith("short.layer")}:
        if layer + 1 < len(short) - 1:
            assert_close(f"short, layer {layer}", short[layer + 1], text[f"short.layer{layer}.output"], 2e-4)
    assert_close("pictures", pipe._core.hidden_states("a <|image|> b"), text["placeholder.hidden_states"], 2e-4)


@pytest.mark.device
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


@pytest.mark.device
def test_transformer_stage_by_stage(pipe, golden):
    g = golden("transformer")
    with pipe.trace("*") as traced:
        video, audio = velocity(pipe, golden, "t2v")
    check_stages(g, traced)
    for kind, got in (("video", video), ("audio", audio)):
        assert_close(f"{kind} blocks", block_outputs(traced, kind), g[f"t2v.{kind}_block_outputs"])
        assert_close(f"{kind} velocity", got, g[f"t2v.{kind}_velocity"])


@pytest.mark.device
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


@pytest.mark.device
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
