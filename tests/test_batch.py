"""Several clips at once: each part of the model loaded once, failures that stay where they are, batches that go on."""

from __future__ import annotations

import copy
import fcntl
import json
import os
import pickle
import signal
import subprocess
import sys

import numpy as np
import pytest
from commands import errors, names, run

import sdltx
from sdltx.cli import main
from sdltx.contexts import ContextCache
from sdltx.jobs import VideoJob

SMALL = {"width": 64, "height": 64, "num_frames": 9, "num_inference_steps": 2, "seed": 1}


class Loads:
    """Counts how often weights are brought in, and what is done in which order."""

    def __init__(self):
        self.phases = []

    def __call__(self, phase, done, total):
        if done == 0 and (phase != "load" or total):
            self.phases.append(phase)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(path, *lines):
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    return path


def test_clips_of_a_list_are_those_made_alone(demo):
    wanted = ["a red circle", sdltx.Request("a blue square", **{**SMALL, "seed": 2, "audio": False})]
    together = demo.generate(wanted, **{name: value for name, value in SMALL.items() if name != "seed"})
    assert [clip.audio is None for clip in together] == [False, True]
    for one, clip in zip(wanted, together, strict=True):
        seed = clip.metadata["seed"]
        alone = (
            demo.generate(one, **{**SMALL, "seed": seed})
            if isinstance(one, str)
            else demo.generate(one.replaced(seed=2))
        )
        np.testing.assert_array_equal(clip.frames, alone.frames)
        assert clip.metadata == alone.metadata


@pytest.mark.by_day(0)
def test_each_part_is_loaded_once_in_a_batch_of_ten(tiny_paths):
    """With weights that stay for one stage only, of a guided clip with prompts of its own."""
    with sdltx.load(*tiny_paths, offload="stage") as pipe:
        loads = Loads()
        guided = {"guidance_scale": 3.0, "negative_prompt": "noise"}
        pipe.generate([f"clip {i}" for i in range(10)], **SMALL, **guided, progress=loads)
    assert loads.phases.count("load") == 3
    order = [phase for phase in loads.phases if phase != "load"]
    assert order == ["encode"] * 11 + ["denoise"] * 10 + ["decode", "sound"] * 10  # the negative prompt once


def test_a_guided_clip_of_two_stages_loads_each_part_once(tiny_paths, tiny_dir):
    files = {"upscaler": tiny_dir / "tiny-spatial-upscaler-x2.safetensors", "width": 128, "height": 64}
    with sdltx.load(*tiny_paths, offload="stage") as pipe:
        loads = Loads()
        pipe.generate("a", **{**SMALL, **files}, guidance_scale=3.0, negative_prompt="b", progress=loads)
    # Of the text encoder for both prompts, the transformer for both stages, the upscaler, the decoders.
    assert loads.phases == [
        *("load", "encode", "encode"),
        *("load", "denoise", "load", "upscale", "denoise"),
        *("load", "decode", "sound"),
    ]


def test_failures_stay_where_they_are(demo):
    class Failing(VideoJob):
        def on_denoised(self):
            super().on_denoised()
            raise sdltx.BackendError("[test] no")

    requests = [sdltx.Request(prompt, **SMALL) for prompt in "abc"]
    jobs = [VideoJob(requests[0]), Failing(requests[1]), VideoJob(requests[2])]
    demo.run(jobs)
    assert [job.error is None for job in jobs] == [True, False, True]
    assert str(jobs[1].error) == "[test] no"
    assert jobs[1].latents is not None  # what was finished stays
    assert jobs[0].video.frames.shape == jobs[2].video.frames.shape == (9, 64, 64, 3)


def test_a_request_that_cannot_be_is_told_with_the_others_done(demo):
    wrong = sdltx.Request("b", **SMALL, conditions=[sdltx.Condition(np.zeros((8, 8, 3), np.uint8), 99)])
    found = demo.generate(["a", wrong], **SMALL, return_exceptions=True)
    assert isinstance(found[0], sdltx.Video)
    assert isinstance(found[1], sdltx.InvalidRequestError)
    with pytest.raises(sdltx.InvalidRequestError, match="there is no frame 99"):
        demo.generate(["a", wrong], **SMALL)


@pytest.mark.by_day(4)
@pytest.mark.parametrize(
    "method",
    ["on_started", "on_step", "on_encoded", "on_denoised", "on_sound", "on_frames", "on_decoded", "on_finished"],
)
def test_other_exceptions_end_the_run(demo, method):
    class Stopping(VideoJob):
        pass

    def stop(*_):
        raise KeyboardInterrupt

    setattr(Stopping, method, stop)
    with pytest.raises(KeyboardInterrupt):
        demo.run([Stopping(sdltx.Request("a", **SMALL)), VideoJob(sdltx.Request("b", **SMALL))])
    assert isinstance(demo.generate("a", **SMALL), sdltx.Video)  # the pipeline is in order


def test_a_request_that_no_model_could_do_fails_alone(demo):
    found = demo.generate(["a", sdltx.Request("b", width=65)], **SMALL | {"width": None}, return_exceptions=True)
    assert isinstance(found[0], sdltx.Video)
    assert isinstance(found[1], sdltx.InvalidRequestError)


def test_requests_are_only_read():
    request = sdltx.Request("a", **SMALL)
    with pytest.raises(AttributeError, match="replaced"):
        request.prompt = "b"
    with pytest.raises(TypeError):
        request.options["width"] = 5
    for again in (copy.deepcopy(request), pickle.loads(pickle.dumps(request))):
        assert again.to_dict() == request.to_dict()
        with pytest.raises(TypeError):
            again.options["width"] = 5
    lists = sdltx.Request("a", stg_blocks=[1], sigmas=[1, 0], loras=["x"], upscaler=["u"])
    assert all(isinstance(value, tuple) for value in lists.options.values())
    assert lists.to_dict()["loras"] == [["x", 1.0]]


@pytest.mark.parametrize("as_pillow", [False, True])
def test_a_request_keeps_what_it_was_given(as_pillow):
    from PIL import Image

    pixels = np.zeros((8, 8, 3), np.uint8)
    picture = Image.fromarray(pixels) if as_pillow else pixels
    noise, sigmas = np.zeros((128, 2, 2, 2), np.float32), [1.0, 0.0]
    request = sdltx.Request("a", image=picture, noise=sdltx.Latents(noise), sigmas=sigmas).replaced(seed=1)
    if as_pillow:
        picture.putpixel((0, 0), (9, 9, 9))
    pixels[:] = noise[:] = 9
    sigmas.append(5)
    assert not request.conditions[0].image.any()
    assert not request.noise.video.any()
    assert request.options["sigmas"] == (1.0, 0.0)
    with pytest.raises(ValueError, match="read-only"):
        request.conditions[0].image[0] = 1
    with pytest.raises(sdltx.InvalidRequestError, match="start noise"):
        request.to_dict()
    with pytest.raises(sdltx.InvalidRequestError, match="picture that is no file"):
        sdltx.Request("a", image=pixels).to_dict()
    with pytest.raises(sdltx.InvalidRequestError, match="expected a file"):
        sdltx.Request("a", image=np.zeros(3))


def test_what_is_no_job(demo):
    job = VideoJob(sdltx.Request("a", **SMALL))
    for jobs, words in ((["a"], "jobs: expected Job"), ([job, job], "twice")):
        with pytest.raises(sdltx.InvalidRequestError, match=words):
            demo.run(jobs)
    for jobs in (None, job, "ab", {"a": 1}, 5):
        with pytest.raises(sdltx.InvalidRequestError, match="jobs: expected a list"):
            demo.run(jobs)
    for wrong in ({"context": 5}, {"negative": "a"}, {"latents": np.zeros(3)}):
        with pytest.raises(sdltx.InvalidRequestError, match=f"{next(iter(wrong))}: expected"):
            VideoJob(sdltx.Request("a"), **wrong)
    with pytest.raises(sdltx.InvalidRequestError, match="request: expected"):
        VideoJob("abc")
    for prompts in (b"abc", {"prompt": "a"}, 5):
        with pytest.raises(sdltx.InvalidRequestError, match="expected text, a Request"):
            demo.generate(prompts)
    assert demo.generate([]) == []
    demo.run([])


def test_a_job_that_fails_at_its_end(demo):
    class Failing(VideoJob):
        def on_finished(self):
            raise OSError(28, "full")

    jobs = [Failing(sdltx.Request("a", **SMALL)), VideoJob(sdltx.Request("b", **SMALL))]
    demo.run(jobs)
    demo.run(job for job in jobs[1:])  # once more
    assert isinstance(jobs[0].error, OSError)
    assert jobs[1].error is None


def test_a_job_that_failed_while_it_was_decoded_is_run_again(demo):
    class Failing(VideoJob):
        fails = True

        def on_frames(self, frames):
            super().on_frames(frames)
            if self.fails:
                raise OSError(28, "full")

    job = Failing(sdltx.Request("a", **SMALL))
    demo.run([job])
    assert isinstance(job.error, OSError)
    assert job.video is None
    Failing.fails = False
    demo.run([job])
    assert job.error is None
    np.testing.assert_array_equal(job.video.frames, demo.generate("a", **SMALL).frames)


def test_a_clip_that_was_denoised_before_is_only_decoded(demo):
    latents = demo.sample(demo.encode("a"), **SMALL)
    loads = Loads()
    job = VideoJob(sdltx.Request("a", **SMALL), latents=latents)
    demo.run([job], progress=loads)
    assert set(loads.phases) <= {"load", "decode", "sound"}
    np.testing.assert_array_equal(job.video.frames, demo.decode(latents).frames)


def test_the_whole_progress_grows_to_one(demo):
    seen = []
    demo.generate(["a", "b"], **SMALL, progress=lambda *_: seen.append(demo.whole_progress))
    fractions = [fraction for fraction, _ in seen]
    assert fractions == sorted(fractions)
    assert fractions[0] == 0
    assert demo.whole_progress == (1, 0)
    assert any(left is not None and left > 0 for _, left in seen)


def test_requests_are_json(demo, tmp_path):
    picture = tmp_path / "a.png"
    from PIL import Image

    Image.new("RGB", (8, 8), (200, 0, 0)).save(picture)
    request = sdltx.Request(
        "a", negative_prompt="b", image=picture, tiling=sdltx.Tiling(64, 32, 16, 8), guidance_scale=2, **SMALL
    )
    told = json.loads(json.dumps(request.to_dict()))
    again = sdltx.Request.from_dict(told)
    assert again.to_dict() == told
    clip = demo.generate(request)
    np.testing.assert_array_equal(demo.generate(again).frames, clip.frames)
    # What a clip remembers is a request, too.
    remembered = sdltx.Request.from_dict(json.loads(json.dumps(dict(clip.metadata))))
    np.testing.assert_array_equal(demo.generate(remembered).frames, clip.frames)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({}, "no prompt"),
        ({"prompt": "a", "widht": 3}, "no option widht"),
        ({"prompt": "a", "width": "3"}, "width: expected a whole number"),
        ({"prompt": 5}, "prompt: expected text"),
        ({"prompt": "a", "images": 3}, "images: expected a list"),
        ({"prompt": "a", "images": [{"frame": 3}]}, "a picture that it does not name"),
        ({"prompt": "a", "images": [{"path": "x", "size": 3}]}, "images: there is no size"),
        ({"prompt": "a", "tiling": [1, 2]}, "tiling: expected four numbers"),
        ({"prompt": "a", "loras": "x"}, "loras: expected paths with strengths"),
        ({"prompt": "a", "noise": True}, "values that were given to Python .noise."),
        ([], "expected an object"),
    ],
)
def test_requests_that_are_none(told, words):
    with pytest.raises(sdltx.InvalidRequestError, match=words):
        sdltx.Request.from_dict(told)


def test_paths_of_a_request_are_seen_from_its_folder(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "l.safetensors").write_bytes(b"")
    told = {
        "prompt": "a",
        "images": [{"path": "a.png"}],
        "loras": [["l.safetensors", 0.5]],
        "upscaler": "l.safetensors",
    }
    request = sdltx.Request.from_dict(told, lambda path: str(tmp_path / path))
    assert request.conditions[0].image == str(tmp_path / "a.png")
    assert request.options["loras"] == ((str(tmp_path / "l.safetensors"), 0.5),)
    assert request.options["upscaler"] == (str(tmp_path / "l.safetensors"),)


def test_contexts_are_kept(demo, tmp_path):
    cache = ContextCache(demo, tmp_path)
    assert cache.load("a") is None
    context = demo.encode("a")
    cache.save("a", context)
    again = cache.load("  a ")  # as it is encoded
    np.testing.assert_array_equal(again.video, context.video)
    np.testing.assert_array_equal(again.audio, context.audio)
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"broken")
    assert cache.load("a") is None


def test_contexts_make_room(demo, tmp_path):
    context = demo.encode("a")
    size = context.video.nbytes + context.audio.nbytes
    cache = ContextCache(demo, tmp_path, limit=int(2.5 * size))
    for number, prompt in enumerate("abcd"):
        cache.save(prompt, context)
        os.utime(max(tmp_path.iterdir(), key=lambda file: file.stat().st_mtime_ns), (number, number))
    assert [cache.load(prompt) is not None for prompt in "abcd"] == [False, False, True, True]


def test_contexts_of_other_models_are_others(demo, tiny, tmp_path):
    ContextCache(demo, tmp_path).save("a", demo.encode("a"))
    assert ContextCache(tiny, tmp_path).load("a") is None


def test_batch(tmp_path, cache):
    jobs = write(
        tmp_path / "jobs.jsonl",
        {"prompt": "a red circle", **SMALL},
        {"prompt": "a blue square", **SMALL, "output": "square.webm"},
        {"prompt": "rain", **SMALL, "output": "rain.wav"},
    )
    done = run("batch", jobs, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert names(tmp_path / "out") == [".sdltx-batch", "0001.mp4", "rain.wav", "square.webm"]
    assert names(tmp_path / "out" / ".sdltx-batch") == ["lock", "state.json"]
    alone = run(
        "generate",
        "-p",
        "a red circle",
        "-W",
        64,
        "-H",
        64,
        "--frames",
        9,
        "--steps",
        2,
        "-s",
        1,
        "-o",
        tmp_path / "x.mp4",
    )
    assert alone.returncode == 0
    assert (tmp_path / "x.mp4").read_bytes() == (tmp_path / "out" / "0001.mp4").read_bytes()
    assert not (cache / "sdltx" / "contexts").exists()  # the encoder is small
    before = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in ("0001.mp4", "rain.wav")}
    again = run("batch", jobs, "-o", tmp_path / "out")
    assert again.returncode == 0
    assert "3 of 3 clips are there already" in again.stderr
    assert before == {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in before}


def test_a_batch_with_a_clip_that_fails(tmp_path, cache):
    jobs = write(
        tmp_path / "jobs.jsonl",
        {"prompt": "a", **SMALL},
        {"prompt": "b", **SMALL, "audio": False, "output": "silent.wav"},
        {"prompt": "c", **SMALL},
    )
    done = run("batch", jobs, "-o", tmp_path / "out")
    assert done.returncode == 2
    assert "2 clips made, 1 failed" in done.stderr
    assert names(tmp_path / "out")[1:] == ["0001.mp4", "0003.mp4"]


@pytest.mark.by_day(5)
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"prompt": "a", "widht": 3}', "line 1: [request] there is no option widht"),
        ('{"prompt": "a", "width": 33}', "line 1: [sample] width 33"),
        ('{"prompt": "a", "output": "../x.mp4"}', "line 1: output '../x.mp4'"),
        ('{"prompt": "a", "output": "x.exe"}', "'x.exe' has no suffix"),
        ('{"prompt": "a"', "line 1 is not JSON"),
        ("[" * 100000, "line 1 is not JSON"),
        ("3", "line 1: expected an object"),
        ("", "has no lines"),
        ('{"prompt": "a", "output": "x.mp4"}\n{"prompt": "b", "output": "x.mp4"}', "several lines write x.mp4"),
    ],
)
def test_lines_that_are_wrong(tmp_path, line, words):
    (tmp_path / "jobs.jsonl").write_text(line)
    done = run("batch", tmp_path / "jobs.jsonl", "-o", tmp_path / "out", "-m", "no-such-model")
    assert done.returncode == 2
    (error,) = errors(done)
    assert words in error
    assert not (tmp_path / "out").exists()


def test_a_batch_does_not_write_what_it_reads(tmp_path, cache):
    from PIL import Image

    (tmp_path / "out").mkdir()
    picture = tmp_path / "out" / "a.png"
    Image.new("RGB", (64, 64)).save(picture)
    before = picture.read_bytes()
    still = {**SMALL, "num_frames": 1}
    jobs = write(
        tmp_path / "jobs.jsonl",
        {"prompt": "a", **still, "images": ["out/a.png"], "output": "b.png"},
        {"prompt": "b", **still, "output": "a.png"},
    )
    done = run("batch", jobs, "-o", tmp_path / "out")
    assert done.returncode == 2
    assert "is also an input" in errors(done)[0]
    assert picture.read_bytes() == before


def test_a_batch_with_a_picture_that_is_missing(tmp_path, cache):
    jobs = write(tmp_path / "jobs.jsonl", {"prompt": "a", **SMALL, "images": ["missing.png"]}, {"prompt": "b", **SMALL})
    done = run("batch", jobs, "-o", tmp_path / "out")
    assert done.returncode == 2
    assert "1 clips made, 1 failed" in done.stderr
    assert "there is no file missing.png" in done.stderr
    assert (tmp_path / "out" / "0002.mp4").exists()


def test_two_batches_in_one_folder(tmp_path, cache):
    jobs = write(tmp_path / "jobs.jsonl", {"prompt": "a", **SMALL})
    folder = tmp_path / "out" / ".sdltx-batch"
    folder.mkdir(parents=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = run("batch", jobs, "-o", tmp_path / "out")
    assert done.returncode == 6
    assert "another command" in errors(done)[0]
    assert run("batch", jobs, "-o", jobs).returncode == 2


@pytest.mark.by_day(1)
@pytest.mark.parametrize("moment", ["encode", "denoise", "write"])
def test_a_batch_that_is_killed_goes_on(tmp_path, cache, moment):
    """At three places; also clips whose seeds were drawn are those of the first start."""
    lines = [{"prompt": f"clip {i}", **SMALL, "num_inference_steps": 8} for i in range(4)]
    for line in lines[2:]:
        del line["seed"]
    jobs = write(tmp_path / "jobs.jsonl", *lines)
    code = (
        "import os, signal, sys, sdltx.cli.messages as m\n"
        "show, seen = m.Bars.show, []\n"
        "def killing(self, phase, done, total):\n"
        f"    if phase == {moment!r} and done == total and total: seen.append(1)\n"
        "    if len(seen) == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    show(self, phase, done, total)\n"
        "m.Bars.show = killing\n"
        "from sdltx.cli import main; sys.exit(main())"
    )
    killed = subprocess.run([sys.executable, "-c", code, "batch", str(jobs), "-o", str(tmp_path / "out")], check=False)
    assert killed.returncode == -signal.SIGKILL
    state = json.loads((tmp_path / "out" / ".sdltx-batch" / "state.json").read_text())
    assert len(state["seeds"]) == 2
    kept = len(list((tmp_path / "out" / ".sdltx-batch").glob("*.safetensors")))
    assert kept == {"encode": 0, "denoise": 1, "write": 3}[moment]
    done = run("batch", jobs, "-o", tmp_path / "out", "-v")
    assert done.returncode == 0, done.stderr
    seeds = state["seeds"].values()
    found = [sdltx.media.read_settings(tmp_path / "out" / f"000{i}.mp4")["seed"] for i in (1, 2, 3, 4)]
    assert found[:2] == [1, 1]
    assert set(found[2:]) == set(seeds)
    whole = write(tmp_path / "whole.jsonl", *({**line, "seed": seed} for line, seed in zip(lines, found, strict=True)))
    assert run("batch", whole, "-o", tmp_path / "whole", "--no-cache").returncode == 0
    for i in (1, 2, 3, 4):
        assert (tmp_path / "whole" / f"000{i}.mp4").read_bytes() == (tmp_path / "out" / f"000{i}.mp4").read_bytes()


def test_several_seeds(tmp_path, cache):
    common = ["-p", "a", "-W", 64, "-H", 64, "--frames", 9, "--steps", 1, "-s", 7]
    done = run("generate", *common, "-b", 3, "-o", tmp_path / "a.mp4", "--save-latents", tmp_path / "a.safetensors")
    assert done.returncode == 0, done.stderr
    assert names(tmp_path)[:6] == [f"a_{i}.{kind}" for i in (1, 2, 3) for kind in ("mp4", "safetensors")]
    assert [sdltx.media.read_settings(tmp_path / f"a_{i}.mp4")["seed"] for i in (1, 2, 3)] == [7, 8, 9]
    assert run("generate", *common, "-o", tmp_path / "b.mp4").returncode == 0
    assert (tmp_path / "a_1.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_a_prompt_of_the_cache_gives_the_same_clip(tmp_path, cache, monkeypatch, capsys):
    monkeypatch.setattr(sdltx.contexts, "WORTH_KEEPING", 0)
    size = ["-W", "64", "-H", "64", "--frames", "9", "--steps", "1", "-s", "1", "-v"]
    for name, more, encodes in (("a", [], True), ("b", [], False), ("c", ["--no-cache"], True)):
        assert main(["generate", "-p", "a", *size, "-o", str(tmp_path / f"{name}.mp4"), *more]) == 0
        assert ("encode took" in capsys.readouterr().err) == encodes
        assert len(names(cache / "sdltx" / "contexts")) == 2  # with the negative prompt
    clips = {(tmp_path / f"{name}.mp4").read_bytes() for name in "abc"}
    assert len(clips) == 1
