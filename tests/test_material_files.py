"""Clips from sounds and films on disk: commands, batches, clips that are made again, requests as text."""

from __future__ import annotations

import json

import pytest
from commands import errors, generate, run
from films import RATE, film, masked, wave

import sdltx
from sdltx import media


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


@pytest.mark.by_day(0)
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


@pytest.mark.by_day(0)
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
