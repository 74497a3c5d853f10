"""Films that go on or begin earlier: what was there stays, and sound keeps to its picture."""

from __future__ import annotations

import math

import numpy as np
import pytest
from commands import run

import sdltx
from sdltx import _core

RATE = 44100
SMALL = {"num_inference_steps": 2, "seed": 5, "preset": "distilled"}
WINDOWS = {"num_frames": 33, "extend_context": 17}  # each makes 16 pictures, or 17 before


def film(frames: int = 33, sound: bool = True, rate: float = 24) -> sdltx.Video:
    rng = np.random.default_rng(1)
    pictures = rng.integers(0, 256, (frames, 64, 96, 3), dtype=np.uint8)
    t = np.arange(round(frames / rate * RATE)) / RATE
    samples = (np.sin(2000 * t)[None] * [[0.4], [0.2]]).astype(np.float32)
    return sdltx.Video(pictures, samples if sound else None, RATE if sound else None, rate)


@pytest.mark.by_day(1)
@pytest.mark.parametrize("seconds, windows", [(0.5, 1), (1.0, 2), (1.7, 3)])
def test_a_film_goes_on(tiny, seconds, windows):
    given = film()
    request = sdltx.Request("x", film=given, extend=seconds, **WINDOWS, **SMALL)
    plan = tiny.resolve(request)
    wanted = round(seconds * 24)
    assert (plan["task"], plan["result_frames"], math.ceil(wanted / 16)) == ("extend", 33 + wanted, windows)
    video = tiny.generate(request)
    assert video.frames.shape == (33 + wanted, 64, 96, 3)
    assert np.array_equal(video.frames[:33], given.frames)
    assert video.sample_rate == RATE
    assert video.audio.shape[1] == round((33 + wanted) / 24 * RATE)
    kept = given.audio.shape[1] - round(0.02 * RATE) - 1
    assert np.array_equal(video.audio[:, :kept], given.audio[:, :kept])
    assert video.audio[:, given.audio.shape[1] : given.audio.shape[1] + 2000].any()


@pytest.mark.parametrize("seconds", [0.5, 1.2])
def test_a_film_begins_earlier(tiny, seconds):
    given = film()
    video = tiny.generate("x", film=given, extend_before=seconds, **WINDOWS, **SMALL)
    wanted = round(seconds * 24)
    assert np.array_equal(video.frames[wanted:], given.frames)
    assert len(video.frames) == 33 + wanted
    start = round(wanted / 24 * RATE)
    fade = round(0.02 * RATE) + 1
    length = given.audio.shape[1] - fade
    assert np.array_equal(video.audio[:, start + fade :][:, : length - 2], given.audio[:, fade:][:, : length - 2])
    assert video.audio[:, : start - 100].any()


def test_windows_differ(tiny):
    """Each has noise of its own, and a clip is the same again."""
    given = film(17)
    asked = {"film": given, "extend": 1.2, **WINDOWS, **SMALL}
    video = tiny.generate("x", **asked)
    assert not np.array_equal(video.frames[17:33], video.frames[33:49])
    again = tiny.generate("x", **asked)
    assert np.array_equal(again.frames, video.frames)
    assert np.array_equal(again.audio, video.audio)


def test_silent_films_and_single_pictures(tiny):
    video = tiny.generate("x", film=film(9, sound=False), extend=0.5, num_frames=25, extend_context=9, **SMALL)
    assert len(video.frames) == 21
    before = round(9 / 24 * video.sample_rate)
    assert not video.audio[:, : before - 960 - 1].any()
    assert video.audio[:, before:].any()
    mute = tiny.generate("x", film=film(9), extend=0.5, num_frames=25, extend_context=9, audio=False, **SMALL)
    assert mute.audio is None
    assert len(tiny.generate("x", film=film(1, sound=False), extend=0.3, num_frames=17, **SMALL).frames) == 8


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("rate", [24.0, 25.0, 29.97, 15.0])
def test_sound_keeps_to_its_picture(before, rate):
    """Ten extensions of made sound whose values tell their own time: the film's clock, within a millisecond."""
    context, window, frames = 2, 41, 41
    seen = 8 * context if before else 8 * context + 1
    made = window - seen
    wanted = 10 * made
    sound_rate = 48000  # of what is made: resampling would change the height of the ramp a little
    first = wanted if before else 0  # frame of the whole film that the given one begins at

    def at(seconds):
        return (seconds / 100).astype(np.float32)  # a ramp, which resampling leaves as it is

    times = first / rate + np.arange(round(frames / rate * sound_rate)) / sound_rate
    tokens = round(window / rate * 25)
    pictures, heard = np.zeros((frames, 1, 1, 3), np.uint8), np.stack([at(times)] * 2)
    extension = _core.Extension(pictures, heard, sound_rate, rate, before, context, wanted, window, tokens)
    length = (4 * (tokens - 1) + 1) / 100  # of a window's sound
    for number in range(10):
        assert not extension.done
        start = (wanted - (number + 1) * made if before else frames + number * made - seen) / rate
        if not before:  # what the window hears is what lies there
            assert abs(extension.sound[0, 0] * 100 - start) < 1e-3
        else:
            heard = extension.sound[0, 0] * 100
            _, token = extension.kept_sound(np.zeros((2, 100, 16), np.float32))
            assert abs(start + token * 0.04 - heard) < 1e-3
        window_times = start + np.arange(round(length * 48000)) / 48000
        extension.add(np.zeros((window, 1, 1, 3), np.uint8), np.stack([at(window_times)] * 2), 48000)
    assert extension.done
    assert len(extension.film) == frames + wanted
    whole = extension.whole_sound[0] * 100
    told = np.arange(len(whole)) / sound_rate
    end = len(told) if before else int((told[-1] - 0.1) * sound_rate)  # a window's sound may end a little early
    inside = slice(int(0.05 * sound_rate), end - int(0.05 * sound_rate))
    assert np.abs(whole - told)[inside].max() < 1e-3
    # No click at a seam: nothing jumps by more than the ramp itself, where 1 would be the loudest.
    assert np.abs(np.diff(whole[inside])).max() / 100 < 1e-4


@pytest.mark.parametrize(
    "request_of, message",
    [
        ({"extend": 1}, "needs a film"),
        ({"film": film(), "extend": 1, "extend_before": 1}, "give one of them"),
        ({"film": film(), "extend": "soon"}, "is none"),
        ({"film": film(), "extend": 0.001}, "less than a frame"),
        ({"film": film(), "extend": 1, "extend_context": 10}, "8 k"),
        ({"film": film(), "extend": 1, "num_frames": 33, "extend_context": 33}, "no room"),
        ({"film": film(4), "extend_before": 1}, "8 are needed"),
        ({"film": film(), "extend": 1, "duration": "5s"}, "leave out duration"),
        ({"film": film(), "extend": 1, "image": np.zeros((8, 8, 3), np.uint8)}, "leave them out"),
        ({"film": film(), "retake": (0, 1), "extend_context": 9}, "is of extend"),
    ],
)
def test_requests_that_cannot_be(tiny, request_of, message):
    with pytest.raises(sdltx.InvalidRequestError, match=message):
        tiny.check(sdltx.Request("x", **request_of))


def test_windows_as_memory_has_room(tiny_paths, caplog):
    """Where the usual window does not fit, shorter ones do."""
    given = film(17)
    asked = sdltx.Request("x", film=given, extend=2, **SMALL)
    with sdltx.load(*tiny_paths) as pipe:
        usual = pipe.resolve(asked)["num_frames"]
        full = pipe.estimate(asked)["memory"]
        short = pipe.estimate(asked.replaced(num_frames=33))["memory"]
        assert usual > 33 and short < full
        pipe._core.pretend_memory([(full + short) // 2 + (160 << 20)])
        with caplog.at_level(20, "sdltx"):
            video = pipe.generate(asked)
        assert len(video.frames) == 17 + 48


def test_command_line(tmp_path):
    film().save(tmp_path / "a.mp4")
    asked = ["-p", "x", "--video", tmp_path / "a.mp4"]
    for flag, name in (("--extend", "b.mp4"), ("--extend-before", "c.mp4")):
        done = run("generate", *asked, flag, "0.5s", "--steps", "2", "-o", tmp_path / name)
        assert done.returncode == 0, done.stderr
        assert len(sdltx.media.read_video(tmp_path / name)[0]) == 45
        if flag == "--extend-before":
            continue
        again = run("generate", "--from", tmp_path / name, "-o", tmp_path / f"2{name}")
        assert again.returncode == 0, again.stderr
        assert (tmp_path / name).read_bytes() == (tmp_path / f"2{name}").read_bytes()
    done = run("generate", *asked, "--extend", "1", "--save-latents", tmp_path / "x.safetensors")
    assert done.returncode == 2
    assert "no latents of its own" in done.stderr
