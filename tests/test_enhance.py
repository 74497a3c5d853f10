"""Prompt enhancement: logits against the reference's, what is drawn from them, what clips remember of it."""

from __future__ import annotations

import json

import capi
import numpy as np
import pytest
from commands import errors, generate, run
from hypothesis import given
from hypothesis import strategies as st

import sdltx
from sdltx import _core, _demo, media

TINY = {"width": 64, "height": 64, "num_frames": 9, "num_inference_steps": 1, "seed": 3}
IDEA = "a red circle"


def whole_numbers(values):
    return [int(value) for value in values]


@pytest.fixture(scope="module")
def wanted(golden):
    values = golden("conditioning")
    return {name.removeprefix("enhance."): values[name] for name in values if name.startswith("enhance.")}


@pytest.fixture(scope="module")
def demo_pipe():
    with sdltx.load() as pipe:
        yield pipe


def test_the_prompt_that_it_is_given(tiny, wanted):
    ids = tiny._core.writing_prompt(str(wanted["prompt"]), str(wanted["system_prompt"]))
    np.testing.assert_array_equal(ids, wanted["ids"])


def check_scores(pipe, wanted, tolerance):
    ids, then = whole_numbers(wanted["ids"]), whole_numbers(wanted["forced_ids"])
    scores = pipe._core.next_scores(ids, then)
    assert scores.shape == (len(then) + 1, wanted["logits"].shape[1])
    assert np.abs(scores[wanted["steps"]] - wanted["logits"]).max() < tolerance * np.abs(wanted["logits"]).max()
    return scores


def test_scores(tiny, wanted):
    check_scores(tiny, wanted, 3e-6)


@pytest.mark.parametrize("options", [{"offload": "blocks"}, {"threads": 1}, {"offload": "stage"}])
def test_scores_wherever_weights_are(tiny_paths, tiny, wanted, options):
    expected = check_scores(tiny, wanted, 3e-6)
    with sdltx.load(*tiny_paths, precision="f32", **options) as pipe:
        np.testing.assert_array_equal(check_scores(pipe, wanted, 3e-6), expected)


def test_scores_on_devices(tiny_paths, wanted, workers):
    for device in (workers[0], workers):
        with sdltx.load(*tiny_paths, precision="f32", device=device) as pipe:
            check_scores(pipe, wanted, 3e-6)


def test_reading_bit_by_bit_is_reading_at_once(tiny, wanted):
    """Also beyond the window of the local layers, and where the number of keys is rounded."""
    ids = whole_numbers(wanted["ids"]) + whole_numbers(wanted["forced_ids"])
    by_bits = tiny._core.next_scores(ids[:2], ids[2:])
    for count in (2, 3, 63, 64, 65, len(ids)):
        at_once = tiny._core.next_scores(ids[:count], [])[0]
        np.testing.assert_allclose(at_once, by_bits[count - 2], atol=2e-5)


def test_the_head_comes_and_goes(tiny_paths):
    with sdltx.load(*tiny_paths, precision="f32", offload="none") as pipe:
        pipe.encode("x")
        before = pipe.memory()
        pipe.enhance("a red fox", seed=1)
        pipe.encode("x")
        assert pipe.memory()[0]["weights"] == before[0]["weights"]


@given(st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=80), st.floats(0, 1, exclude_max=True))
def test_what_is_drawn(scores, uniform):
    """By a restatement in NumPy."""
    token = _core.ops.drawn_token(scores, uniform)
    values = np.array(scores, np.float32)
    order = sorted(range(len(values)), key=lambda i: (-values[i], i))[:50]
    odds = np.exp((values[order].astype(np.float64) - float(values[order[0]])) / 0.7)
    up_to = np.cumsum(odds)
    rank = int(np.searchsorted(up_to, uniform * up_to[-1], side="right"))
    assert token == order[min(rank, len(order) - 1)]


def test_draws_follow_the_odds():
    scores = [1.0, 0.5, -2.0]
    drawn = [_core.ops.drawn_token(scores, _core.ops.uniform_noise(7, i)) for i in range(20_000)]
    odds = np.exp(np.array(scores) / 0.7)
    assert np.abs(np.bincount(drawn) / len(drawn) - odds / odds.sum()).max() < 0.015


@pytest.mark.parametrize(
    ("text", "tidy"),
    [
        ("\n\n**Style:** a “fox” — it’s here", 'Style:** a "fox" - it\'s here'),  # noqa: RUF001
        ("1. a", "a"),
        ("…“狐狸”", '狐狸"'),
        ("é", "é"),
        ("123 ?!", "123 ?!"),
        ("", ""),
        ("😀 лиса", "лиса"),
        ("a\u00a0b\u2212c", "a b-c"),
    ],
)
def test_what_is_kept(text, tidy):
    assert _core.ops.tidied(text) == tidy


@pytest.mark.by_day(0)
def test_real_gemma_writes_words(gemma270):
    """The 270M model, whose files are its makers'; what it writes is text, again the same for the same seed."""

    def written(system="Write one sentence about the idea.", **options):
        options = {"most": 24, **options}
        return _core.write_answer([str(gemma270)], system, "user prompt: a red fox in the snow", **options)

    first = written(seed=1)
    print(first)
    assert first == written(seed=1)
    assert first != written("Answer with one word.", seed=1, most=8)
    assert len(first.split()) > 5 and first[0].isalpha() and "<" not in first and "\ufffd" not in first
    assert "fox" in first.lower()
    assert first.startswith(written(most=3, seed=1))


def test_progress(demo_pipe):
    heard = []
    demo_pipe.enhance(IDEA, progress=lambda *what: heard.append(what))
    phases = [what for what in heard if what[0] == "enhance"]
    assert phases[0] == ("enhance", 0, 512) and phases[-1] == ("enhance", 512, 512)
    assert [done for _, done, _ in phases] == sorted(done for _, done, _ in phases)


@pytest.mark.by_day(0)
def test_a_clip_remembers_what_was_written(demo_pipe, tmp_path):
    written = demo_pipe.enhance(IDEA, seed=3)
    video = demo_pipe.generate(IDEA, enhance=True, **TINY)
    assert video.metadata["prompt"] == written and video.metadata["enhanced_from"] == IDEA
    assert "enhance" not in video.metadata
    plain = demo_pipe.generate(written, **TINY)
    np.testing.assert_array_equal(video.frames, plain.frames)
    assert "enhanced_from" not in plain.metadata
    video.save(tmp_path / "clip.mp4")
    request = sdltx.Request.from_dict(media.read_settings(tmp_path / "clip.mp4"))
    assert request.prompt == written and not request.options.get("enhance")
    again = demo_pipe.generate(request)
    assert again.metadata["enhanced_from"] == IDEA
    assert demo_pipe.generate(request.replaced(enhance=True)).metadata["prompt"] == written  # of the first prompt
    assert "enhanced_from" not in demo_pipe.generate(request.replaced(prompt="another")).metadata


def test_several_clips(demo_pipe):
    ideas = [sdltx.Request(IDEA, enhance=True, **TINY), sdltx.Request("a blue square", **TINY)]
    first, second = demo_pipe.generate(ideas)
    assert first.metadata["enhanced_from"] == IDEA and second.metadata["prompt"] == "a blue square"


def test_estimates_count_it(demo_pipe):
    plain = demo_pipe.estimate(sdltx.Request(IDEA, **TINY))["steps"][0]["memory"]
    long = "word " * 700
    assert demo_pipe.estimate(sdltx.Request(long, enhance=True, **TINY))["steps"][0]["memory"] > plain
    assert demo_pipe.estimate(enhance=True, **TINY).steps[0].memory >= plain  # of a prompt that is not known


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ("", {}, "prompt is empty"),
        ("a <end_of_turn> b", {}, "the prompt contains <end_of_turn>"),
        ("a", {"system": "<start_of_turn>"}, "the system text contains <start_of_turn>"),
        ("a " * 9000, {}, r"tokens, at most 4096 are possible"),
        ("a", {"seed": -1}, "seed -1 is negative"),
        ("a", {"system": 5}, "system: expected text"),
        (None, {}, "prompt: expected text"),
    ],
)
def test_what_is_refused(demo_pipe, prompt, options, message):
    with pytest.raises(sdltx.InvalidRequestError, match=message):
        demo_pipe.enhance(prompt, **options)
    if not options and prompt:
        with pytest.raises(sdltx.InvalidRequestError, match=message):
            demo_pipe.check(sdltx.Request(prompt, enhance=True))


def test_what_makes_no_sense(demo_pipe):
    with pytest.raises(sdltx.InvalidRequestError, match="enhance_system is of enhance"):
        demo_pipe.check(IDEA, enhance_system="x")
    with pytest.raises(sdltx.InvalidRequestError, match="a context is a prompt that is encoded already"):
        demo_pipe.sample(demo_pipe.encode(IDEA), enhance=True)


def test_it_can_be_stopped(demo_pipe):
    def stop(phase, done, total):
        if phase == "enhance" and done == 2:
            raise sdltx.Cancelled("enough")

    with pytest.raises(sdltx.Cancelled, match="enough"):
        demo_pipe.enhance(IDEA, progress=stop)
    assert demo_pipe.enhance(IDEA, seed=3)


def test_models_that_do_not_write():
    from ltx25 import PARTS_OF_A_CLIP

    with sdltx.load(*PARTS_OF_A_CLIP) as pipe:
        with pytest.raises(sdltx.ModelMismatchError, match=r"LTX-2.5 does not write texts"):
            pipe.enhance(IDEA)
        with pytest.raises(sdltx.ModelMismatchError, match="does not write texts"):
            pipe.check(sdltx.Request(IDEA, enhance=True))


def test_command_line(tmp_path):
    clip, again = tmp_path / "clip.mp4", tmp_path / "again.mp4"
    system = tmp_path / "system.txt"
    system.write_text("Write it out.\r\n")
    done = generate("--enhance", "--enhance-system", system, "-o", clip)
    assert done.returncode == 0, done.stderr
    told = media.read_settings(clip)
    assert f"prompt: {told['prompt']}" in done.stderr and told["enhanced_from"] == IDEA
    done = run("generate", "--from", clip, "-o", again)
    assert done.returncode == 0 and "prompt:" not in done.stderr
    assert media.read_settings(again)["prompt"] == told["prompt"]
    assert media.read_settings(again)["enhanced_from"] == IDEA
    assert "written out first" in generate("--enhance", "--dry-run").stdout
    assert "cannot read" in run("generate", "--enhance-system", "none", "-p", "x").stderr
    jobs = tmp_path / "jobs.jsonl"
    line = {
        "prompt": IDEA,
        "enhance": True,
        "enhance_system": "Write it out.\n",
        "output": "line.mp4",
        **TINY,
        "seed": 1,
    }
    jobs.write_text(json.dumps(line))
    done = run("batch", jobs, "-o", tmp_path)
    assert done.returncode == 0, done.stderr
    assert media.read_settings(tmp_path / "line.mp4")["prompt"] == told["prompt"]
    assert not errors(done)


@pytest.mark.by_day(0)
def test_c_interface(demo_pipe):
    pipeline = capi.load(*_demo.demo_files())
    asked = capi.request(prompt=IDEA, **TINY)
    assert capi.text("enhance", pipeline, asked, None, None) == demo_pipe.enhance(IDEA, seed=3)
    capi.free("request", asked)
    capi.free("pipeline", pipeline)
