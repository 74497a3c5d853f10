"""Clips from a sound or a film: what stays, stays bit for bit; what is made is the reference's."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import real_layout
from commands import computed_in, read_safetensors, write_safetensors
from compare import assert_close
from films import RATE, film, masked, wave
from real_layout import DIT
from reference_runs import contexts

import sdltx
from sdltx import _core
from sdltx.options import core_options

SMALL = {"num_inference_steps": 2, "seed": 5}


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


@pytest.mark.by_day(0)
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
