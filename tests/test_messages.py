"""A run says what it does, what may not be meant, and does no work that nobody sees."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys

import numpy as np
import pytest
from commands import TINY_CLIP, errors, generate, names, read_safetensors, run, write_safetensors
from PIL import Image, ImageSequence

import sdltx
from sdltx import cli, media

# --- it says what it does ---


def test_warnings(tmp_path):
    for prompt in ("", "   "):
        assert (
            "warning: the prompt is empty"
            in generate("--save-latents", tmp_path / "l.safetensors", prompt=prompt).stderr
        )
    done = run("generate", "-p", "x", "--sigmas", "1,0.5", *TINY_CLIP[:6], "--save-latents", tmp_path / "l.safetensors")
    assert "warning: the sigmas end at 0.5" in done.stderr
    done = run("generate", "-p", "x", "-W", "16384", "-H", "8192", "--num-frames", "9", "--dry-run")
    assert done.returncode == 0
    assert "tokens; the time grows with their square" in done.stderr


def test_sizes_beyond_reason_are_warned_of_and_stop(tmp_path):
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "sdltx", "generate", "-p", "x", "-W", "8192", "-H", "8192", "--num-frames", "9"),
            *("-o", str(tmp_path / "a.mp4")),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    lines = [process.stderr.readline()]
    while "tokens" not in lines[-1]:
        assert lines[-1], lines
        lines.append(process.stderr.readline())
    process.terminate()
    assert process.wait(timeout=20) == 143
    assert process.stderr.read().endswith("stopped\n")  # also for TERM
    process.stderr.close()
    assert any(line.startswith("seed ") for line in lines)  # before the long run, so that it is known if it is cut off


def test_the_schedule_is_said_stored_and_forced(tmp_path, tiny_paths):
    clip = tmp_path / "a.png"
    done = run("generate", "-p", "x", *TINY_CLIP[:6], "--preset", "distilled", "-o", clip)
    assert "8 steps, schedule distilled, preset distilled" in done.stderr
    settings = media.read_settings(tmp_path / "a_0001.png")
    assert (settings["preset"], settings["schedule"], settings["num_inference_steps"]) == ("distilled", "distilled", 8)
    done = run("generate", "--from", tmp_path / "a_0001.png", "--dry-run")
    assert "steps   8, schedule distilled" in done.stdout
    done = generate("-m", tiny_paths[0], "-m", tiny_paths[1], "-o", clip)
    assert "nothing tells whether this checkpoint is distilled" in done.stderr
    assert "4 passes a step" in done.stderr
    assert "distilled" not in generate("-o", clip, "-q").stderr  # the built-in model needs no guidance


@pytest.mark.parametrize(
    ("path", "distilled"),
    [
        ("LTX-2.3-22B-Distilled-Q4.safetensors", True),
        ("distilled/model.safetensors", True),
        ("ltx-not-distilled.safetensors", False),
        ("distilled/ltx-undistilled.safetensors", False),
        ("model.safetensors", False),
    ],
)
def test_names_tell_what_is_distilled(tmp_path, tiny_paths, path, distilled):
    file = tmp_path / path
    file.parent.mkdir(exist_ok=True)
    file.symlink_to(tiny_paths[0])
    gemma = tmp_path / "gemma-distilled"  # does not count
    gemma.symlink_to(tiny_paths[1])
    with sdltx.load(file, gemma) as pipe:
        assert pipe.info["distilled"] is distilled


def test_a_model_without_a_vocoder_says_that_clips_are_silent(tmp_path, tiny_paths):
    kept = tmp_path / "silent.safetensors"
    copy_tensors(tiny_paths[0], kept, lambda name: not name.startswith("vocoder."))
    done = generate("-m", kept, "-m", tiny_paths[1], "-o", tmp_path / "a.mp4")
    assert done.returncode == 0, done.stderr
    assert "warning: no audio decoder and vocoder" in done.stderr
    assert "audio decoder" not in generate("-m", kept, "-m", tiny_paths[1], "-o", tmp_path / "a.gif").stderr
    with sdltx.load(kept, tiny_paths[1]) as pipe:
        assert pipe.info["has_audio"] is False


def copy_tensors(source, target, wanted, config=None):
    header, data = read_safetensors(source)
    metadata = dict(header.pop("__metadata__", {}))
    if config:
        metadata["config"] = json.dumps(config(json.loads(metadata["config"])))
    new, blob = {"__metadata__": metadata}, b""
    for name, entry in header.items():
        if wanted(name):
            begin, end = entry["data_offsets"]
            new[name] = {**entry, "data_offsets": [len(blob), len(blob) + end - begin]}
            blob += data[begin:end]
    write_safetensors(target, new, blob)


def test_weights_without_a_use_are_reported(tmp_path, tiny_paths, caplog):
    def one_layer(config):
        config["transformer"]["num_layers"] = 1
        return config

    copy_tensors(tiny_paths[0], tmp_path / "m.safetensors", lambda name: True, one_layer)
    with sdltx.load(tmp_path / "m.safetensors", tiny_paths[1]):
        pass
    assert "weights of the files are not used: model.diffusion_model.transformer_blocks.1." in caplog.text
    caplog.clear()
    with sdltx.load(*tiny_paths):
        pass
    assert "not used" not in caplog.text


@pytest.mark.by_day(1)
def test_decode_tells_other_models_apart(tmp_path, tiny_paths, saved):
    done = run("decode", saved, "-m", tiny_paths[0], "-o", tmp_path / "a.mp4")
    assert done.returncode == 2
    assert "(8, frames, height, width), got (32, 2, 2, 2)" in errors(done)[0]
    assert "sound" not in done.stderr
    latents = sdltx.Latents.load(saved)
    sdltx.Latents(latents.video, latents.audio, 12, {**latents.settings, "model_files": ["x"]}).save(
        tmp_path / "x.safetensors"
    )
    assert "was made with x" in run("decode", tmp_path / "x.safetensors", "-o", tmp_path / "a.mp4").stderr


def test_verbose_says_times_and_memory(tmp_path):
    lines = generate("-v", "-o", tmp_path / "a.mp4").stderr
    for phase in ("encode", "denoise", "sound", "decode", "write"):
        assert f"{phase} took " in lines
    for word in ("model   ", "device  ", "memory  ", "MiB of memory"):
        assert word in lines


@pytest.mark.by_day(0)
def test_messages_are_not_worth_a_run(tmp_path):
    """Standard error is closed, or its reader goes away."""
    command = f"{sys.executable} -m sdltx generate -p x {' '.join(TINY_CLIP)} -v -o"
    done = subprocess.run(["bash", "-c", f"{command} {tmp_path}/a.mp4 2>&-"], timeout=120)
    assert done.returncode == 0
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command} {tmp_path}/b.mp4 2>&1 | head -c 10"], timeout=120)
    assert done.returncode == 0
    for name in ("a.mp4", "b.mp4"):
        assert media.read_settings(tmp_path / name)["seed"] == 1


def test_control_characters_of_a_file_do_not_reach_the_terminal(tmp_path, tiny_paths):
    header, data = read_safetensors(tiny_paths[0])
    header["__metadata__"]["sdltx.note"] = "harmless \x1b[31m"
    write_safetensors(tmp_path / "m.safetensors", header, data)
    done = generate("-m", tmp_path / "m.safetensors", "-m", tiny_paths[1], "--dry-run")
    assert "harmless" in done.stderr
    assert "\x1b" not in done.stderr


def test_commands_in_one_process_say_each_thing_once(tmp_path, capsys):
    for _ in range(3):
        cli.main(["generate", "-p", "word " * 1100, *TINY_CLIP, "--save-latents", str(tmp_path / "l.safetensors")])
        assert capsys.readouterr().err.count("only the first") == 1


def test_a_terminal_of_no_size_gets_no_bars():
    """As `script` gives."""
    import fcntl
    import pty
    import termios

    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 0, 0, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "sdltx", "generate", "-p", "x", *TINY_CLIP, "--dry-run"], stderr=child
    )
    process.wait(timeout=60)
    os.close(child)
    said = b""
    try:
        while data := os.read(parent, 65536):
            said += data
    except OSError:
        pass
    os.close(parent)
    assert b"Built-in" in said
    assert b"%" not in said


# --- no work for nothing ---


@pytest.mark.by_day(2)
@pytest.mark.parametrize(
    ("suffix", "has_sound"), [(".mp4", True), (".webm", True), (".gif", False), (".webp", False), (".png", False)]
)
def test_sound_is_made_for_formats_that_keep_it(tmp_path, suffix, has_sound):
    done = generate("-v", "-o", tmp_path / f"a{suffix}")
    assert ("sound took" in done.stderr) is has_sound


@pytest.mark.by_day(1)
def test_sound_moves_with_every_piece(demo):
    latents = demo.sample(
        demo.encode("x"), width=32, height=32, num_frames=241, frame_rate=12, num_inference_steps=1, seed=1
    )
    events = []
    demo.decode_audio(latents, progress=lambda phase, done, total: events.append((phase, done, total)))
    ticks = [(done, total) for phase, done, total in events if phase == "sound"]
    total = ticks[-1][1]
    assert ticks == [(i, total) for i in range(total + 1)]
    assert total >= 10  # of 20 seconds


def test_a_fast_gif_leaves_frames_out(tmp_path, caplog):
    frames = np.stack([np.full((8, 8, 3), 20 * i, np.uint8) for i in range(12)])
    sdltx.Video(frames, frame_rate=60).save(tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as picture:
        times = [frame.info["duration"] for frame in ImageSequence.Iterator(picture)]
    assert min(times) >= 20
    assert abs(sum(times) - 200) <= 10
    assert "at most 50 frames per second" in caplog.text
    sdltx.Video(frames, frame_rate=50).save(tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as picture:
        assert picture.n_frames == 12


def test_a_single_picture_may_be_short(tmp_path):
    done = run(
        "generate",
        "-p",
        "x",
        "-W",
        64,
        "-H",
        64,
        "--num-frames",
        1,
        "--fps",
        60,
        "--steps",
        1,
        "-o",
        tmp_path / "a.png",
    )
    assert done.returncode == 0, done.stderr
    assert names(tmp_path) == ["a.png"]
