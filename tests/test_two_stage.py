"""Latent upscalers, refining, and clips in two stages, against the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from commands import errors, run
from compare import assert_close

import sdltx
from sdltx.options import core_options

DATA = Path(__file__).parent / "data" / "tiny-a"
FILES = {
    "x2": DATA / "tiny-spatial-upscaler-x2.safetensors",
    "x1.5": DATA / "tiny-spatial-upscaler-x1.5.safetensors",
    "temporal": DATA / "tiny-temporal-upscaler-x2.safetensors",
}


def channels_first(traced):
    return traced.transpose(3, 0, 1, 2)


@pytest.mark.device
@pytest.mark.sanitize
@pytest.mark.parametrize("kind", FILES)
def test_upscalers(tiny, golden, kind):
    g = golden("upsampler")
    latent = g["latent"]
    if kind == "x1.5":
        latent = np.concatenate([latent, latent[..., :1]], -1)
    with tiny.trace("*") as traced:
        got = tiny.upsample(sdltx.Latents(latent, None, 12), FILES[kind])
    if kind == "x2":
        for theirs, ours in (
            ("initial_norm", "initial_norm"),
            ("res_block0", "res_blocks.0"),
            ("upsampler", "upsampler"),
        ):
            assert_close(theirs, channels_first(traced[ours])[:16], g[f"x2.{theirs}"])
    assert_close(kind, got.video, g[f"{kind}.output"])
    assert got.frame_rate == (24 if kind == "temporal" else 12)


@pytest.mark.sanitize
def test_prompt_to_a_clip_in_two_stages(tiny, golden):
    g = golden("e2e")
    frames, height, width = (int(n) for n in g["two_stage.second.pixel_shape"])
    f = (frames - 1) // 8 + 1

    def noise(stage, scale):
        video, audio = g[f"two_stage.{stage}.video_noise"], g[f"two_stage.{stage}.audio_noise"]
        grid = (f, height // 32 // scale, width // 32 // scale)
        return video.T.reshape(-1, *grid), audio.reshape(len(audio), -1, 16).transpose(1, 0, 2)

    context = tiny.encode(str(g["prompt"]))
    options = {"width": width, "height": height, "num_frames": frames, "frame_rate": float(g["fps"])}
    first = noise("first", 2)
    estimates = []
    video, audio, settings = tiny._core.sample(
        context.video,
        context.audio,
        core_options({**options, "preset": "distilled", "upscaler": FILES["x2"]}),
        video_noise=first[0],
        audio_noise=first[1],
        second_noise=noise("second", 1),
        on_step=lambda *step: estimates.append(step),
    )
    assert_close("first video", estimates[7][2], g["two_stage.first.video_latent"])
    assert_close("first audio", estimates[7][3], g["two_stage.first.audio_latent"])
    assert_close("video", video, g["two_stage.video_latent"])
    assert_close("audio", audio, g["two_stage.audio_latent"])
    assert [step[:2] for step in estimates[8:]] == [(1, 3), (2, 3), (3, 3)]
    assert (settings["width"], settings["num_inference_steps"]) == (width, 8)
    clip = tiny.decode(sdltx.Latents(video, audio, 24))
    off = np.abs(clip.frames.astype(int) - g["two_stage.frames_u8"])
    print(f"frames: {(off == 0).mean():.4%} of bytes equal, at most {off.max()} off")
    assert (off <= 2).mean() >= 0.995
    assert_close("wave", clip.audio, g["two_stage.wave"], 1e-3)


def test_two_stages_are_sampling_upsampling_and_refining(tiny):
    context = tiny.encode("x")
    size = {"width": 128, "height": 64, "num_frames": 9, "frame_rate": 24, "preset": "distilled", "seed": 5}
    both = tiny.sample(context, **size, num_inference_steps=2, upscaler=FILES["x2"])
    small = tiny.sample(context, **{**size, "width": 64, "height": 32}, num_inference_steps=2)
    large = tiny.upsample(small, FILES["x2"])
    sigmas = [0.909375, 0.725, 0.421875, 0.0]
    fine = tiny.sample(context, **size, sigmas=sigmas, initial=large)
    np.testing.assert_array_equal(both.video, fine.video)
    np.testing.assert_array_equal(both.audio, fine.audio)
    assert both.settings["upscalers"] == [str(FILES["x2"])]
    assert both.seed == 5


def test_more_frames_keep_duration_and_sound(tiny):
    context = tiny.encode("x")
    size = {"width": 64, "height": 32, "num_frames": 33, "frame_rate": 24, "seed": 5}
    latents = tiny.sample(context, **size, num_inference_steps=1, preset="distilled", upscaler=[FILES["temporal"]])
    assert latents.video.shape == (8, 5, 1, 2)
    assert latents.frame_rate == 24
    assert latents.audio.shape[1] == round(25 * 33 / 24)
    both = tiny.sample(
        context,
        **{**size, "width": 128, "height": 64},
        num_inference_steps=1,
        upscaler=[FILES["x2"], FILES["temporal"]],
    )
    assert both.video.shape == (8, 5, 2, 4)


def test_the_sound_of_a_guided_clip_is_that_of_its_first_stage(tiny):
    context = tiny.encode("x")
    size = {"width": 128, "height": 64, "num_frames": 9, "frame_rate": 24, "seed": 5, "num_inference_steps": 1}
    both = tiny.sample(context, negative=context, **size, upscaler=FILES["x2"])
    small = tiny.sample(context, negative=context, **{**size, "width": 64, "height": 32})
    np.testing.assert_array_equal(both.audio, small.audio)


def test_pictures_are_encoded_for_both_stages(tiny):
    context = tiny.encode("x")
    picture = np.random.default_rng(2).integers(0, 256, (64, 128, 3), np.uint8)
    size = {"width": 128, "height": 64, "num_frames": 9, "frame_rate": 24, "seed": 5, "preset": "distilled"}
    latents = tiny.sample(
        context, **size, num_inference_steps=1, upscaler=FILES["x2"], conditions=[sdltx.Condition(picture, crf=0)]
    )
    whole = tiny._core.encode_video(picture[None] / np.float32(127.5) - 1)
    np.testing.assert_allclose(latents.video[:, :1], whole, atol=1e-6)


@pytest.mark.sanitize
@pytest.mark.parametrize(
    ("size", "kinds", "line"),
    [
        ({"width": 96}, ["x2"], "width 96 cannot come of these upscalers; use a multiple of 64"),
        ({"height": 32}, ["x1.5"], "height 32 cannot come of these upscalers; use a multiple of 96"),
        ({"num_frames": 25}, ["temporal"], "25 frames cannot come"),
    ],
)
def test_sizes_that_cannot_be(tiny, size, kinds, line):
    with pytest.raises(sdltx.InvalidRequestError, match=line):
        tiny.generate(
            "x", **{"width": 192, "height": 192, "num_frames": 17, **size}, upscaler=[FILES[k] for k in kinds]
        )


def test_other_files_are_no_upscaler(tiny, tiny_paths, tmp_path):
    (tmp_path / "x.safetensors").write_text("x")
    for path, kind, line in (
        (tiny_paths[0], sdltx.ModelMismatchError, "is a part of a model and not a latent upscaler"),
        (tmp_path / "missing.safetensors", sdltx.ModelFileError, "missing"),
        (tmp_path / "x.safetensors", sdltx.ModelFileError, "x.safetensors"),
    ):
        with pytest.raises(kind, match=line):
            tiny.generate("x", width=128, height=64, num_frames=9, upscaler=path)
    with pytest.raises(sdltx.ModelMismatchError, match="give it as the upscaler"):
        sdltx.load(*tiny_paths, FILES["x2"])


def test_the_upscaler_of_another_model(demo):
    with pytest.raises(sdltx.ModelMismatchError, match="upsamples latents of 8 channels, those of this model have 32"):
        demo.generate("x", width=128, height=128, num_frames=9, upscaler=FILES["x2"])


@pytest.mark.parametrize("upscaler", [5, [5], {"x": 1}])
def test_what_is_no_path(tiny, upscaler):
    with pytest.raises(sdltx.InvalidRequestError, match="path"):
        tiny.sample(tiny.encode("x"), upscaler=upscaler)


def test_command_line(tiny_paths, tmp_path):
    """By name, or found in the folder of the model."""
    folder = tmp_path / "model"
    folder.mkdir()
    for path in (tiny_paths[0], *FILES.values()):
        (folder / Path(path).name).symlink_to(path)
    clip = ["-p", "x", "-W", "128", "-H", "64", "--num-frames", "9", "--steps", "1", "-s", "1", "--preset", "distilled"]
    model = ["-m", folder, "-m", tiny_paths[1]]
    outputs = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for output, options in zip(outputs, (["--two-stage"], ["--upscaler", FILES["x2"]]), strict=True):
        done = run("generate", *clip, *model, *options, "--save-latents", output, "-v")
        assert done.returncode == 0, done.stderr
        assert "64x32, 9 frames at 24, 1 steps" in done.stderr
        assert "tiny-spatial-upscaler-x2" in done.stderr
    one, other = map(sdltx.Latents.load, outputs)
    np.testing.assert_array_equal(one.video, other.video)
    told = run("generate", "--from", outputs[1], *model, "--dry-run")
    assert "tiny-spatial-upscaler-x2" in told.stdout, told.stderr
    done = run("generate", *clip, "-m", tiny_paths[0], "-m", tiny_paths[1], "--two-stage", "--dry-run")
    assert done.returncode == 2
    assert "--upscaler" in errors(done)[0]
