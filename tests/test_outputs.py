"""Nothing is lost: what outputs may be, what becomes of them when a run fails or is stopped."""

from __future__ import annotations

import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from commands import TINY_CLIP, errors, generate, names, run
from PIL import Image

import sdltx
from sdltx import media

# --- nothing is lost ---


def test_an_output_that_is_a_model_is_refused(tmp_path, tiny_paths):
    model = Path(shutil.copy(tiny_paths[0], tmp_path / "m.safetensors"))
    before = model.read_bytes()
    done = generate("-m", model, "-m", tiny_paths[1], "--save-latents", model)
    assert done.returncode == 2
    assert "may be a model" in errors(done)[0]
    with pytest.raises(sdltx.InvalidRequestError, match="may be a model"):
        sdltx.Latents(np.zeros((8, 1, 1, 1), np.float32)).save(model)
    assert model.read_bytes() == before


def test_an_output_that_is_an_input_is_refused(tmp_path, saved):
    latents = Path(shutil.copy(saved, tmp_path / "l.safetensors"))
    done = generate("--from", latents, "--save-latents", tmp_path / "." / "l.safetensors")
    assert done.returncode == 2
    assert "also an input" in errors(done)[0]
    (tmp_path / "link.safetensors").symlink_to(latents)
    done = generate("--from", latents, "--save-latents", tmp_path / "link.safetensors")
    assert "also an input" in errors(done)[0]


def test_two_equal_outputs_are_refused(tmp_path):
    (tmp_path / "clip.mp4").symlink_to(tmp_path / "both.safetensors")
    done = generate("-o", tmp_path / "clip.mp4", "--save-latents", tmp_path / "both.safetensors")
    assert done.returncode == 2
    assert "both write" in errors(done)[0]


def test_latents_are_saved_under_their_own_suffix(tmp_path):
    assert ".safetensors" in errors(generate("--save-latents", tmp_path / "l.mp4"))[0]
    assert names(tmp_path) == []


@pytest.mark.parametrize("option", ["-o", "--save-latents"])
def test_latents_survive_a_target_that_vanishes(tmp_path, option):
    """The folder is removed while the clip is denoised; what is denoised goes to the current folder."""
    suffix = {"-o": "mp4", "--save-latents": "safetensors"}[option]
    folder, current = tmp_path / "folder", tmp_path / "current"
    folder.mkdir()
    current.mkdir()
    script = f"""
import shutil, sys
from sdltx import cli
from sdltx.cli.clips import FileClip
on_denoised = FileClip.on_denoised
def gone(clip):
    shutil.rmtree({str(folder)!r})
    on_denoised(clip)
FileClip.on_denoised = gone
sys.exit(cli.main(["generate", "-p", "x", *{TINY_CLIP!r}, {option!r}, {str(folder / f"my clip.{suffix}")!r}]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=current, timeout=120)
    assert done.returncode == 2
    assert names(current) == ["my clip.latents.safetensors"]
    hint = done.stderr.splitlines()[-1].split()
    assert hint[:2] == ["sdltx-cli", "decode"]
    if option == "--save-latents":
        return
    folder.mkdir()
    again = run(*shlex.split(done.stderr.splitlines()[-1])[1:], cwd=current)
    assert again.returncode == 0, again.stderr
    assert names(folder) == ["my clip.mp4"]


def test_generate_gives_its_latents_with_the_exception(demo):
    def stop(phase, done, total):
        if phase == "decode":
            raise sdltx.Cancelled

    with pytest.raises(sdltx.Cancelled) as caught:
        demo.generate("x", width=64, height=64, num_frames=9, num_inference_steps=1, seed=1, progress=stop)
    clip = demo.decode(caught.value.latents)
    assert clip.seed == 1


def test_links_are_written_through(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link.mp4").symlink_to(tmp_path / "real" / "clip")  # dangling, and without a suffix
    done = generate("-o", tmp_path / "link.mp4")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "link.mp4").is_symlink()
    assert names(tmp_path / "real") == ["clip"]
    assert media.read_settings(tmp_path / "link.mp4")["seed"] == 1
    sdltx.Latents(np.zeros((8, 1, 1, 1), np.float32)).save(tmp_path / "l.safetensors")
    (tmp_path / "ll.safetensors").symlink_to("l.safetensors")
    sdltx.Latents(np.ones((8, 1, 1, 1), np.float32)).save(tmp_path / "ll.safetensors")
    assert sdltx.Latents.load(tmp_path / "l.safetensors").video.max() == 1


@pytest.mark.parametrize("kind", ["loop", "pipe", "protected", "folder"])
def test_targets_that_cannot_be_written_are_refused_early(tmp_path, kind):
    target = tmp_path / "clip.mp4"
    if kind == "loop":
        target.symlink_to(target)
    elif kind == "pipe":
        os.mkfifo(target)
    elif kind == "folder":
        target.mkdir()
    else:
        target.touch(0o444)
    done = generate("-m", "no-such-model", "-o", target)
    assert done.returncode == 2
    assert len(errors(done)) == 1
    assert {"loop": "itself", "pipe": "regular", "protected": "write-protected", "folder": "folder"}[
        kind
    ] in done.stderr


@pytest.mark.parametrize(
    "name", ["n" * 300 + ".mp4", "n" * 251 + ".png", "\N{LATIN SMALL LETTER U WITH DIAERESIS}" * 130 + ".mp4"]
)
def test_names_that_are_too_long_are_refused_early(tmp_path, name):
    done = generate("-m", "no-such-model", "-o", tmp_path / name)
    assert done.returncode == 2
    assert "at most 255" in errors(done)[0]


def test_long_names_that_fit_are_written(tmp_path):
    frame = np.zeros((1, 32, 32, 3), np.uint8)
    name = "\N{LATIN SMALL LETTER U WITH DIAERESIS}" * 120 + ".webp"
    sdltx.Video(frame).save(tmp_path / name)
    assert names(tmp_path) == [name]


def test_older_frames_of_a_sequence_go(tmp_path, caplog):
    frames = np.zeros((5, 32, 32, 3), np.uint8)
    settings = {"sdltx_version": "x"}
    sdltx.Video(frames, metadata=settings).save(tmp_path / "f_%03d.png")
    sdltx.Video(frames[:2], metadata=settings).save(tmp_path / "f_%03d.png")
    assert names(tmp_path) == ["f_001.png", "f_002.png"]
    Image.new("RGB", (8, 8)).save(tmp_path / "f_003.png")  # somebody else's
    sdltx.Video(frames[:2], metadata=settings).save(tmp_path / "f_%03d.png")
    assert names(tmp_path) == ["f_001.png", "f_002.png", "f_003.png"]
    assert "is not from sdltx" in caplog.text
    # A single picture has no sequence.
    sdltx.Video(frames, metadata=settings).save(tmp_path / "a.png")
    sdltx.Video(frames[:1], metadata=settings).save(tmp_path / "a.png")
    assert "a_0005.png" in names(tmp_path)


def wait_for_handlers(process):
    """Until it is past the start of Python itself, which takes as long as a busy machine lets it."""
    catches = 1 << (signal.SIGTERM - 1)
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        if int(next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1], 16) & catches:
            return
        time.sleep(0.005)


@pytest.mark.by_day(0)
def test_random_signals_leave_nothing_half_done(tmp_path):
    """Start to end takes about a second, so the signals hit every phase; also twice, and as files get their names."""
    rng = random.Random(0)
    for i in range(int(os.environ.get("SDLTX_KILLS", "12"))):
        folder = tmp_path / str(i)
        folder.mkdir()
        suffix = rng.choice([".mp4", ".png", ".webm", ".gif"])
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "sdltx", "generate", "-p", "x", "-W", "96", "-H", "96", "--num-frames", "17"),
                *("--steps", "2", "-s", "1", "-q", "-o", str(folder / f"clip{suffix}")),
                *("--save-latents", str(folder / "l.safetensors")),
            ],
            stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        wait_for_handlers(process)
        time.sleep(rng.random() * 1.4)
        number = rng.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
        process.send_signal(number)
        if rng.random() < 0.3:
            time.sleep(rng.random() * 0.05)
            process.send_signal(number)
        process.wait(timeout=60)
        told = process.stderr.read().decode()
        process.stderr.close()
        assert process.returncode in (0, 128 + number, -number), told
        assert "Traceback" not in told
        left = names(folder)
        assert not [name for name in left if ".tmp" in name], (left, told)
        if "l.safetensors" in left:
            sdltx.Latents.load(folder / "l.safetensors")
        if f"clip{suffix}" in left:
            assert media.read_settings(folder / f"clip{suffix}")["seed"] == 1
        for picture in folder.glob("*.png"):
            Image.open(picture).load()


# --- settings repeat exactly ---


@pytest.mark.by_day(0)
def test_from_repeats_precision_tiles_and_preset(tmp_path):
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    options = ["--precision", "f32", "--tile-size", "64", "--preset", "distilled", "--num-frames", "1"]
    done = run("generate", "-p", "x", "-W", 128, "-H", 64, *options, "-o", first)
    assert done.returncode == 0, done.stderr
    done = run("generate", "--from", first, "-o", second)
    assert done.returncode == 0, done.stderr
    assert first.read_bytes() == second.read_bytes()


def test_from_takes_latents(tmp_path, saved):
    done = run("generate", "--from", saved, "--save-latents", tmp_path / "again.safetensors")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "again.safetensors").read_bytes() == saved.read_bytes()


@pytest.mark.parametrize("source", ["x.jpg", "", "none.mp4"])
def test_from_names_itself_in_errors(tmp_path, source):
    done = run("generate", "--from", source, "-o", tmp_path / "a.mp4")
    assert done.returncode == 2
    assert errors(done)[0].startswith("error: [settings]")
