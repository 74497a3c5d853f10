"""Recipes are what they say: bit-equal to the same stages one after the other, and named when something is missing."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import computed_in, errors, run
from compare import assert_close

import sdltx
from sdltx import _core

DATA = Path(__file__).parent / "data" / "tiny-a"
UPSCALER = DATA / "tiny-spatial-upscaler-x2.safetensors"
SIZE = {"width": 128, "height": 64, "num_frames": 9, "frame_rate": 24, "seed": 5}
HALF = {**SIZE, "width": 64, "height": 32}
REFINING = {
    "sigmas": [0.909375, 0.725, 0.421875, 0.0],
    **dict.fromkeys(("guidance_scale", "audio_guidance_scale", "modality_scale", "audio_modality_scale"), 1.0),
    **dict.fromkeys(("stg_scale", "audio_stg_scale", "guidance_rescale", "audio_guidance_rescale"), 0.0),
}


@pytest.fixture(scope="module")
def lora(tmp_path_factory):
    """The LoRA under the name of a release."""
    path = tmp_path_factory.mktemp("lora") / "ltx-2.3-22b-Distilled-lora-384.safetensors"
    shutil.copy(DATA / "tiny-lora.safetensors", path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory, lora):
    """All that recipes want, in one folder."""
    path = tmp_path_factory.mktemp("model")
    for file in (DATA / "tiny-ltx-2.3.safetensors", UPSCALER, lora):
        shutil.copy(file, path)
    shutil.copytree(DATA / "gemma", path / "gemma")
    return path


@pytest.fixture(scope="module")
def complete(folder):
    return sdltx.load(folder, precision="f32")


def equal(one, other):
    np.testing.assert_array_equal(one.video, other.video)
    np.testing.assert_array_equal(one.audio, other.audio)


def refined(pipe, context, first, loras, **options):
    large = pipe.upsample(first, UPSCALER)
    return pipe.sample(context, **{**SIZE, **options, **REFINING}, initial=large, loras=loras)


def test_one_stage(tiny):
    context = tiny.encode("x")
    equal(
        tiny.sample(context, **HALF, recipe="distilled", num_inference_steps=2),
        tiny.sample(context, **HALF, preset="distilled", num_inference_steps=2),
    )
    equal(
        tiny.sample(context, negative=context, **HALF, recipe="guided", num_inference_steps=1),
        tiny.sample(context, negative=context, **HALF, num_inference_steps=1),
    )
    assert tiny.resolve(recipe="distilled")["schedule"] == "distilled"
    guided = tiny.resolve(recipe="guided")
    assert (guided["passes"], guided["num_inference_steps"], guided["recipe"]) == (4, 30, "guided")


def test_distilled_two_stage(tiny):
    context = tiny.encode("x")
    both = tiny.sample(context, **SIZE, recipe="distilled-two-stage", upscaler=UPSCALER)
    first = tiny.sample(context, **HALF, recipe="distilled")
    equal(both, refined(tiny, context, first, [], recipe="distilled"))


def test_guided_two_stage(complete, lora):
    """The distilled LoRA serves the second stage alone, beside those of both; the sound is the first's."""
    context = complete.encode("x")
    other = [(DATA / "tiny-lora.safetensors", 0.3)]
    options = {"negative": context, "num_inference_steps": 2, "loras": other}
    both = complete.sample(context, **SIZE, recipe="guided-two-stage", **options)
    first = complete.sample(context, **HALF, **options)
    second = refined(complete, context, first, [*other, (lora, 1.0)])
    np.testing.assert_array_equal(both.video, second.video)
    np.testing.assert_array_equal(both.audio, first.audio)
    assert both.settings["recipe"] == "guided-two-stage"
    assert Path(both.settings["distilled_lora"]).name == lora.name
    assert [Path(path).name for path in both.settings["upscalers"]] == [UPSCALER.name]


def test_hq(complete, lora):
    """The LoRA at a quarter, then a half; res_2s in both; the schedule knows the tokens of the first stage."""
    context = complete.encode("x")
    options = {"negative": context, "num_inference_steps": 2}
    both = complete.sample(context, **SIZE, recipe="hq", **options)
    first = complete.sample(context, **HALF, preset="hq", loras=[(lora, 0.25)], **options)
    second = refined(complete, context, first, [(lora, 0.5)], preset="hq")
    np.testing.assert_array_equal(both.video, second.video)
    np.testing.assert_array_equal(both.audio, first.audio)
    resolved = complete.resolve(**SIZE, recipe="hq")
    assert [stage["sampler"] for stage in resolved["stages"]] == ["res_2s", "res_2s"]
    tokens = 2 * 1 * 2
    np.testing.assert_allclose(resolved["stages"][0]["sigmas"], _core.ltx2_sigmas(15, tokens), rtol=1e-6)
    assert [stage["passes"] for stage in resolved["stages"]] == [3, 1]


def test_keyframes(complete, lora):
    """Every picture is appended, that of frame 0 too: one step of the first stage as the equations have it."""
    context = complete.encode("x")
    pictures = np.random.default_rng(7).integers(0, 256, (2, 32, 64, 3), np.uint8)
    noise = sdltx.Latents(
        np.random.default_rng(8).standard_normal((8, 2, 1, 2)).astype(np.float32),
        np.random.default_rng(9).standard_normal((2, 9, 16)).astype(np.float32),
    )
    steps = []
    clip = complete.sample(
        context,
        **SIZE,
        recipe="keyframes",
        **{name: value for name, value in REFINING.items() if name != "sigmas"},
        sigmas=[1.0, 0.0],
        noise=noise,
        conditions=[
            sdltx.Condition(pictures[0].repeat(2, 0).repeat(2, 1), 0, crf=0),
            sdltx.Condition(pictures[1].repeat(2, 0).repeat(2, 1), -1, crf=0),
        ],
        on_step=lambda *step: steps.append(step),
    )
    fitted = [_core.fit_image(p.repeat(2, 0).repeat(2, 1), 32, 64)[None] for p in pictures]
    latents = [complete._core.encode_video(one) for one in fitted]
    tokens = np.concatenate([x.reshape(8, -1).T for x in (noise.video, *latents)])
    places = [_core.video_positions(2, 1, 2, 24)]
    for frame in (0, 8):
        own = _core.video_positions(1, 1, 2, 24).copy()
        own[0] = np.float32([frame / 24, (frame + 1) / 24])
        places.append(own)
    video, audio = complete._core.velocity(
        {
            "tokens": tokens,
            "timesteps": np.float32([1] * 4 + [0] * 4),
            "positions": np.concatenate(places, 1),
            "context": context.video,
        },
        {
            "tokens": noise.audio.transpose(1, 0, 2).reshape(9, -1),
            "timesteps": np.ones(9, np.float32),
            "positions": _core.audio_positions(9),
            "context": context.audio,
        },
        sigma=1.0,
    )
    done, count, first = steps[0]
    assert (done, count) == (1, 1)
    assert_close("video", first.video, (tokens - video)[:4].T.reshape(8, 2, 1, 2))
    expected = noise.audio - audio.reshape(9, 2, 16).transpose(1, 0, 2)
    assert_close("audio", first.audio, expected)
    assert np.abs(clip.audio - expected).max() > 1e-3  # the second stage's
    begun = complete.sample(
        context,
        **SIZE,
        recipe="guided-two-stage",
        num_inference_steps=1,
        negative=context,
        image=pictures[0],
    )
    held = complete.encode_video(pictures[:1].repeat(2, 1).repeat(2, 2))
    assert np.abs(begun.video[:, :1] - held).max() < np.abs(clip.video[:, :1] - held).max()
    with pytest.raises(sdltx.InvalidRequestError, match="keyframes needs pictures"):
        complete.sample(context, **SIZE, recipe="keyframes")


def test_the_recipe_that_fits(complete, lora):
    """Without a name: by checkpoint, preset and upscaler, and with the LoRA that lies there."""
    for options, recipe, strengths in (
        ({}, "guided", [[]]),
        ({"preset": "distilled"}, "distilled", [[]]),
        ({"upscaler": UPSCALER}, "guided-two-stage", [[], [1.0]]),
        ({"upscaler": UPSCALER, "preset": "distilled"}, "distilled-two-stage", [[], []]),
        ({"upscaler": UPSCALER, "preset": "hq"}, "hq", [[0.25], [0.5]]),
        ({"upscaler": UPSCALER, "loras_stage2": [(lora, 0.75)]}, "guided-two-stage", [[], [0.75]]),
        ({"recipe": "hq", "distilled_lora": lora, "loras_stage2": [(lora, 0.75)]}, "hq", [[0.25], [0.75]]),
    ):
        resolved = complete.resolve(**options)
        assert resolved["recipe"] == recipe
        assert [[strength for _, strength in stage["loras"]] for stage in resolved["stages"]] == strengths


def test_sizes_that_are_not_given(complete):
    """The first stage has the checkpoint's own."""
    for options, first, whole in (
        ({"recipe": "guided-two-stage"}, (768, 512, 121, 24), (1536, 1024, 121, 24)),
        ({"recipe": "hq"}, (960, 544, 121, 24), (1920, 1088, 121, 24)),
        ({"upscaler": DATA / "tiny-spatial-upscaler-x1.5.safetensors"}, (768, 512, 121, 24), (1152, 768, 121, 24)),
        ({"upscaler": DATA / "tiny-temporal-upscaler-x2.safetensors"}, (768, 512, 121, 24), (768, 512, 241, 48)),
        ({"recipe": "hq", "width": 640, "num_frames": 9}, (320, 544, 9, 24), (640, 1088, 9, 24)),
    ):
        resolved = complete.resolve(**options)
        names = ("width", "height", "num_frames", "frame_rate")
        assert tuple(resolved["stages"][0][name] for name in names) == first
        assert tuple(resolved[name] for name in names) == whole
        assert tuple(resolved["stages"][1][name] for name in names) == whole


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"recipe": "fast"}, "there is no recipe 'fast'; use one of distilled, "),
        ({"recipe": "distilled", "upscaler": UPSCALER}, "distilled has one stage; .* use distilled-two-stage"),
        ({"recipe": "guided", "loras_stage2": []}, "guided has one stage"),
        ({"recipe": "hq", "preset": "distilled"}, "hq does not go with the preset distilled"),
        ({"recipe": "distilled-two-stage", "distilled_lora": "x"}, "has no use for the distilled LoRA"),
        ({"distilled_lora": "x", "preset": "distilled"}, "has no use for the distilled LoRA"),
        ({"recipe": 5}, "recipe: expected"),
        ({"distilled_lora": 5}, "path: expected"),
    ],
)
def test_what_cannot_be(tiny, options, line):
    with pytest.raises(sdltx.InvalidRequestError, match=line):
        tiny.generate("x", **options)


def test_what_is_missing(tiny, tiny_paths, lora, folder, tmp_path):
    for recipe, options, line in (
        ("hq", {"upscaler": UPSCALER}, "hq needs the distilled LoRA of the checkpoint; give its file"),
        ("guided-two-stage", {"distilled_lora": lora}, "guided-two-stage needs a spatial upscaler"),
        ("distilled-two-stage", {}, "distilled-two-stage needs a spatial upscaler"),
    ):
        with pytest.raises(sdltx.ModelMismatchError, match=line):
            tiny.generate("x", recipe=recipe, **options)
    lines = tiny.doubts(**SIZE, upscaler=UPSCALER)
    assert any("refines with the distilled LoRA of the checkpoint, which is not among" in line for line in lines)
    for options in ({"distilled_lora": lora}, {"loras_stage2": [lora]}):
        assert not tiny.doubts(**SIZE, upscaler=UPSCALER, recipe="guided-two-stage", **options)
    second = tmp_path / "more"
    second.mkdir()
    for file in (lora, UPSCALER):
        shutil.copy(file, second / f"another-{file.name}")
    with sdltx.load(folder, second) as pipe:
        with pytest.raises(sdltx.InvalidRequestError, match=r"several files are distilled LoRAs \(.*another-"):
            pipe.resolve(recipe="hq", upscaler=UPSCALER)
        with pytest.raises(sdltx.InvalidRequestError, match="several files are spatial upscalers"):
            pipe.resolve(recipe="hq", distilled_lora=lora)
        assert pipe.resolve(recipe="hq", distilled_lora=lora, upscaler=UPSCALER)["recipe"] == "hq"


def test_estimates_count_all_stages(complete):
    """Each part is the most of the stages."""
    size = {"width": 768, "height": 512, "num_frames": 33, "frame_rate": 24, "recipe": "distilled"}
    small, large = complete.estimate(**{**size, "width": 384, "height": 256}), complete.estimate(**size)
    both = complete.estimate(**{**size, "recipe": "distilled-two-stage"})
    assert computed_in(small, "denoise") < computed_in(large, "denoise") == computed_in(both, "denoise")
    for step in ("encode prompts", "decode pictures"):
        assert computed_in(both, step) == computed_in(large, step)
    names = [step["step"] for step in both["steps"]]
    assert names == ["encode prompts", "denoise", "upscale", "denoise", "decode pictures", "decode sound"]
    assert computed_in(both, "upscale") > 0
    picture = complete.estimate(**size, conditions=[sdltx.Condition(np.zeros((2, 2, 3), np.uint8))])
    assert computed_in(picture, "encode pictures") > 0


def test_pictures_to_latents(tiny):
    frames = np.random.default_rng(1).integers(0, 256, (9, 32, 64, 3), np.uint8)
    latents = tiny.encode_video(frames)
    assert latents.shape == (8, 2, 1, 2)
    np.testing.assert_array_equal(latents, tiny._core.encode_video(frames / np.float32(127.5) - 1))
    for wrong, line in (
        (frames.astype(float), "expected RGB bytes"),
        (frames[0], "expected RGB bytes"),
        (frames[:, :31], "multiples of 32"),
    ):
        with pytest.raises(sdltx.InvalidRequestError, match=line):
            tiny.encode_video(wrong)


def test_list(folder):
    done = run("recipes")
    assert done.returncode == 0, done.stderr
    for recipe in sdltx.recipes():
        assert f"{recipe['name']}\n" in done.stdout
        for need in recipe["needs"]:
            assert need in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 110
    told = run("recipes", "-m", folder).stdout
    assert told.count("not with this checkpoint: it is not distilled") == 2
    assert "ready: 1920x1088, 121 frames, 15 + 3 steps" in told
    told = run("recipes", "-m", DATA / "tiny-ltx-2.3.safetensors").stdout
    assert told.count("needs a spatial upscaler; give its file") + told.count("needs the distilled LoRA") == 3


def test_command_line(folder, tmp_path):
    clip = ["-p", "x", "-W", "128", "-H", "64", "--num-frames", "9", "--steps", "1", "-s", "1"]
    first, again = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    done = run("generate", *clip, "-m", folder, "--recipe", "hq", "--save-latents", first, "-v")
    assert done.returncode == 0, done.stderr
    assert "64x32, 9 frames at 24, 1 steps with" in done.stderr
    assert "at 0.25" in done.stderr and "at 0.5" in done.stderr
    done = run("generate", "--from", first, "-m", folder, "--save-latents", again)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(sdltx.Latents.load(first).video, sdltx.Latents.load(again).video)
    told = run("generate", "--from", first, "-m", folder, "--recipe", "distilled", "--dry-run").stdout
    assert "8, schedule distilled, sampler euler" in told
    assert "128x64, 9 frames" in told
    done = run("generate", *clip, "-m", folder, "--recipe", "keyframes", "--dry-run")
    assert done.returncode == 2
    assert "keyframes needs pictures" in errors(done)[0]
