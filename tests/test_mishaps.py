"""What users trip over: each line of a command that was once taken the wrong way, and what it does now."""

from __future__ import annotations

import copy
import json
import os
import pickle
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

import sdltx
from sdltx import _arguments, cli, media, pipeline

TINY_CLIP = ["-W", "64", "-H", "64", "--num-frames", "9", "--steps", "1", "-s", "1"]


def run(*arguments, **options):
    options = {"capture_output": True, "text": True, "timeout": 120, **options}
    return subprocess.run([sys.executable, "-m", "sdltx", *map(str, arguments)], **options)


def generate(*arguments, prompt="a red circle", **options):
    return run("generate", "-p", prompt, *TINY_CLIP, *arguments, **options)


def errors(done):
    return [line for line in done.stderr.splitlines() if line.startswith(("error: ", "Traceback"))]


def names(folder):
    return sorted(p.name for p in folder.iterdir())


@pytest.fixture
def demo():
    with sdltx.load() as pipe:
        yield pipe


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "l.safetensors"
    done = generate("--save-latents", path)
    assert done.returncode == 0, done.stderr
    return path


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
    assert "same file" in errors(done)[0]


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
from sdltx import cli, pipeline
sample = pipeline.Pipeline.sample
def gone(*args, **options):
    latents = sample(*args, **options)
    shutil.rmtree({str(folder)!r})
    return latents
pipeline.Pipeline.sample = gone
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
    import shlex

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
        time.sleep(0.25 + rng.random() * 1.2)
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


# --- refused before a model is loaded ---


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--tile-size", "33"], "32"),
        (["--tile-frames", "5"], "8"),
        (["--tile-size", "64", "--tile-overlap", "64"], "overlap 64"),
        (["-s", "-1"], "none for a random one"),
        (["--preset", "fast"], "distilled"),
        (["--fps", "1e99999999"], "rate"),
        (["-t", "abc"], "'abc' is not a number of threads"),
    ],
)
def test_refused_before_the_model_is_opened(tmp_path, arguments, word):
    done = run("generate", "-p", "x", "-m", "no-such-model", "-o", tmp_path / "a.mp4", *arguments, timeout=20)
    assert done.returncode == 2
    assert word in errors(done)[0]
    assert names(tmp_path) == []


def test_tiles_of_the_api_are_refused_before_the_prompt_is_encoded(demo):
    seen = []
    with pytest.raises(sdltx.InvalidRequestError, match="tile size 33"):
        demo.generate("x", tiling=sdltx.Tiling(33, 0, 0, 0), progress=lambda *event: seen.append(event))
    assert seen == []


def test_an_overlap_that_is_not_given_follows_a_small_tile(tmp_path):
    done = generate("-o", tmp_path / "a.png", "--tile-frames", "16", "--tile-size", "64")
    assert done.returncode == 0, done.stderr
    assert media.read_settings(tmp_path / "a_0001.png")["tiling"] == [64, 32, 16, 8]
    assert "small tiles change the picture" in done.stderr


@pytest.mark.parametrize("prompt", [b"\xff", b"x" * (1 << 20) + b"x"])
def test_prompts_that_cannot_be_are_refused_early(tmp_path, prompt):
    (tmp_path / "p.txt").write_bytes(prompt)
    done = run("generate", "--prompt-file", tmp_path / "p.txt", "-m", "no-such-model", "-o", tmp_path / "a.mp4")
    assert done.returncode == 2
    assert "prompt" in errors(done)[0]
    with pytest.raises(sdltx.InvalidRequestError, match="prompt"):
        pipeline.check(prompt="\udcff" if prompt == b"\xff" else prompt.decode())


def test_a_byte_order_mark_is_no_part_of_a_prompt(tmp_path):
    (tmp_path / "p.txt").write_bytes(b"\xef\xbb\xbfa red circle\r\n")
    done = run("generate", "--prompt-file", tmp_path / "p.txt", "--dry-run")
    assert "prompt  'a red circle'" in done.stdout


def test_a_prompt_in_utf8_where_the_locale_is_not():
    environment = {**os.environ, "LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = run("generate", "-p", "grün", "--dry-run", env={**environment, "PYTHONIOENCODING": "utf-8"})
    assert "prompt  'grün'" in done.stdout, done.stderr


def test_a_closed_standard_input_is_no_prompt(tmp_path):
    done = run(
        *("generate", "-p", "-", "-o", tmp_path / "a.mp4"), stdin=subprocess.DEVNULL, preexec_fn=lambda: os.close(0)
    )
    assert done.returncode in (0, 2)
    assert "Traceback" not in done.stderr
    assert "prompt" in done.stderr  # empty or closed


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [(["generate", "a red ball"], "-p"), (["generate", "-p", "x", "-m", "a", "b"], "repeat it")],
)
def test_loose_arguments_are_explained(arguments, hint):
    done = run(*arguments)
    assert done.returncode == 2
    assert hint in done.stderr
    assert "sdltx-cli generate --help" in done.stderr


def test_verbosity_does_not_change_the_status(tmp_path):
    done = generate("--num-frames", "2", "-vv", "-o", tmp_path / "a.mp4")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: ")


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
    assert "counts as not distilled" in done.stderr
    assert "counts as not distilled" not in generate("-o", clip).stderr  # the built-in model needs no guidance


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
    data = Path(source).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    metadata = dict(header.pop("__metadata__", {}))
    if config:
        metadata["config"] = json.dumps(config(json.loads(metadata["config"])))
    new, blob = {"__metadata__": metadata}, b""
    for name, entry in header.items():
        if wanted(name):
            begin, end = entry["data_offsets"]
            new[name] = {**entry, "data_offsets": [len(blob), len(blob) + end - begin]}
            blob += data[8 + length + begin : 8 + length + end]
    text = json.dumps(new).encode()
    target.write_bytes(struct.pack("<Q", len(text)) + text + blob)


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
    data = Path(tiny_paths[0]).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"]["sdltx.note"] = "harmless \x1b[31m"
    text = json.dumps(header).encode()
    (tmp_path / "m.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
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


@pytest.mark.parametrize(
    ("suffix", "has_sound"), [(".mp4", True), (".webm", True), (".gif", False), (".webp", False), (".png", False)]
)
def test_sound_is_made_for_formats_that_keep_it(tmp_path, suffix, has_sound):
    done = generate("-v", "-o", tmp_path / f"a{suffix}")
    assert ("sound took" in done.stderr) is has_sound


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


# --- types ---


def test_numbers_of_numpy_are_numbers(demo, tmp_path):
    small = {
        "width": np.int64(64),
        "height": np.uint16(64),
        "num_frames": np.int32(9),
        "num_inference_steps": np.int8(1),
    }
    clip = demo.generate("x", **small, frame_rate=np.float32(12), sigmas=None, seed=np.int64(3))
    clip.save(tmp_path / "a.mp4")
    settings = media.read_settings(tmp_path / "a.mp4")
    assert (settings["seed"], settings["width"], settings["frame_rate"]) == (3, 64, 12.0)
    latents = demo.sample(demo.encode("x"), **small, frame_rate=Fraction(25, 2), seed=np.uint64(4))
    latents.save(tmp_path / "l.safetensors")
    assert sdltx.Latents.load(tmp_path / "l.safetensors").frame_rate == 12.5


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: p.generate(None), ["prompt", "text", "None"]),
        (lambda p: p.generate(["a"]), ["prompt", "text", "list"]),
        (lambda p: p.encode(b"a"), ["prompt", "text", "bytes"]),
        (lambda p: p.generate("x", width=32.0), ["width", "whole number", "float 32.0"]),
        (lambda p: p.generate("x", seed=1.0), ["seed", "whole number", "float 1.0"]),
        (lambda p: p.generate("x", seed="1"), ["seed", "whole number", "str '1'"]),
        (lambda p: p.generate("x", frame_rate="12"), ["frame_rate", "a number", "str '12'"]),
        (lambda p: p.generate("x", frame_rate=np.ones(2)), ["frame_rate", "a number", "ndarray"]),
        (lambda p: p.generate("x", sigmas=1.0), ["sigmas", "list of numbers", "float 1.0"]),
        (lambda p: p.generate("x", sigmas="1,0"), ["sigmas", "list of numbers", "str"]),
        (lambda p: p.generate("x", tiling=64), ["tiling", "Tiling(size, overlap, frames, frame_overlap)", "int 64"]),
        (lambda p: p.generate("x", tiling=(64.5, 32, 16, 8)), ["tile size", "whole number", "float 64.5"]),
        (lambda p: p.generate("x", preset=1), ["preset", "distilled", "int 1"]),
        (lambda p: p.generate("x", noise=np.zeros(3)), ["noise", "Latents", "ndarray"]),
        (lambda p: p.decode(np.zeros((1, 2, 3, 4))), ["latents", "Latents", "ndarray"]),
        (lambda p: p.decode_audio(None), ["latents", "Latents", "None"]),
        (lambda p: p.sample("x"), ["context", "Context (made by encode())", "str 'x'"]),
        (lambda p: sdltx.load([1, 2]), ["path", "list"]),
        (lambda p: sdltx.load(b"x"), ["path", "bytes"]),
        (lambda p: sdltx.load(device=3), ["device", "int 3"]),
        (lambda p: sdltx.load(threads="2"), ["threads", "whole number", "str '2'"]),
        (lambda p: sdltx.load(precision=None), ["precision", "None"]),
        (lambda p: sdltx.Latents.load(3), ["path", "int 3"]),
        (lambda p: sdltx.Latents(np.zeros((1, 1, 1, 1)), None, "x"), ["frame_rate", "a number", "str 'x'"]),
        (lambda p: sdltx.Latents(np.zeros((1, 1, 1, 1)), None, -1), ["frame_rate", "-1"]),
        (lambda p: sdltx.Latents(np.zeros((1, 1, 1, 1)), None, 1, [1]), ["settings", "dictionary", "list"]),
    ],
)
def test_a_wrong_type_is_one_line_that_names_it(demo, call, words):
    with pytest.raises(sdltx.InvalidRequestError) as caught:
        call(demo)
    text = str(caught.value)
    assert "\n" not in text
    assert all(word in text for word in words), text


def test_a_tuple_is_a_tiling(demo):
    latents = sdltx.Latents(np.zeros((32, 1, 2, 2), np.float32), None, 12)
    assert demo.decode(latents, tiling=(64, 32, 16, 8)).frames.shape == (1, 64, 64, 3)


def test_arguments_keep_what_is_right():
    assert _arguments.number("a", "b", Fraction(1, 4)) == 0.25
    assert _arguments.integer("a", "b", True) == 1
    assert _arguments.numbers("a", "b", np.array([1, 0.5])) == [1.0, 0.5]


def test_read_only_arrays_stay_so_through_copies():
    for value in (
        sdltx.Context(np.zeros((1, 2), np.float32), np.zeros((1, 2), np.float32)),
        sdltx.Latents(np.zeros((1, 1, 1, 1), np.float32), np.zeros((1, 1, 1), np.float32)),
        sdltx.Video(np.zeros((1, 2, 2, 3), np.uint8), np.zeros((1, 5), np.float32), 10),
    ):
        for twin in (pickle.loads(pickle.dumps(value)), copy.deepcopy(value)):
            for name in ("video", "audio", "frames"):
                if (array := getattr(twin, name, None)) is not None:
                    assert not array.flags.writeable


def test_damaged_settings_are_damage(tmp_path):
    from safetensors.numpy import save_file

    arrays = {"video": np.zeros((8, 1, 1, 1), np.float32)}
    for text in ("[" * 100_000, '{"frame_rate": 1, "settings": [1]}', '{"frame_rate": [], "settings": {}}', "3"):
        save_file(arrays, tmp_path / "l.safetensors", {"sdltx.latents": text})
        with pytest.raises(sdltx.ModelFileError, match="damaged"):
            sdltx.Latents.load(tmp_path / "l.safetensors")
    for path, word in ((tmp_path, "no file"), (tmp_path / "none", "does not exist")):
        with pytest.raises(sdltx.ModelFileError, match=word):
            sdltx.Latents.load(path)


def test_media_is_there_without_an_import():
    code = "import sdltx; sdltx.media.read_settings"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


# --- settings repeat exactly ---


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


# --- model folders of real people ---


@pytest.fixture
def folder(tmp_path, tiny_paths):
    shutil.copy(tiny_paths[0], tmp_path / "model.safetensors")
    shutil.copytree(tiny_paths[1], tmp_path / "gemma")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("._model.safetensors", b"\0\5\x16\7", ""),
        ("mmproj-model.gguf", b"GGUF", ""),
        ("broken.safetensors", b"junk", "not used"),
        ("half.gguf", b"GGUF\3\0\0\0", "not used"),
    ],
)
def test_what_lies_beside_a_model_does_not_stop_it(folder, name, content, said, caplog):
    (folder / name).write_bytes(content)
    with sdltx.load(folder) as pipe:
        pipe.require("transformer", "text encoder")
    assert said in caplog.text
    assert bool(caplog.text) is bool(said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 3\n", "git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"\xef\xbb\xbf\n <html></html>", "web page"),
        (bytes(4096), "zeros"),
        (b"something", "neither a safetensors nor a GGUF"),
        (b"", "empty"),
    ],
)
def test_files_that_are_no_models_are_told_apart(tmp_path, content, said):
    (tmp_path / "m.safetensors").write_bytes(content)
    for path in (tmp_path / "m.safetensors", tmp_path):
        with pytest.raises(sdltx.ModelFileError, match=said):
            sdltx.load(path)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("Lightricks/LTX-2.3", "Hugging Face"),
        ("models/*.safetensors", "no file fits"),
        ("~/models", "not quoted"),
        ("", "empty"),
        ("a\0b", "NUL"),
        ("no-such-file.safetensors", "check the path"),
    ],
)
def test_paths_that_lead_nowhere_get_a_hint(path, said):
    with pytest.raises(sdltx.ModelFileError, match=said):
        sdltx.load(path)


def test_a_pipe_is_no_model(tmp_path):
    os.mkfifo(tmp_path / "m.safetensors")
    with pytest.raises(sdltx.ModelFileError, match="not a regular file"):
        sdltx.load(tmp_path / "m.safetensors")


def test_a_cache_of_hugging_face_is_a_model_folder(tmp_path, tiny_paths):
    root = tmp_path / "models--Lightricks--LTX"
    for commit, source in (("aaaa", None), ("bbbb", tiny_paths)):
        snapshot = root / "snapshots" / commit
        snapshot.mkdir(parents=True)
        if source:
            (root / "blobs").mkdir()
            shutil.copy(source[0], root / "blobs" / "0123")
            (snapshot / "model.safetensors").symlink_to("../../blobs/0123")
            shutil.copytree(source[1], snapshot / "gemma")
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("bbbb")
    with sdltx.load(root) as pipe:
        pipe.require("transformer", "text encoder", "video decoder")


def test_a_download_that_stopped_is_no_model(tmp_path, tiny_paths):
    """Full length, header and first weights there, zeros afterwards."""
    data = bytearray(Path(sdltx.pipeline._demo_files()[0]).read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    (tmp_path / "m.safetensors").write_bytes(data)
    with pytest.raises(sdltx.ModelFileError, match="download is not complete"):
        sdltx.load(tmp_path / "m.safetensors")


def test_two_copies_are_one_short_line(tmp_path, tiny_paths):
    shutil.copy(tiny_paths[0], tmp_path / "a.safetensors")
    with pytest.raises(sdltx.ModelMismatchError) as caught:
        sdltx.load(*tiny_paths, tmp_path / "a.safetensors")
    assert "both hold a transformer; give one" in str(caught.value)
    assert len(str(caught.value)) < 400


def test_an_unknown_type_is_one_short_line(tmp_path, tiny_paths):
    data = Path(tiny_paths[0]).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    blob = b""
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        piece = data[8 + length + begin : 8 + length + end]
        if len(entry["shape"]) == 2:
            count = entry["shape"][0] * entry["shape"][1]
            entry["dtype"], piece = "F8_E8M0", b"\x38" * count
        entry["data_offsets"] = [len(blob), len(blob) + len(piece)]
        blob += piece
    text = json.dumps(header).encode()
    (tmp_path / "fp8.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + blob)
    with pytest.raises(sdltx.ModelMismatchError) as caught:
        sdltx.load(tmp_path / "fp8.safetensors", tiny_paths[1])
    assert "F8_E8M0" in str(caught.value)
    assert "BF16" in str(caught.value)
    assert len(str(caught.value)) < 1200
