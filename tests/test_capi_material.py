"""Sounds, films and references through the C ABI: clips are those of Python, bit for bit."""

from __future__ import annotations

import ctypes as c
import json

import capi
import numpy as np
import pytest
from capi import array, borrowed_text, call, frames_of, free, load, made, request, sound_of, text

import sdltx

BOTH = c.c_int32(3)
RATE = 44100
ASKED = {"num_inference_steps": 2, "seed": 4}
rng = np.random.default_rng(5)
FILM = rng.integers(0, 256, (33, 64, 96, 3), dtype=np.uint8)
SOUND = (np.sin(np.arange(60000) / 20)[None] * [[0.4], [0.2]]).astype(np.float32)


@pytest.fixture(scope="module")
def both():
    pipeline = load(*sdltx._demo.demo_files())
    with sdltx.load() as python:
        yield pipeline, python
    free("pipeline", pipeline)


def pointer(values):
    return values.ctypes.data_as(c.c_void_p)


def give_film(handle, frames=FILM, sound=SOUND, rate=24.0):
    sizes = map(c.c_int64, frames.shape[:3])
    samples = None if sound is None else c.byref(array(sound))
    call("request_set_film", handle, pointer(frames), *sizes, c.c_double(rate), samples, c.c_int64(RATE))


@pytest.mark.by_day(1)
@pytest.mark.parametrize(
    "options", [{"retake": [0.3, 0.7]}, {"retake": [0.3, 0.7], "retake_of": "sound"}, {"foley": 1}]
)
def test_films(both, options):
    pipeline, python = both
    asked = request(prompt="x", **ASKED, **options)
    give_film(asked)
    video = made("generate", pipeline, asked, BOTH, None, None)
    film = sdltx.Video(FILM, SOUND, RATE, 24)
    expected = python.generate("x", film=film, **ASKED, **{k: bool(v) if v == 1 else v for k, v in options.items()})
    np.testing.assert_array_equal(frames_of(video)[0], expected.frames)
    np.testing.assert_array_equal(sound_of(video)[0], expected.audio)
    told = json.loads(borrowed_text("video_settings", video))
    assert told["task"] in ("retake", "foley")
    assert {name: told[name] for name in options} == {k: True if v == 1 else v for k, v in options.items()}
    context = made("encode", pipeline, b"x", None, None)
    negative = made("encode", pipeline, python.info["negative_prompt"].encode(), None, None)
    latents = made("sample", pipeline, context, negative, asked, None)
    again = python.sample(
        python.encode("x"), film=film, **ASKED, **{k: bool(v) if v == 1 else v for k, v in options.items()}
    )
    held = c.c_void_p(), capi.structure("sdltx_array")()
    call("latents_get", latents, None, c.byref(held[1]), None)
    assert tuple(held[1].shape[:3]) == again.audio.shape
    for kind, handle in (("video", video), ("latents", latents), ("context", context), ("context", negative)):
        free(kind, handle)


def test_sounds_and_references(both):
    pipeline, python = both
    asked = request(prompt="x", width=96, height=64, **ASKED)
    call("request_set_sound", asked, c.byref(array(SOUND[:1])), c.c_int64(RATE))
    mask = rng.integers(0, 256, (17, 64, 96), dtype=np.uint8)
    sizes = [c.c_int64(n) for n in (17, 64, 96)]
    call("request_add_reference", asked, pointer(FILM[:17].copy()), *sizes, c.c_double(0.75), pointer(mask))
    video = made("generate", pipeline, asked, BOTH, None, None)
    grey = sdltx.Video(np.repeat(mask[..., None], 3, axis=3))
    reference = sdltx.Reference(sdltx.Video(FILM[:17]), 0.75, grey)
    expected = python.generate("x", sound=(SOUND[:1], RATE), references=[reference], width=96, height=64, **ASKED)
    np.testing.assert_array_equal(frames_of(video)[0], expected.frames)
    np.testing.assert_array_equal(sound_of(video)[0], expected.audio)
    assert sound_of(video)[1] == RATE
    free("video", video)


def test_masks(both):
    pipeline, python = both
    asked = request(prompt="x", **ASKED)
    give_film(asked)
    mask = np.zeros((1, 32, 48), np.uint8)
    mask[:, :16] = 255
    call("request_set_mask", asked, pointer(mask), *map(c.c_int64, mask.shape))
    video = made("generate", pipeline, asked, BOTH, None, None)
    film = sdltx.Film(sdltx.Video(FILM, SOUND, RATE, 24), np.repeat(mask[0, ..., None], 3, axis=2))
    expected = python.generate("x", film=film, **ASKED)
    np.testing.assert_array_equal(frames_of(video)[0], expected.frames)
    np.testing.assert_array_equal(sound_of(video)[0], expected.audio)
    free("video", video)


def test_sound_alone(both):
    pipeline, python = both
    asked = request(prompt="x", video=0, **ASKED)
    video = made("generate", pipeline, asked, c.c_int32(2), None, None)
    np.testing.assert_array_equal(sound_of(video)[0], python.generate("x", video=False, **ASKED).audio)
    free("video", video)


def test_what_is_refused():
    asked = request()
    sizes = [c.c_int64(n) for n in FILM.shape[:3]]
    nan = np.full((2, 10), np.nan, np.float32)
    for wrong in (
        lambda: call("request_set_sound", asked, c.byref(array(nan)), c.c_int64(RATE)),
        lambda: call("request_set_sound", asked, c.byref(array(SOUND)), c.c_int64(0)),
        lambda: call("request_set_sound", asked, c.byref(array(SOUND[0])), c.c_int64(RATE)),
        lambda: call("request_set_film", asked, pointer(FILM), *sizes, c.c_double(np.nan), None, c.c_int64(0)),
        lambda: call(
            "request_set_film", asked, pointer(FILM), c.c_int64(2**62), *sizes[1:], c.c_double(24), None, c.c_int64(0)
        ),
        lambda: call("request_add_reference", asked, None, *sizes, c.c_double(1), None),
        lambda: call("request_add_reference", asked, pointer(FILM), *sizes, c.c_double(np.inf), None),
    ):
        with pytest.raises(capi.Failed) as failed:
            wrong()
        assert failed.value.status == capi.INVALID
    assert text("request_json", asked) == "{}"


def test_tasks():
    tasks = json.loads(text("tasks"))
    assert {"text to clip", "sound to clip", "retake", "foley", "dub", "reference"} <= {one["name"] for one in tasks}
    assert tasks == sdltx.tasks()
