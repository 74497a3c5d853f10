"""What nobody means: pipes, texts that are no Unicode, numbers that a clip cannot have, files without an end."""

from __future__ import annotations

import json
import os
import resource
import time

import numpy as np
import pytest
from commands import TINY_CLIP, errors, generate, run
from safetensors.numpy import save

import sdltx
from sdltx import media, sound

NO_UNICODE = ("\ud800", "a\udcffb", "\udc80")


@pytest.mark.parametrize("strange", NO_UNICODE)
def test_texts_that_are_no_unicode(strange, tiny, tiny_paths):
    from sdltx.options import ROWS

    for name, row in ROWS.items():
        if row["kind"] in ("choice", "text", "duration"):
            with pytest.raises(sdltx.InvalidRequestError, match="not valid Unicode"):
                sdltx.Request(**{"prompt": "x", name: strange})
    for name in ("device", "precision", "offload"):
        with pytest.raises(sdltx.InvalidRequestError, match=f"{name} is not valid Unicode"):
            sdltx.load(*tiny_paths, **{name: strange})
    with pytest.raises(sdltx.InvalidRequestError, match="device is not valid Unicode"):
        sdltx.load(*tiny_paths, device=["cpu", strange])


def test_a_device_that_is_no_unicode_on_the_command_line(tmp_path):
    done = generate("--device", os.fsdecode(b"\xff"), "-o", tmp_path / "x.mp4")
    assert done.returncode == 2, done.stderr
    assert errors(done) == ["error: [load] the device is not valid Unicode at character 0"]


@pytest.mark.parametrize("suffix", ["mp4", "webm", "gif", "webp", "png", "wav"])
def test_settings_that_are_no_unicode_are_kept(suffix, tmp_path):
    """Letters of other languages are kept as they are, too."""
    settings = {"sdltx_version": "0", "prompt": "a\ud800b", "name": "ünï 狐"}
    path = tmp_path / f"x.{suffix}"
    if suffix == "wav":
        sound.write(path, np.zeros((2, 480), np.float32), 48_000, metadata=settings)
    else:
        with media.VideoWriter(path, 25, metadata=settings) as writer:
            writer.write_frames(np.zeros((1, 16, 16, 3), np.uint8))
    assert media.read_settings(path) == settings


@pytest.mark.by_day(6)
@pytest.mark.parametrize(
    "told",
    [500_000, 2**31, 10**30, -5, 0, "x", "9", True, [], {"a": 1}, float("nan"), float("inf"), None, 2.5, 10],
    ids=str,
)
def test_lengths_that_a_clip_cannot_have(told, demo, tmp_path):
    """Frames that latents say and do not have."""
    clip = {"width": 64, "height": 64, "num_frames": 9, "num_inference_steps": 1, "seed": 1, "preset": "distilled"}
    latents = demo.sample(demo.encode("a red ball"), **clip)
    path = tmp_path / "l.safetensors"
    meta = {"frame_rate": latents.frame_rate, "settings": {**latents.settings, "result_frames": told}}
    path.write_bytes(save({"video": latents.video, "audio": latents.audio}, {"sdltx.latents": json.dumps(meta)}))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    video = demo.decode(sdltx.Latents.load(path))
    assert len(video.frames) == 9
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 300_000


def test_numbers_without_an_end():
    for name in ("seed", "width", "num_inference_steps"):
        with pytest.raises(sdltx.InvalidRequestError, match="of 16610 bits is out of range"):
            sdltx.Request("x", **{name: 10**5000})
    request = sdltx.Request("x", guidance_scale=10**5000)
    assert request.options["guidance_scale"] == float("inf")
    start = time.process_time()
    sdltx.Request.from_dict({"prompt": "x", "sigmas": [0.5] * 200_000})
    assert time.process_time() - start < 2  # it was five


def test_arrays_where_there_should_be_pictures():
    with pytest.raises(sdltx.InvalidRequestError, match="conditions"):
        sdltx.Request("x", conditions=np.zeros(3))


@pytest.fixture
def pipes(tmp_path):
    """A folder in which pipes have the names of what is read."""
    for name in ("f.wav", "f.mp4", "s_0001.png", "t_0010.png", "p.png"):
        os.mkfifo(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--audio", "f.wav"], 2),
        (["--video", "f.mp4", "--foley"], 2),
        (["--from", "s.png"], 2),
        (["--from", "f.mp4"], 2),
        (["-i", "p.png"], 2),
        (["-o", "t.png"], 0),  # what may be left of an older sequence
    ],
    ids=lambda value: str(value[1]) if isinstance(value, list) else "",
)
def test_pipes_are_not_waited_for(arguments, code, pipes):
    output = [] if "-o" in arguments else ["-o", "x.mp4"]
    done = generate(*arguments, *output, cwd=pipes, timeout=60)
    assert done.returncode == code, done.stderr
    assert len(errors(done)) == (code != 0), done.stderr


def test_a_pipe_that_a_clip_remembers_is_not_waited_for(pipes):
    for name in ("sound", "film"):
        told = {"sdltx_version": "9", "prompt": "x", "seed": 1, name: {"path": str(pipes / "f.wav")}}
        sdltx.Latents(np.zeros((4, 1, 1, 1), np.float32), settings=told).save(pipes / "l.safetensors")
        done = run("generate", "--from", pipes / "l.safetensors", *TINY_CLIP[:-2], "-o", pipes / "x.mp4", timeout=60)
        assert done.returncode == 2, done.stderr
        assert len(errors(done)) == 1
    state = pipes / "b" / ".sdltx-batch"
    state.mkdir(parents=True)
    os.mkfifo(state / "state.json")
    (pipes / "j.jsonl").write_text(
        '{"prompt": "a", "width": 64, "height": 64, "num_frames": 9, "num_inference_steps": 1}'
    )
    done = run("batch", pipes / "j.jsonl", "-o", pipes / "b", timeout=60)
    assert "state.json is no regular file" in errors(done)[0]


@pytest.mark.parametrize("option", ["--prompt-file", "--enhance-system"])
def test_texts_without_an_end(option, tmp_path):
    done = run("generate", "-p", "a", "--enhance", option, "/dev/zero", "-o", tmp_path / "x.mp4", timeout=60)
    assert done.returncode == 2
    assert "MiB" in done.stderr or "not" in done.stderr


@pytest.mark.parametrize(
    "text", ["a." * 60_000 + "z=1", "x" * 100_000, "\n".join(f"{'a.' * 90}{i}=1" for i in range(900))]
)
def test_configurations_that_take_long(text, tmp_path, monkeypatch):
    """Keys in keys take the library of TOML time and memory as their square."""
    (tmp_path / "config.toml").write_text(text)
    monkeypatch.setenv("SDLTX_CONFIG", str(tmp_path / "config.toml"))
    start = time.monotonic()
    done = generate("-o", tmp_path / "x.mp4", timeout=60)
    assert done.returncode == 2
    assert errors(done)[0].startswith("error: [config]")
    assert time.monotonic() - start < 20


def test_a_clip_on_a_disk_that_fails_is_one_line(tmp_path):
    """Without tracebacks of what reads it."""
    (tmp_path / "m.mp4").symlink_to("/proc/self/mem")
    done = run("generate", "--from", tmp_path / "m.mp4", "-o", tmp_path / "o.mp4")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert len(errors(done)) == 1
