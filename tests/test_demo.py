"""The built-in model does what prompts say: the whole way from words to pictures and sound, read by measures.py."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
from evaluate import Prompt, Score, prompts, reading_of, right
from measures import read_clip
from scenes import FRAMES, SIZE
from sheets import strip

import sdltx

CLIPS = 12
# Nothing of it was in a caption that it was trained on.
FOREIGN = [
    "A red fox walks slowly across a snowy forest. We hear wind and distant thunder.",
    "赤い丸が右に動く",
    "🦊🔥 \u202eabc\x07",
    "circle " * 400,
    "red blue green circle square triangle star up down left right",
    "SELECT * FROM clips; <bos><pad>",
]


@pytest.fixture(scope="module")
def asked() -> list[Prompt]:
    """Prompts that name everything; neither they nor their seeds were trained on."""
    wanted = ("colour", "motion", "pitch", "background", "shape")
    return [p for p in prompts(60, first_seed=8 * 10**8) if all(name in p.wanted for name in wanted)][:CLIPS]


@pytest.fixture(scope="module")
def clips(asked) -> list[sdltx.Video]:
    """What becomes of them by the command's own defaults."""
    with sdltx.load() as pipe:
        return [pipe.generate(prompt.text, seed=prompt.seed) for prompt in asked]


@pytest.mark.by_day(0)
def test_clips_follow_their_prompts(asked, clips):
    """Colour, motion and pitch of at least 10 of 12."""
    assert len(asked) == CLIPS
    score = Score()
    for prompt, video in zip(asked, clips, strict=True):
        assert video.frames.shape == (FRAMES, SIZE, SIZE, 3)
        score.add(right(prompt, reading_of(video)), 0)
    print({name: score.hits[name] for name in score.counts})
    for name in ("colour", "motion", "pitch"):
        assert score.hits[name] >= 10, name


@pytest.mark.by_day(0)
def test_the_words_are_what_it_follows(asked, clips):
    """The control: read against the prompts of other clips, most is wrong."""
    readings = [reading_of(video) for video in clips]
    wrong = Score()
    for k in range(CLIPS):
        wrong.add(right(asked[k], readings[(k + 5) % CLIPS]), 0)
    print({name: wrong.hits[name] for name in wrong.counts})
    assert all(wrong.hits[name] < 8 for name in ("colour", "motion", "pitch"))


@pytest.mark.by_day(3)
@pytest.mark.parametrize("prompt", FOREIGN)
def test_prompts_of_another_world_give_a_clip(demo, prompt):
    """Something of its own small world, and never an error."""
    video = demo.generate(prompt, seed=1, num_inference_steps=4)
    frames = np.asarray(video.frames)
    assert frames.shape == (FRAMES, SIZE, SIZE, 3)
    assert np.isfinite(video.audio).all()
    read_clip(frames, np.asarray(video.audio).mean(0), video.sample_rate)


def test_what_it_says_of_itself(demo):
    note = demo.info["note"]
    for words in ("8 colours", "4 shapes", "8 motions", "6 backgrounds", "10 sounds", "not a sample of LTX-2.3"):
        assert words in note
    assert note.endswith(".") and ". " not in note  # one sentence


def test_strips(demo):
    """What contact sheets are made of."""
    video = demo.generate("a red circle stays still on a navy background, with a low hum", seed=3)
    picture = strip(np.asarray(video.frames), np.asarray(video.audio).mean(0), video.sample_rate)
    assert picture.shape == (SIZE + 24, 5 * SIZE, 3)
    np.testing.assert_array_equal(picture[:SIZE, :SIZE], video.frames[0])
    sound = picture[SIZE:, :, 0].astype(int)
    assert sound[-6:].mean() > sound[:6].mean()  # a hum is low


def test_it_is_small(tmp_path):
    """12 MB at most, as a wheel has it."""
    wheel = tmp_path / "demo.zip"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sdltx._demo.FOLDER.rglob("*"):
            packed.write(path)
    assert 10e6 < wheel.stat().st_size <= 12e6
