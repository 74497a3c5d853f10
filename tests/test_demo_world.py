"""Data, captions and measures of the demo model (tools/train_demo), which need nothing but NumPy."""

from __future__ import annotations

import ideal
import numpy as np
import pytest
from captions import LEADS, WORDS, caption
from clips import make_clip
from hypothesis import given
from hypothesis import strategies as st
from measures import AREAS, bounce_times, click_times, read_clip, shape_of
from scenes import (
    BACKGROUNDS,
    COLOURS,
    FPS,
    FRAMES,
    MOTIONS,
    SHAPES,
    SIZE,
    SOUNDS,
    UNREADABLE,
    Item,
    Scene,
    background_image,
    depth_inside,
    render_pictures,
    sample_scene,
)
from sounds import HIGH_RATE, LOW_RATE, render_sound


def test_a_seed_is_a_clip():
    for seed in (0, 7, 10**9):
        a, b = make_clip(seed), make_clip(seed)
        np.testing.assert_array_equal(a.pictures, b.pictures)
        np.testing.assert_array_equal(a.wave, b.wave)
        assert (a.caption, a.scene) == (b.caption, b.scene)
        assert a.pictures.shape == (FRAMES, SIZE, SIZE, 3) and a.pictures.dtype == np.uint8
        assert a.wave.shape == (round(FRAMES / FPS * LOW_RATE),) and np.abs(a.wave).max() <= 1


def test_scenes_cover_the_world():
    scenes = [sample_scene(np.random.default_rng(seed)) for seed in range(3000)]
    items = [item for scene in scenes for item in scene.items]
    assert {item.colour for item in items} == set(COLOURS)
    assert {item.shape for item in items} == set(SHAPES)
    assert {item.motion for item in items} == set(MOTIONS)
    assert {scene.background for scene in scenes} == set(BACKGROUNDS)
    assert {scene.sound for scene in scenes} == set(SOUNDS)
    assert not any((item.colour, scene.background) in UNREADABLE for scene in scenes for item in scene.items)
    assert 0.08 < np.mean([len(scene.items) == 2 for scene in scenes]) < 0.16
    assert all(item.motion == "bounce" for scene in scenes if scene.sound == "click" for item in scene.items)


@given(st.integers(0, 2**32))
def test_captions_say_what_is_said(seed):
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng)
    text = caption(scene, rng)
    small = text.lower()
    for item in scene.items:
        assert item.colour in small
        assert any(word in small for word in WORDS[item.shape])
        if item.size_said:
            assert any(word in small for word in WORDS[item.size])
    if len(scene.items) == 1:
        assert any(words in small for words in WORDS[scene.items[0].motion])
    assert any(words in small for words in WORDS[scene.background]) or not scene.background_said
    assert any(words in small for words in WORDS[scene.sound]) or not scene.sound_said
    assert not any(small.startswith(words * 2) for _, words in LEADS)


@pytest.mark.parametrize("shape", SHAPES)
def test_areas(shape):
    rows, columns = np.mgrid[-250:250, -250:250].astype(np.float32) + 0.5
    area = (depth_inside(shape, columns, rows, 200) > 0).sum()
    assert abs(area / (AREAS[shape] * 200**2) - 1) < 0.005


def wanted(scene):
    item = scene.items[0]
    silent = scene.sound == "click" and not scene.hits
    return {
        "background": scene.background,
        "colour": item.colour,
        "shape": item.shape,
        "motion": item.motion,
        "sound": "silence" if silent else scene.sound,
    }


@pytest.mark.by_day(0)
def test_the_reader_is_right():
    """On clips as they are drawn: at least 99 % of each attribute."""
    wrong, count = dict.fromkeys(("background", "colour", "shape", "motion", "sound"), 0), 0
    for seed in range(5 * 10**8, 5 * 10**8 + 130):
        clip = make_clip(seed)
        if len(clip.scene.items) > 1:
            continue
        count += 1
        reading = read_clip(clip.pictures, clip.wave, LOW_RATE)
        for name, value in wanted(clip.scene).items():
            wrong[name] += getattr(reading, name) != value
    print(count, wrong)
    assert count > 100 and max(wrong.values()) <= 0.01 * count


def scene_of(**more):
    values = {"colour": "red", "shape": "circle", "size": "medium", "motion": "still", "background": "dark"} | more
    background = values.pop("background")
    return Scene([Item(**values)], background, more.get("sound", "silence"))


def test_the_reader_does_not_guess():
    """What is not there is "none", and what was cut or bent is another shape."""
    empty = np.broadcast_to(background_image("navy").astype(np.uint8), (FRAMES, SIZE, SIZE, 3))
    reading = read_clip(empty, np.zeros(LOW_RATE, np.float32), LOW_RATE)
    assert (reading.background, reading.colour, reading.shape, reading.motion) == ("navy", "none", "none", "none")
    assert reading.sound == reading.pitch == "silence"
    rows, columns = np.mgrid[:SIZE, :SIZE]
    ellipse = ((rows - 64) / 14) ** 2 + ((columns - 64) / 40) ** 2 < 1
    assert shape_of(np.broadcast_to(ellipse, (FRAMES, SIZE, SIZE)))[1] < 0.75


def test_still_pictures_and_reversed_motion():
    pictures = render_pictures(scene_of(motion="right"), np.random.default_rng(1))
    silence = np.zeros(LOW_RATE, np.float32)
    assert read_clip(pictures, silence, LOW_RATE).motion == "right"
    assert read_clip(pictures[::-1], silence, LOW_RATE).motion == "left"
    assert read_clip(np.repeat(pictures[:1], FRAMES, 0), silence, LOW_RATE).motion == "still"


@pytest.mark.by_day(4)
@pytest.mark.parametrize("rate", [LOW_RATE, HIGH_RATE])
@pytest.mark.parametrize("sound", SOUNDS)
def test_sounds_are_read_at_both_rates(sound, rate):
    scene = scene_of(motion="bounce")
    scene.sound = sound
    scene.hits = [0.3, 0.9, 1.5]
    wave = render_sound(scene, FRAMES / FPS, rate)
    assert read_clip(render_pictures(scene_of(), np.random.default_rng(0)), wave, rate).sound == sound
    if sound == "click":
        np.testing.assert_allclose(click_times(wave, rate), scene.hits, atol=0.011)


def test_clicks_come_with_bounces():
    scene = scene_of(motion="bounce")
    pictures = render_pictures(scene, np.random.default_rng(3))
    masks = read_clip(pictures, np.zeros(LOW_RATE, np.float32), LOW_RATE).masks
    found = bounce_times(masks)
    inside = [hit for hit in scene.hits if 0.1 < hit < FRAMES / FPS - 0.2]
    assert inside and all(min(abs(hit - time) for time in found) < 0.1 for hit in inside)


@pytest.mark.by_day(6)
@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_dented_clip_is_redrawn(shape, motion):
    """As it was before blur and a stain; where there is nothing, or two shapes, nothing is."""
    scene = scene_of(shape=shape, motion=motion, background="dusk")
    pictures = render_pictures(scene, np.random.default_rng(5))
    np.testing.assert_allclose(ideal.redrawn(pictures, scene), pictures, atol=40)
    assert np.abs(ideal.redrawn(pictures, scene).astype(float) - pictures).mean() < 0.2
    dented = pictures.astype(np.float32)
    dented = sum(np.roll(dented, k, axis) for k in (-1, 0, 1) for axis in (1, 2)) / 6
    dented[:, 2:9, 2:9] = COLOURS["red"]
    again = ideal.redrawn(np.rint(dented).astype(np.uint8), scene)
    assert np.abs(again.astype(float) - pictures).mean() < 1
    empty = np.broadcast_to(background_image("dusk").astype(np.uint8), pictures.shape)
    assert ideal.redrawn(empty, scene) is None
    assert ideal.redrawn(pictures, Scene(scene.items * 2, "dusk", "silence")) is None
