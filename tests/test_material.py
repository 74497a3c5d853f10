"""Clips from a sound or a film: what stays, stays bit for bit; what is made is the reference's."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
from fractions import Fraction

import numpy as np
import pytest
import real_layout
from commands import computed_in, errors, generate, read_safetensors, run, write_safetensors
from compare import assert_close
from real_layout import DIT
from reference_runs import contexts

import sdltx
from sdltx import _core, media
from sdltx.options import core_options

SMALL = {"num_inference_steps": 2, "seed": 5}
RATE = 44100


def wave(seconds: float, rate: int = RATE) -> np.ndarray:
    t = np.arange(round(seconds * rate)) / rate
    return np.stack([np.sin(2000 * t), np.sin(900 * t * (1 + t))]).astype(np.float32) * 0.4


def film(frames: int = 33, height: int = 64, width: int = 96, sound: bool = True) -> sdltx.Video:
    rng = np.random.default_rng(1)
    pictures = rng.integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
    if not sound:
        return sdltx.Video(pictures, frame_rate=24)
    return sdltx.Video(pictures, wave(frames / 24), RATE, 24)


def masked(frames=33, rows=slice(0, 32), columns=slice(32, 96)) -> np.ndarray:
    mask = np.zeros((frames, 64, 96, 3), np.uint8)
    mask[:, rows, columns] = 255
    return mask


def ran(pipe, job) -> dict:
    """What a run tells of a job."""
    told: dict = {"frames": []}
    pipe._core.run(
        [job],
        on={
            "denoised": lambda _i, latents, plan: told.update(latents=latents, plan=plan),
            "frames": lambda _i, pixels: told["frames"].append(pixels),
            "sound": lambda _i, sound: told.update(sound=sound),
            "finished": lambda _i, error: told.update(error=error),
        },
    )
    assert told["error"] is None, told["error"]
    return {**told, "frames": np.concatenate(told["frames"]) if told["frames"] else None}


# --- sound ---


def test_pictures_for_a_sound(tiny):
    """The sound comes out as it went in, and the clip is as long as it is."""
    given = wave(1.4)
    video = tiny.generate("a voice", sound=(given, RATE), width=96, height=64, preset="distilled", **SMALL)
    assert video.sample_rate == RATE
    assert len(video.frames) == 33  # of 24 a second, the nearest to 1.4 s
    length = round(33 / 24 * RATE)
    assert np.array_equal(video.audio, given[:, :length])
    other = tiny.generate("a voice", sound=(-given[::-1], RATE), width=96, height=64, preset="distilled", **SMALL)
    assert not np.array_equal(other.frames, video.frames)


def test_a_sound_that_is_too_short_or_mono(tiny):
    given = wave(0.5)[:1]
    video = tiny.generate(
        "x", sound=(given, RATE), width=64, height=64, num_frames=25, preset="distilled", frame_rate=24, **SMALL
    )
    length = round(25 / 24 * RATE)
    assert video.audio.shape == (2, length)
    assert np.array_equal(video.audio[0], video.audio[1])
    assert np.array_equal(video.audio[0, : given.shape[1]], given[0])
    assert not video.audio[:, given.shape[1] :].any()


@pytest.mark.device
def test_the_reference_in_two_stages(tiny, tiny_dir, golden, tmp_path):
    """From a wave and a picture to frames: audio_to_video of ltx-pipelines, a2v_two_stage of the kit."""
    g, text = golden("conditioning"), golden("text")
    name = "a2v_two_stage"
    frames, height, width = (int(n) for n in g[f"{name}.pixel_shape"])
    first, count = g[f"{name}.wave_range"]
    samples = (g[f"{name}.wave_s16"] / 32768).astype(np.float32)[:, first : first + count]
    scales = dict(
        zip(
            ("guidance_scale", "stg_scale", "guidance_rescale", "modality_scale"),
            g[f"{name}.video_guidance"].tolist(),
            strict=True,
        )
    )
    lora = shutil.copy(tiny_dir / "tiny-lora.safetensors", tmp_path / "distilled-lora.safetensors")
    steps = len(g[f"{name}.first.sigmas"]) - 1
    options = core_options(
        {
            "width": width,
            "height": height,
            "num_frames": frames,
            "frame_rate": float(g[f"{name}.fps"]),
            "num_inference_steps": steps,
            "recipe": "guided-two-stage",
            "upscaler": str(tiny_dir / "tiny-spatial-upscaler-x2.safetensors"),
            "loras_stage2": [(lora, float(g[f"{name}.lora_strength"]))],
            "stg_blocks": g[f"{name}.stg_blocks"].tolist(),
            **scales,
        }
    )
    noise = [
        g[f"{name}.{stage}.video_noise"].T.reshape(
            g[f"{name}.{stage}.image_latent"].shape[0], -1, *g[f"{name}.{stage}.image_latent"].shape[2:]
        )
        for stage in ("first", "second")
    ]
    positive, negative = contexts(text), contexts(text, "neg")
    job = _core.Job(
        options,
        conditions=[(g[f"{name}.image_u8"], None, 0, float(g[f"{name}.image_strength"]))],
        noise=(noise[0], None),
        second_noise=(noise[1], None),
        context=(positive["video"], positive["audio"]),
        negative=(negative["video"], negative["audio"]),
        given_sound={"samples": samples, "length": int(count), "rate": int(g[f"{name}.wave_rate"])},
    )
    told = ran(tiny, job)
    assert_close("video latent", told["latents"][0], g[f"{name}.video_latent"])
    gap = np.abs(told["frames"].astype(int) - g[f"{name}.frames_u8"])
    assert float((gap <= 1).mean()) >= 0.999
    assert np.array_equal(told["sound"][0], samples[:, : round(frames / float(g[f"{name}.fps"]) * told["sound"][1])])


# --- sound alone, and sound for a film ---


def test_sound_alone(tiny, tmp_path):
    latents = tiny.sample(tiny.encode("rain"), video=False, num_frames=33, frame_rate=24, preset="distilled", **SMALL)
    assert latents.video.shape[1] == 0
    assert latents.audio.shape[1] == round(33 / 24 * 25)
    latents.save(tmp_path / "x.safetensors")
    again = sdltx.Latents.load(tmp_path / "x.safetensors")
    video = tiny.decode(again)
    assert len(video.frames) == 0
    video.save(tmp_path / "x.wav")
    with pytest.raises(sdltx.InvalidRequestError):
        video.save(tmp_path / "x.mp4")
    made = tiny.generate("rain", video=False, num_frames=33, frame_rate=24, preset="distilled", **SMALL)
    assert np.array_equal(made.audio, video.audio)


def test_sound_for_a_film(tiny):
    given = film(sound=False)
    video = tiny.generate("steps", film=given, foley=True, preset="distilled", **SMALL)
    assert np.array_equal(video.frames, given.frames)
    assert video.sample_rate == 48000
    assert abs(video.audio.shape[1] / 48000 - 33 / 24) < 0.05


# --- retake ---


def test_what_a_retake_leaves(tiny):
    """0.5 to 0.9 s of 24 frames a second: latents 2 to 3, frames 9 to 24, sound tokens 13 to 23."""
    given = film()
    video = tiny.generate("x", film=given, retake=(0.5, 0.9), preset="distilled", **SMALL)
    assert video.frames.shape == given.frames.shape
    same = (video.frames == given.frames).all(axis=(1, 2, 3))
    assert same[:2].all() and same[32:].all(), np.flatnonzero(~same)
    assert not same[2:32].any()
    assert video.sample_rate == RATE
    start, end = (4 * 13 - 3) / 100, (4 * 23 + 1) / 100
    kept = np.ones(given.audio.shape[1], bool)
    kept[int((start - 0.02) * RATE) : int((end + 0.02) * RATE) + 2] = False
    assert np.array_equal(video.audio[:, kept], given.audio[:, kept])
    inside = slice(int(start * RATE), int(end * RATE))
    assert not np.array_equal(video.audio[:, inside], given.audio[:, inside])
    everywhere = tiny.generate("x", film=given, retake=(0.5, 0.9), decode_everywhere=True, preset="distilled", **SMALL)
    assert everywhere.sample_rate == 48000
    assert not (everywhere.frames == given.frames).all(axis=(1, 2, 3)).any()
    # Made pictures are those of the clip decoded everywhere.
    assert np.array_equal(everywhere.frames[9:25], video.frames[9:25])


@pytest.mark.parametrize("of", ["picture", "sound"])
def test_a_retake_of_one_stream(tiny, of):
    given = film()
    video = tiny.generate("x", film=given, retake=(0.5, 0.9), retake_of=of, preset="distilled", **SMALL)
    assert np.array_equal(video.frames, given.frames) == (of == "sound")
    assert np.array_equal(video.audio, given.audio) == (of == "picture")


def test_films_of_other_sizes_and_lengths(tiny):
    """Sides become multiples of 32 and the last picture is repeated for the model; as many come out as went in."""
    given = film(30, 70, 100)
    told = tiny.resolve(sdltx.Request("x", film=given, retake=(1, 1.2)))
    assert (told["width"], told["height"], told["num_frames"], told["result_frames"]) == (96, 64, 33, 30)
    video = tiny.generate("x", film=given, retake=(1, 1.2), preset="distilled", **SMALL)
    assert video.frames.shape == (30, 64, 96, 3)


def test_a_silent_film_gets_sound(tiny):
    given = film(sound=False)
    video = tiny.generate("x", film=given, retake=(0.5, 0.9), preset="distilled", **SMALL)
    assert video.audio is not None
    assert tiny.generate("x", film=given, retake=(0.5, 0.9), audio=False, preset="distilled", **SMALL).audio is None


def test_shares_of_made_samples_change_slowly(tiny):
    """No step at the ends of what was made: what is added to the film comes and goes within 20 ms."""
    given = film()
    video = tiny.generate("x", film=given, retake=(0.5, 0.9), preset="distilled", **SMALL)
    made = tiny.generate("x", film=given, retake=(0.5, 0.9), decode_everywhere=True, preset="distilled", **SMALL)
    n = given.audio.shape[1]
    difference = np.abs(video.audio - given.audio).max(axis=0)
    loud = np.abs(made.audio).max() + np.abs(given.audio).max()
    start = int(((4 * 13 - 3) / 100 - 0.02) * RATE)
    ramp = difference[start : start + int(0.02 * RATE)] / loud
    assert n and (ramp <= (np.arange(len(ramp)) + 2) / (0.02 * RATE)).all()


# --- masks ---


def test_what_a_mask_leaves(tiny):
    """Two of six cells are made anew in all frames; 16 pixels around them fade, the rest and the sound stay."""
    given = film()
    request = sdltx.Request("x", film=sdltx.Film(given, sdltx.Video(masked())), preset="distilled", **SMALL)
    assert tiny.resolve(request)["task"] == "retake"
    video = tiny.generate(request)
    same = (video.frames == given.frames).all(axis=(0, 3))
    assert same[:, :16].all() and same[48:].all()
    assert not same[:32, 32:].any()
    assert np.array_equal(video.audio, given.audio)
    everywhere = tiny.generate(request.replaced(decode_everywhere=True)).frames
    assert np.array_equal(everywhere[:, :32, 32:], video.frames[:, :32, 32:])


def test_a_mask_within_times(tiny):
    """Latents 2 and 3 of some cells: frames 9 to 24, and 8 that fade on both sides."""
    given = film()
    request = sdltx.Request(
        "x", film=sdltx.Film(given, masked(1)[0]), retake=(0.5, 0.9), retake_of="both", preset="distilled", **SMALL
    )
    video = tiny.generate(request)
    same = (video.frames == given.frames).all(axis=3)
    assert same[:2].all() and same[32:].all()
    assert same[:, 48:].all() and same[:, :, :16].all()
    assert not same[9:25, :32, 32:].any()
    assert not np.array_equal(video.audio, given.audio)


def test_masks_in_files(tmp_path):
    film().save(tmp_path / "a.mp4")
    sdltx.Video(masked(1)).save(tmp_path / "m.png")
    asked = ["--video", tmp_path / "a.mp4", "--mask", tmp_path / "m.png", "--steps", "2"]
    done = generate(*asked, "-o", tmp_path / "b.mp4")
    assert done.returncode == 0, done.stderr
    again = run("generate", "--from", tmp_path / "b.mp4", "-o", tmp_path / "c.mp4")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "b.mp4").read_bytes() == (tmp_path / "c.mp4").read_bytes()
    request = sdltx.Request("x", film=sdltx.Film(str(tmp_path / "a.mp4"), str(tmp_path / "m.png")))
    assert sdltx.Request.from_dict(request.to_dict()).to_dict() == request.to_dict()
    assert run("estimate", "--video", tmp_path / "a.mp4", "--mask", tmp_path / "m.png").returncode == 0


def test_many_runs_of_tokens_cost_no_more(tiny):
    """A chessboard cuts tokens into hundreds of runs, which are put together."""
    size = {"width": 256, "height": 256, "num_frames": 33, "frame_rate": 24, "preset": "distilled"}

    def needed(mask):
        film_told = {"frames": None, "shape": (33, 256, 256), "frame_rate": 24.0, "sound": None, "mask": None}
        told = tiny._core.estimate(
            _core.Job(core_options(size | {"retake": [0, 9]}), given_film={**film_told, "mask_shape": mask})
        )
        return computed_in(told, "denoise")

    assert needed((33, 256, 256)) <= 1.02 * needed(None)


# --- what is not needed ---


def test_sound_alone_needs_no_weights_of_the_picture(tiny_paths):
    """Nor do pictures alone need those of the sound; the next run has all again."""
    asked = {"preset": "distilled", "num_frames": 9, "width": 64, "height": 64, "frame_rate": 24, **SMALL}
    with sdltx.load(*tiny_paths) as other:
        expected = [
            other.sample(other.encode("x"), **asked, **more) for more in ({}, {"video": False}, {"audio": False})
        ]
    for order in ((0, 1, 2), (2, 1, 0), (1, 0, 2)):
        for offload in ("auto", "blocks"):
            with sdltx.load(*tiny_paths, offload=offload) as pipe:
                context = pipe.encode("x")
                for i in order:
                    more = ({}, {"video": False}, {"audio": False})[i]
                    made = pipe.sample(context, **asked, **more)
                    assert np.array_equal(made.video, expected[i].video)
                    assert (made.audio is None) == (expected[i].audio is None)
                    if made.audio is not None:
                        assert np.array_equal(made.audio, expected[i].audio)
    with sdltx.load(*tiny_paths) as pipe:
        held = []
        for more in ({}, {"video": False}, {"audio": False}):
            told = pipe.estimate(**asked, **more)
            step = next(one for one in told["steps"] if one["step"] == "denoise")
            held.append(sum(one["weights"] + one["mapped"] for one in step["devices"]))
    print(held)
    assert held[1] < 0.35 * held[0] and held[2] < 0.8 * held[0]


# --- references ---


def with_metadata(path, to, **metadata):
    header, blob = read_safetensors(path)
    header["__metadata__"] = {**header.get("__metadata__", {}), **metadata}
    return write_safetensors(to, header, blob)


@pytest.mark.device
def test_the_reference_s_ic_lora(tiny, tiny_dir, golden, tmp_path):
    """From pixels: ic_lora of ltx-pipelines; the LoRA's file tells how much smaller references are."""
    g = golden("conditioning")
    frames, height, width = (int(n) for n in g["ic_lora.pixel_shape"])
    lora = with_metadata(
        tiny_dir / "tiny-lora.safetensors",
        tmp_path / "ic.safetensors",
        reference_downscale_factor=str(int(g["ic_lora.downscale_factor"])),
    )
    positive = contexts(golden("text"))
    shapes = {
        "first": (g["ic_lora.reference_latent"].shape[0], 2, height // 64, width // 64),
        "second": g["ic_lora.upscaled_latent"].shape,
    }
    noise = {}
    for stage, shape in shapes.items():
        video, audio = (g[f"ic_lora.{stage}.{kind}_noise"] for kind in ("video", "audio"))
        cells = int(np.prod(shape[1:]))
        noise[stage] = (video[:cells].T.reshape(shape), audio.reshape(len(audio), -1, 16).transpose(1, 0, 2))
    reference = g["ic_lora.reference_u8"]
    job = _core.Job(
        core_options(
            {
                "width": width,
                "height": height,
                "num_frames": frames,
                "frame_rate": float(g["ic_lora.fps"]),
                "recipe": "distilled-two-stage",
                "upscaler": str(tiny_dir / "tiny-spatial-upscaler-x2.safetensors"),
                "loras": [(lora, float(g["ic_lora.lora_strength"]))],
            }
        ),
        noise=noise["first"],
        second_noise=noise["second"],
        context=(positive["video"], positive["audio"]),
        references=[
            {
                "frames": reference,
                "shape": reference.shape[:3],
                "still": False,
                "strength": 1.0,
                "attention": None,
                "attention_shape": None,
            }
        ],
    )
    told = ran(tiny, job)
    assert_close("video", told["latents"][0], g["ic_lora.video_latent"])
    assert_close("sound", told["latents"][1], g["ic_lora.audio_latent"])
    assert [len(stage["loras"]) for stage in told["plan"]["stages"]] == [1, 0]


def test_masks_of_references(golden):
    g = golden("conditioning")
    _, height, width = (int(n) for n in g["ref.pixel_shape"])
    cells = (3, height // 32, width // 32)
    tokens = _core.attention_of_mask(g["ref.mask.pixels_u8"], 0.5, width, height, cells)
    assert np.abs(np.array(tokens) - 0.5 * g["ref.mask.tokens"]).max() < 1e-5  # which adds up in float32


def test_references_count(tiny):
    """Of a picture, that is there all the time; strengths, attention and sizes change the clip."""
    asked = {"width": 128, "height": 64, "num_frames": 17, "preset": "distilled", **SMALL}
    picture = film(1).frames[0]
    clips = [
        tiny.generate("x", **asked).frames,
        tiny.generate("x", references=[picture], **asked).frames,
        tiny.generate("x", references=[sdltx.Reference(picture, 0.5)], **asked).frames,
        tiny.generate("x", references=[picture], reference_attention=0.3, **asked).frames,
        tiny.generate("x", references=[picture], reference_downscale=2, **asked).frames,
        tiny.generate("x", references=[film(17)], reference_temporal=2, **asked).frames,
        tiny.generate("x", references=[sdltx.Reference(picture, 1, picture)], **asked).frames,
    ]
    for i, one in enumerate(clips):
        assert not any(np.array_equal(one, other) for other in clips[:i]), i


def test_dubbing(tiny, tiny_dir):
    """Other words in a film: pictures and sound are new, as long as whole latent frames last, in two stages or one."""
    given = film(30, 128, 192)
    lora = str(tiny_dir / "tiny-lora.safetensors")
    upscaler = str(tiny_dir / "tiny-spatial-upscaler-x2.safetensors")
    for more in ({}, {"upscaler": upscaler, "recipe": "distilled-two-stage"}):
        request = sdltx.Request("hello", film=given, dub=True, loras=[lora], preset="distilled", seed=1, **more)
        plan = tiny.resolve(request)
        assert (plan["num_frames"], plan["width"], plan["height"]) == (25, 192, 128)
        assert all(len(stage["loras"]) == 1 for stage in plan["stages"])
        video = tiny.generate(request)
        assert video.frames.shape == (25, 128, 192, 3)
        assert video.sample_rate == 48000


# --- what cannot be ---


@pytest.mark.parametrize(
    "request_of, message",
    [
        ({"retake": (0, 1)}, "needs a film"),
        ({"foley": True}, "needs a film"),
        ({"film": film()}, "nothing says what to do"),
        ({"film": film(), "retake": (1, 0.5)}, "the earlier first"),
        ({"film": film(), "retake": (5, 6)}, "nothing between 5 and 6 s"),
        ({"film": film(), "retake": (0, 1), "foley": True}, "give one of them"),
        ({"film": film(), "sound": (wave(1), RATE), "foley": True}, "leave out the other"),
        ({"film": film(), "retake": (0, 1), "upscaler": "x.safetensors"}, "one stage"),
        ({"film": film(), "foley": True, "audio": False}, "foley makes sound"),
        ({"sound": (wave(1), RATE), "audio": False}, "leave out audio"),
        ({"sound": (wave(1), RATE), "video": False}, "leave out the film or the sound"),
        ({"video": False, "audio": False}, "is nothing"),
        ({"video": False, "image": np.zeros((8, 8, 3), np.uint8)}, "leave them out"),
        ({"retake_of": "sound"}, "needs retake"),
        ({"retake_of": "smell"}, "both, picture, sound"),
        ({"decode_everywhere": True}, "for a retake"),
        ({"film": film(), "foley": True, "frame_rate": 12}, "leave out frame_rate"),
        ({"film": film(), "foley": True, "num_frames": 97}, "fewer than num_frames"),
        ({"film": sdltx.Film(film(), masked()[0]), "foley": True}, "mask is for a retake"),
        ({"film": sdltx.Film(film(), masked()[0]), "retake_of": "sound"}, "where pictures are made"),
        ({"film": film(), "dub": True, "audio": False}, "needs the sound"),
        ({"film": film(sound=False), "dub": True}, "needs the sound"),
        ({"reference_attention": 0.5}, "no reference"),
        ({"references": [film()], "video": False}, "sound alone has no references"),
        ({"references": [film()], "film": film(), "foley": True}, "do not go together"),
        ({"references": [film()], "reference_downscale": 2, "width": 96, "height": 64}, "multiples of 64"),
    ],
)
def test_requests_that_cannot_be(tiny, request_of, message):
    with pytest.raises(sdltx.InvalidRequestError, match=message):
        tiny.check(sdltx.Request("x", **request_of))
    with pytest.raises(sdltx.InvalidRequestError, match=message):
        tiny.generate("x", **request_of)


@pytest.mark.parametrize(
    "lost, part, request_of",
    [
        ("audio_vae.encoder.", "audio encoder", {"sound": (wave(1), RATE)}),
        ("vae.encoder.", "video encoder", {"film": film(), "foley": True}),
    ],
)
def test_models_that_lack_an_encoder(tiny_paths, tmp_path, lost, part, request_of):
    """Is told before anything is computed."""
    header, blob = read_safetensors(tiny_paths[0])
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {name: one for name, one in header.items() if not name.startswith(lost)}, blob)
    with sdltx.load(path, *tiny_paths[1:]) as pipe:
        for call in (pipe.check, pipe.generate):
            with pytest.raises(sdltx.ModelMismatchError, match=f"among the files: {part}"):
                call(sdltx.Request("x", **request_of))


# --- files ---


def test_command_line(tmp_path):
    clip, sound = tmp_path / "a.mp4", tmp_path / "s.wav"
    film().save(clip)
    sdltx.sound.write(sound, wave(1), RATE)
    for arguments, name in (
        (["--audio", sound, "--audio-start", "0.2"], "b.mp4"),
        (["--video", clip, "--retake", "0.3:0.6"], "c.mp4"),
        (["--video", clip, "--retake", "0.3:0.6", "--retake-of", "sound"], "d.mp4"),
        (["--video", clip, "--foley"], "e.mp4"),
        (["--no-video"], "f.wav"),
    ):
        done = generate(*arguments, "--steps", "2", "-o", tmp_path / name)
        assert done.returncode == 0, done.stderr
        if name not in ("b.mp4", "c.mp4"):
            continue
        again = run("generate", "--from", tmp_path / name, "-o", tmp_path / f"2{name}")
        assert again.returncode == 0, again.stderr
        assert (tmp_path / name).read_bytes() == (tmp_path / f"2{name}").read_bytes(), name
    told = run("generate", "--from", tmp_path / "c.mp4", "--dry-run")
    assert "retake" in told.stdout and str(clip) in told.stdout
    told = media.read_settings(tmp_path / "c.mp4")
    assert told["retake"] == [0.3, 0.6] and told["film"]["path"] == str(clip)
    film(17).save(clip)
    assert "not the file that" in run("generate", "--from", tmp_path / "e.mp4", "--dry-run").stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--audio", "missing.wav"],
        ["--video", "missing.mp4", "--foley"],
        ["--audio-start", "1"],
        ["--video", __file__, "--retake", "0:1"],
        ["--retake", "now"],
        ["--no-video", "-o", "x.mp4"],
    ],
)
def test_bad_arguments(arguments, tmp_path):
    done = generate(*arguments, *(() if "-o" in arguments else ("-o", tmp_path / "x.mp4")))
    assert (done.returncode, len(errors(done))) == (2, 1), done.stderr


def test_lines_of_a_batch(tmp_path):
    film().save(tmp_path / "a.mp4")
    sdltx.sound.write(tmp_path / "s.wav", wave(1), RATE)
    lines = [
        {"prompt": "x", "film": "a.mp4", "retake": [0.3, 0.6], "output": "b.mp4"},
        {"prompt": "x", "sound": {"path": "s.wav", "start": 0.1}, "output": "c.mp4"},
        {"prompt": "x", "video": False, "output": "d.wav"},
    ]
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text("\n".join(map(json.dumps, lines)))
    done = run("batch", jobs, "-o", tmp_path / "out", "--steps", "2", "--seed", "3")
    assert done.returncode == 0, done.stderr
    assert {file.name for file in (tmp_path / "out").iterdir()} >= {"b.mp4", "c.mp4", "d.wav"}
    again = run("batch", jobs, "-o", tmp_path / "out", "--steps", "2", "--seed", "3")
    assert "3 of 3 clips are there already" in again.stderr


def test_requests_as_text(tmp_path):
    film().save(tmp_path / "a.mp4")
    request = sdltx.Request("x", film=str(tmp_path / "a.mp4"), retake=(0.25, 1))
    again = sdltx.Request.from_dict(json.loads(json.dumps(request.to_dict())))
    assert again.to_dict() == request.to_dict()
    with pytest.raises(sdltx.InvalidRequestError, match="save it"):
        sdltx.Request("x", film=film(), foley=True).to_dict()


# --- readers ---


def test_sound_of_files(tmp_path):
    given = wave(1)
    sdltx.sound.write(tmp_path / "s.wav", given, RATE, sample_format="f32")
    samples, rate = media.read_audio(tmp_path / "s.wav", start=0.1, duration=0.5)
    assert rate == RATE and samples.shape == (2, round(0.5 * RATE))
    assert np.array_equal(samples, given[:, round(0.1 * RATE) :][:, : samples.shape[1]])
    sdltx.sound.write(tmp_path / "m.wav", given[:1], RATE)
    mono, _ = media.read_audio(tmp_path / "m.wav")
    assert np.array_equal(mono[0], mono[1])
    film().save(tmp_path / "a.mp4")
    coded, _ = media.read_audio(tmp_path / "a.mp4")
    n = 30_000
    assert np.abs(coded[:, 3000:n] - wave(33 / 24)[:, 3000:n]).mean() < 0.02  # AAC begins where it was
    with pytest.raises(sdltx.InvalidRequestError, match="no sound at 5 s"):
        media.read_audio(tmp_path / "s.wav", start=5)


def test_pictures_of_files(tmp_path):
    ramp = np.zeros((25, 64, 96, 3), np.uint8)
    ramp += (np.arange(25, dtype=np.uint8) * 10)[:, None, None, None]
    ramp[..., 1] = np.linspace(0, 255, 96).astype(np.uint8)
    sdltx.Video(ramp, frame_rate=24).save(tmp_path / "a.mp4")
    frames, rate = media.read_video(tmp_path / "a.mp4")
    assert rate == 24 and frames.shape == ramp.shape
    assert np.abs(frames.astype(int) - ramp).mean() < 2.5
    some, _ = media.read_video(tmp_path / "a.mp4", start=0.25, duration=0.25)
    assert np.array_equal(some, frames[6:12])
    half, rate = media.read_video(tmp_path / "a.mp4", frame_rate=12)
    assert rate == 12 and np.array_equal(half, frames[::2])
    sdltx.Video(ramp, frame_rate=Fraction(30000, 1001)).save(tmp_path / "b.mp4")
    assert media.read_video(tmp_path / "b.mp4")[1] == pytest.approx(29.97, abs=1e-3)


def written(path, frames, **about):
    """A film by PyAV, with what files may say of their pictures."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"crf": "4"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = about.pop("pix_fmt", "yuv420p")
        if (times := about.pop("times", None)) is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for name, value in about.items():
            setattr(stream.codec_context, name, value)
        for i, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(
                format=stream.pix_fmt,
                dst_colorspace=about.get("colorspace"),
                dst_color_range=about.get("color_range"),
            )
            if times is not None:
                frame.pts, frame.time_base = times[i], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_matrix_and_range_of_colours(tmp_path):
    """All four ways to store the same colours come out as the same."""
    picture = np.zeros((4, 64, 96, 3), np.uint8)
    picture[:, :, :32], picture[:, :, 32:64], picture[:, :, 64:] = (200, 30, 40), (20, 180, 60), (30, 40, 210)
    for matrix in (1, 5):
        for extent in (1, 2):
            path = tmp_path / f"{matrix}{extent}.mp4"
            written(path, picture, colorspace=matrix, color_range=extent)
            frames, _ = media.read_video(path)
            assert np.abs(frames[:, 8:-8, 8:24].astype(int) - picture[:, 8:-8, 8:24]).max() <= 6, (matrix, extent)
            assert np.abs(frames[:, 8:-8, 72:88].astype(int) - picture[:, 8:-8, 72:88]).max() <= 6, (matrix, extent)


def test_hdr_is_refused(tmp_path):
    written(tmp_path / "h.mp4", np.zeros((4, 64, 96, 3), np.uint8), color_trc=16, color_primaries=9, colorspace=9)
    with pytest.raises(sdltx.InvalidRequestError, match=r"HDR \(PQ\)"):
        media.read_video(tmp_path / "h.mp4")


def test_pictures_at_uneven_distances(tmp_path):
    """A picture is seen until the next one's time."""
    ramp = np.zeros((4, 64, 96, 3), np.uint8) + np.array([0, 60, 120, 180], np.uint8)[:, None, None, None]
    written(tmp_path / "v.mkv", ramp, times=[0, 100, 400, 500])
    frames, _ = media.read_video(tmp_path / "v.mkv", frame_rate=10)
    assert [round(picture.mean() / 60) for picture in frames[:6]] == [0, 1, 1, 1, 2, 3]


# --- memory ---


def test_memory_at_the_widths_of_the_release(tmp_path):
    """A given sound and a retake take what a clip from text takes, within 5 %."""
    path = real_layout.write_checkpoint(tmp_path / "ltx-2.3-22b.safetensors", lambda name: name.startswith(DIT))
    code = f"""
        import sdltx
        from sdltx import _core, options
        pipe = sdltx.load({str(path)!r})
        size = dict(width=768, height=512, num_frames=121, frame_rate=24, preset="distilled")
        heard = {{"samples": None, "length": 250000, "rate": 48000}}
        film = {{"frames": None, "shape": (121, 512, 768), "frame_rate": 24.0, "sound": heard,
                 "mask": None, "mask_shape": None}}
        def measured(more={{}}, **given):
            told = pipe._core.estimate(_core.Job(options.core_options(size | more), **given))
            step = next(step for step in told["steps"] if step["step"] == "denoise")
            return step["devices"][0]["inputs"] + step["devices"][0]["working"]
        print(measured(), measured(given_sound=heard), measured({{"retake": [1, 2]}}, given_film=film),
              measured({{"foley": True}}, given_film=film), measured({{"video": False}}))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    plain, *others, alone = map(int, done.stdout.split())
    print([other / plain for other in others], alone / plain)
    assert all(other <= 1.05 * plain for other in others)
    assert alone < 0.1 * plain


# --- what a reader found ---


def test_gaps_in_sound_are_silence(tmp_path):
    import av

    tone = np.full((2, 4800), 0.25, np.float32)
    with av.open(str(tmp_path / "g.mkv"), "w") as container:
        stream = container.add_stream("pcm_f32le", rate=48000, layout="stereo")
        for start in (0, 0.1, 0.2, 0.9, 1.0):
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(tone.T).reshape(1, -1), format="flt", layout="stereo"
            )
            frame.sample_rate, frame.time_base, frame.pts = 48000, Fraction(1, 48000), round(start * 48000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    samples, rate = media.read_audio(tmp_path / "g.mkv")
    assert samples.shape == (2, round(1.1 * rate))
    loud = samples[0] > 0.1
    assert loud[: round(0.29 * rate)].all() and loud[round(0.91 * rate) :].all()
    assert not loud[round(0.31 * rate) : round(0.89 * rate)].any()
    later, _ = media.read_audio(tmp_path / "g.mkv", start=0.85, duration=0.1)
    assert (later[0] > 0.1).sum() == pytest.approx(0.05 * rate, abs=2)


def test_sixteen_bits_stay_as_they_are(tmp_path):
    """All of their values come out of a file as they went in."""
    values = np.arange(-32768, 32768, dtype=np.int16)
    sdltx.sound.write(tmp_path / "a.wav", np.stack([values, values[::-1]]), 48000)
    samples, _ = media.read_audio(tmp_path / "a.wav")
    assert np.array_equal(samples * 32768, np.stack([values, values[::-1]]))
    sdltx.sound.write(tmp_path / "b.wav", samples, 48000)
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


@pytest.mark.parametrize("rate", [11111, 192_000, 8000])
def test_rates_that_a_codec_does_not_know(tmp_path, rate):
    clip = sdltx.Video(film(24, sound=False).frames, wave(1, rate), rate, 24)
    clip.save(tmp_path / "a.mp4")
    samples, of_file = media.read_audio(tmp_path / "a.mp4")
    assert samples.shape[1] / of_file == pytest.approx(1, abs=0.06)


def test_masks_that_changed(tmp_path):
    film().save(tmp_path / "a.mp4")
    sdltx.Video(masked(1)).save(tmp_path / "m.png")
    clip, mask = tmp_path / "a.mp4", tmp_path / "m.png"
    for more, name in (
        (["--video", clip, "--mask", mask], "b.mp4"),
        (["--reference", clip, "--reference-mask", mask, "-W", "96", "-H", "64"], "c.mp4"),
    ):
        done = generate(*more, "--steps", "1", "-o", tmp_path / name)
        assert done.returncode == 0, done.stderr
    lines = [
        {"prompt": "x", "film": {"path": "a.mp4", "mask": "m.png"}, "output": "b.mp4"},
        {"prompt": "x", "references": [{"path": "a.mp4", "attention": "m.png"}], "output": "c.mp4"},
    ]
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text("\n".join(map(json.dumps, lines)))
    batch = ["batch", jobs, "-o", tmp_path / "out", "--steps", "1", "--seed", "3", "-W", "96", "-H", "64"]
    assert run(*batch).returncode == 0
    assert "2 of 2 clips are there already" in run(*batch).stderr
    sdltx.Video(255 - masked(1)).save(mask, overwrite=True)
    assert "clips are there already" not in run(*batch).stderr
    for name in ("b.mp4", "c.mp4"):
        assert "m.png is not the file that" in run("generate", "--from", tmp_path / name, "--dry-run").stderr


def test_another_task_of_a_clip_that_is_made_again(tmp_path):
    film().save(tmp_path / "a.mp4")
    done = generate("--video", tmp_path / "a.mp4", "--retake", "0.3:0.6", "--steps", "1", "-o", tmp_path / "b.mp4")
    assert done.returncode == 0, done.stderr
    for more in (["--foley"], ["--extend", "0.5"]):
        told = run("generate", "--from", tmp_path / "b.mp4", *more, "--dry-run")
        assert told.returncode == 0, told.stderr
        assert more[0].lstrip("-") in told.stdout
    refused = run("generate", "--from", tmp_path / "b.mp4", "--foley", "-o", tmp_path / "x.gif")
    assert (refused.returncode, len(errors(refused))) == (2, 1)


def test_files_are_read_once_for_plans(tiny, tmp_path, monkeypatch):
    from sdltx import _readers

    film().save(tmp_path / "a.mp4")
    calls = []
    whole = _readers.read_frames
    monkeypatch.setattr(_readers, "read_frames", lambda *args, **more: calls.append(args) or whole(*args, **more))
    request = sdltx.Request("x", film=str(tmp_path / "a.mp4"), foley=True)
    for _ in range(3):
        tiny.resolve(request)
        tiny.estimate(request)
    assert len(calls) == 1
