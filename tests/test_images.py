"""Clips that begin with, show or end with given pictures: against the reference, and what pictures are taken."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import real_layout
from commands import generate, run
from compare import assert_close
from PIL import Image
from real_layout import DIT
from test_guidance import golden_options

import sdltx
from sdltx import _core, images
from sdltx.options import core_options

OPTIONS = {"width": 128, "height": 96, "num_frames": 17, "frame_rate": 24, "preset": "distilled"}


@pytest.fixture
def picture(tmp_path):
    """A file, and what is in it."""
    values = np.random.default_rng(5).integers(0, 256, (40, 60, 3), np.uint8)
    path = tmp_path / "picture.png"
    Image.fromarray(values).save(path)
    return path, values


def test_scaled_and_cut_as_the_reference_does(golden):
    g = golden("video_vae")
    fitted = _core.fit_image(g["image_u8"], 32, 64)
    assert_close("image", (fitted + 1).transpose(2, 0, 1) * 127.5, g["image_resized"])


def test_a_picture_of_the_size_is_not_changed():
    values = np.arange(32 * 64 * 3, dtype=np.uint8).reshape(32, 64, 3)
    np.testing.assert_allclose(_core.fit_image(values, 32, 64), values / np.float32(127.5) - 1, atol=1e-7)


@pytest.mark.device
def test_trajectory_from_an_image(tiny, golden):
    """Eight steps of the reference, with its own latent of the picture."""
    g, text = golden("trajectory"), golden("text")
    rows = 160
    contexts = [text[f"pos.{stream}_context"][:rows] for stream in ("video", "audio")]
    video_noise, audio_noise = g["i2v.video_noise"], g["i2v.audio_noise"]
    channels = video_noise.shape[1]
    grid = g["i2v.image_latent"].shape[1:]
    frames = len(video_noise) // (grid[1] * grid[2])
    bins = 16
    sampler = tiny._core.sampler(
        *contexts,
        core_options(
            {
                "width": grid[2] * 32,
                "height": grid[1] * 32,
                "num_frames": 8 * (frames - 1) + 1,
                "frame_rate": 24,
                "sigmas": g["i2v.sigmas"].tolist(),
                "preset": "distilled",
            }
        ),
        video_noise=video_noise.T.reshape(channels, frames, *grid[1:]),
        audio_noise=audio_noise.reshape(len(audio_noise), -1, bins).transpose(1, 0, 2),
        conditions=[(None, g["i2v.image_latent"], 0, 1.0)],
    )
    for step in range(sampler.num_steps):
        assert_close(f"video {step}", sampler.video, g["i2v_own_av.video_latents"][step])
        assert_close(f"audio {step}", sampler.audio, g["i2v_own_av.audio_latents"][step])
        sampler.step()
    assert_close("video", sampler.video, g["i2v_own_av.video_latents"][-1])
    assert_close("audio", sampler.audio, g["i2v_own_av.audio_latents"][-1])


def test_prompt_and_image_to_latents(tiny, golden):
    """Four guided steps; prompts and picture go through our own encoders."""
    g = golden("e2e")
    frames, height, width = g["guided_i2v.pixel_shape"].tolist()
    f, h, w = (frames - 1) // 8 + 1, height // 32, width // 32
    picture = g["guided_i2v.image_u8"]
    latent = tiny._core.encode_video(_core.fit_image(picture, height, width)[None])
    assert_close("image latent", latent, g["guided_i2v.image_latent"])
    noise = g["guided_i2v.video_noise"].T.reshape(-1, f, h, w)
    audio = g["guided_i2v.audio_noise"]
    latents = tiny.sample(
        tiny.encode(str(g["prompt"])),
        negative=tiny.encode(str(g["negative_prompt"])),
        noise=sdltx.Latents(noise, audio.reshape(len(audio), -1, 16).transpose(1, 0, 2)),
        conditions=[sdltx.Condition(picture, crf=0)],
        width=width,
        height=height,
        num_frames=frames,
        frame_rate=float(g["fps"]),
        sigmas=g["guided_i2v.sigmas"].tolist(),
        **golden_options(golden),
    )
    assert_close("video", latents.video, g["guided_i2v_own_av.video_latent"])
    assert_close("audio", latents.audio, g["guided_i2v_own_av.audio_latent"])


@pytest.mark.sanitize
def test_appended_keyframes(tiny):
    """Their tokens are seen at their time and dropped; the clip's own noise is as without them."""
    context = tiny.encode("x")
    noise = tiny._core.sampler(context.video, context.audio, core_options({**OPTIONS, "seed": 3})).video
    latent = np.random.default_rng(1).standard_normal((8, 1, 3, 4)).astype(np.float32)
    start = tiny._core.sampler(
        context.video,
        context.audio,
        core_options({**OPTIONS, "seed": 3}),
        conditions=[(None, latent, 16, 0.75), (None, latent, 0, 1.0)],
    )
    cells = 12
    assert start.video.shape == (len(noise) + cells, 8)
    np.testing.assert_array_equal(start.video[cells : len(noise)], noise[cells:])
    np.testing.assert_array_equal(start.video[:cells], latent.reshape(8, cells).T)
    appended = start.video[len(noise) :] - 0.75 * latent.reshape(8, cells).T
    assert 0.1 < appended.std() < 0.5  # a quarter of noise
    latents = tiny.sample(context, **OPTIONS, seed=3, num_inference_steps=1)
    shown = tiny.sample(context, **OPTIONS, seed=3, num_inference_steps=1, last_image=np.zeros((9, 9, 3), np.uint8))
    assert shown.video.shape == latents.video.shape
    assert np.abs(shown.video - latents.video).max() > 1e-3


def test_a_first_frame_stays(tiny, picture):
    path, values = picture
    context = tiny.encode("x")
    latents = tiny.sample(context, **OPTIONS, seed=3, num_inference_steps=2, image=path, sigmas=None)
    fitted = _core.fit_image(images.pixels(sdltx.Condition(path), 33), 96, 128)
    np.testing.assert_array_equal(latents.video[:, :1], tiny._core.encode_video(fitted[None]))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    told = {"path": str(path), "frame": 0, "strength": 1.0, "crf": None, "sha256": sha256}
    assert latents.settings["images"] == [told]
    # Files, Pillow's pictures and arrays are the same.
    again = tiny.sample(context, **OPTIONS, seed=3, num_inference_steps=2, image=values)
    np.testing.assert_array_equal(again.video, latents.video)
    with Image.open(path) as opened:
        conditions = [sdltx.Condition(opened, frame=-17)]
        again = tiny.sample(context, **OPTIONS, seed=3, num_inference_steps=2, conditions=conditions)
    np.testing.assert_array_equal(again.video, latents.video)
    free = tiny.sample(context, **OPTIONS, seed=3, num_inference_steps=2)
    no_effect = tiny.sample(
        context, **OPTIONS, seed=3, num_inference_steps=2, conditions=[sdltx.Condition(values, 0, 0.0)]
    )
    np.testing.assert_array_equal(no_effect.video, free.video)


def test_h264_spoils_a_picture_as_much_as_its_crf_says(picture):
    _, values = picture

    def error(crf, otherwise=33):
        return np.abs(images.pixels(sdltx.Condition(values, crf=crf), otherwise).astype(int) - values).mean()

    assert error(0) == 0
    assert 0 < error(5) < error(33) == error(None)
    assert error(None, 18) == error(18)


@pytest.mark.parametrize(
    ("mode", "kind"), [("RGBA", "png"), ("L", "png"), ("P", "gif"), ("CMYK", "jpg"), ("1", "png"), ("I;16", "png")]
)
def test_kinds_of_pictures(tmp_path, mode, kind):
    gray = np.full((8, 10), 200, np.uint8)
    path = tmp_path / f"x.{kind}"
    image = Image.fromarray(gray.astype(np.uint16) << 8) if mode == "I;16" else Image.fromarray(gray).convert(mode)
    image.save(path)
    got = images.pixels(sdltx.Condition(path, crf=0), 33)
    assert got.shape == (8, 10, 3)
    assert np.abs(got.astype(int) - (255 if mode == "1" else 200)).mean() < 60  # dithering, ink
    if mode in ("L", "I;16", "RGBA"):
        assert np.all(got == 200)


def test_exif_turns(tmp_path):
    image = Image.new("RGB", (20, 10), "red")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "x.jpg", exif=exif)
    assert images.pixels(sdltx.Condition(tmp_path / "x.jpg"), 33).shape == (20, 10, 3)


def test_a_single_pixel_is_a_picture(tiny):
    values = np.full((1, 1, 3), 90, np.uint8)
    assert np.all(images.pixels(sdltx.Condition(values), 33) == 90)
    clip = tiny.generate("x", **OPTIONS, num_inference_steps=1, image=values)
    assert clip.frames.shape == (17, 96, 128, 3)


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda path: None, "there is no file"),
        (lambda path: path.write_text("not a picture"), "cannot read"),
        (lambda path: path.mkdir(), "is a directory"),
        (
            lambda path: Image.new("RGB", (9, 9)).save(
                path, format="gif", save_all=True, append_images=[Image.new("RGB", (9, 9), "red")]
            ),
            "an animation of 2 pictures",
        ),
        (lambda path: Image.new("F", (9, 9)).save(path, format="tiff"), "floating-point"),
        (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 20), "cannot read"),
    ],
)
def test_what_is_no_picture(demo, tmp_path, make, line):
    path = tmp_path / "x.img"
    make(path)
    for call in (lambda: demo.generate("x", image=path), lambda: images.pixels(sdltx.Condition(path), 33)):
        with pytest.raises(sdltx.InvalidRequestError, match=line):
            call()


@pytest.mark.sanitize
@pytest.mark.parametrize(
    ("conditions", "line"),
    [
        ([(17, 1.0)], "no frame 17 in a clip of 17; use 0 to 16"),
        ([(-18, 1.0)], "no frame -18"),
        ([(0, 1.0), (-17, 0.5)], "two pictures are for frame 0"),
    ],
)
def test_frames_that_cannot_be(tiny, picture, conditions, line):
    path, _ = picture
    given = [sdltx.Condition(path, *one) for one in conditions]
    with pytest.raises(sdltx.InvalidRequestError, match=line):
        tiny.generate("x", **OPTIONS, conditions=given)


@pytest.mark.sanitize
@pytest.mark.parametrize(
    "arguments", [{"strength": 1.5}, {"strength": float("nan")}, {"crf": 52}, {"frame": 0.5}, {"strength": "1"}]
)
def test_conditions_that_cannot_be(arguments):
    with pytest.raises(sdltx.InvalidRequestError, match="image"):
        sdltx.Condition("x.png", **arguments)


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), 5])
def test_arrays_that_are_no_picture(demo, image):
    with pytest.raises(sdltx.InvalidRequestError, match="RGB bytes"):
        demo.sample(demo.encode("x"), image=image)


def test_lists_of_something_else(demo):
    for conditions in (sdltx.Condition("x.png"), ["x.png"], 5):
        with pytest.raises(sdltx.InvalidRequestError, match=r"a list of sdltx\.Condition"):
            demo.sample(demo.encode("x"), conditions=conditions)


def test_an_image_step_takes_the_memory_of_another(tiny):
    """Rows of modulation are never spread out over tokens."""
    context = tiny.encode("x")
    size = {**OPTIONS, "width": 256, "height": 256, "num_frames": 65}

    def working(conditions):
        sampler = tiny._core.sampler(context.video, context.audio, core_options(size), conditions=conditions)
        sampler.step()
        return max(device["working"] for device in tiny.memory())

    latent = np.zeros((8, 1, 8, 8), np.float32)
    tiny.decode(sdltx.Latents(np.zeros((8, 1, 1, 1), np.float32)))  # gives back what others took
    plain = working([])
    assert working([(None, latent, 0, 1.0)]) <= 1.05 * plain


def test_memory_at_the_widths_of_the_release(tmp_path):
    """A first frame costs nothing; a keyframe is a sixteenth more of everything that has tokens."""
    path = real_layout.write_checkpoint(tmp_path / "ltx-2.3-22b.safetensors", lambda name: name.startswith(DIT))
    code = f"""
        import sdltx
        from sdltx import _core, options
        pipe = sdltx.load({str(path)!r})
        for width, height in ((768, 512), (1280, 704)):
            size = dict(width=width, height=height, num_frames=121, frame_rate=24, preset="distilled")
            latent = [0.0]
            def measured(*frames):
                conditions = [(None, latent, frame, 1.0) for frame in frames]
                told = pipe._core.estimate(_core.Job(options.core_options(size), conditions=conditions))
                step = next(step for step in told["steps"] if step["step"] == "denoise")
                return step["devices"][0]["inputs"] + step["devices"][0]["working"]
            print(measured(), measured(0), measured(0, -1), sep="|")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for size, line in zip(("768x512x121", "1280x704x121"), done.stdout.splitlines(), strict=True):
        plain, first, both = map(int, line.split("|"))
        print(
            f"{size}: {plain / 2**30:.3f} GiB, from a picture {first / plain:.4f}, to another {both / plain:.4f} of it"
        )
        assert first <= 1.05 * plain
        assert both <= 17 / 16 * first + (1 << 20)  # keys are packed in whole blocks


def test_command_line(picture, tmp_path):
    path, _ = picture
    out = tmp_path / "x.mp4"
    done = generate("-i", f"{path}:0:0.9", "--last-image", path, "-o", out, "-v")
    assert done.returncode == 0, done.stderr
    assert f"{path} at frame 0, strength 0.9; {path} at frame -1, strength 1" in done.stderr
    told = run("generate", "--from", out, "--dry-run")
    assert told.returncode == 0, told.stderr
    assert f"{path} at frame 0, strength 0.9" in told.stdout
    strange = tmp_path / "a:1"
    strange.write_bytes(path.read_bytes())
    told = generate("-i", strange, "--dry-run")
    assert f"{strange} at frame 0" in told.stdout
    for arguments, line in (
        (["-i", f"{path}:9"], "no frame 9"),
        (["-i", f"{path}:0:2"], "strength 2"),
        (["-i", path, "-i", path], "two pictures"),
        (["-i", tmp_path / "missing.png"], "there is no file"),
        (["-i", path, "-o", path], "also an input"),
    ):
        done = generate(*arguments, *(() if "-o" in arguments else ("-o", tmp_path / "y.mp4")))
        assert done.returncode == 2, done.stderr
        assert line in done.stderr.splitlines()[-1]


def test_large_pictures_are_encoded_whole(tiny_paths):
    """Beyond 768 pixels, where videos are encoded in tiles: the latents are those of one piece, as in the reference."""
    image = np.random.default_rng(0).integers(0, 256, (64, 832, 3), np.uint8)
    with sdltx.load(*tiny_paths, precision="f32") as pipe:
        whole = pipe.encode_video(image[None], tiling=sdltx.Tiling(0, 0, 0, 0))
        tiles = pipe.encode_video(image[None])
        assert np.abs(whole - tiles).max() > 1e-3  # they do differ
        condition = sdltx.Condition(image, crf=0)
        got = pipe.sample(
            pipe.encode("x"),
            conditions=[condition],
            width=832,
            height=64,
            num_frames=1,
            num_inference_steps=1,
            preset="distilled",
            seed=1,
        )
    np.testing.assert_allclose(got.video, whole, atol=1e-5)
