"""What batches and -b read and write: nothing is lost, nothing is taken for something else."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
from commands import errors, generate, names, run
from PIL import Image
from test_batch import SMALL, cache, write  # noqa: F401 (a fixture)

import sdltx

STILL = {**SMALL, "num_frames": 1, "num_inference_steps": 1}


@pytest.mark.by_day(2)
@pytest.mark.parametrize(
    ("reads", "writes", "name"),
    [
        ("--from", "--audio-out", "y_1.wav"),
        ("--from", "--save-latents", "y_2.safetensors"),
        ("--from", "-o", "y_2.mp4"),
        ("--lora", "--save-latents", "y_2.safetensors"),
        ("-i", "-o", "y_1_0003.png"),
    ],
)
def test_numbered_outputs_are_no_inputs(tmp_path, saved, reads, writes, name):
    read = tmp_path / name
    if name.endswith(".safetensors"):
        shutil.copy(saved, read)
    elif name.endswith(".png"):
        Image.new("RGB", (8, 8)).save(read)
    else:
        assert generate("-o", read).returncode == 0
    before = read.read_bytes()
    output = tmp_path / f"y{read.suffix}"
    done = generate(reads, read, "-b", 2, writes, output, "--no-cache")
    assert done.returncode == 2
    assert "is also an input" in errors(done)[0]
    assert read.read_bytes() == before
    assert names(tmp_path) == [name]


def test_a_sequence_is_not_written_over_while_it_is_repeated(tmp_path):
    assert generate("-o", tmp_path / "a.png").returncode == 0
    before = names(tmp_path)
    done = generate("--from", tmp_path / "a.png", "-o", tmp_path / "a.png")
    assert done.returncode == 2
    assert "is also an input" in errors(done)[0]
    assert names(tmp_path) == before


def test_lines_that_write_the_same_pictures(tmp_path, cache):  # noqa: F811
    jobs = write(
        tmp_path / "jobs.jsonl",
        {"prompt": "a", **SMALL, "output": "a.png"},
        {"prompt": "b", **SMALL, "output": "a_%04d.png"},
    )
    done = run("batch", jobs, "-o", tmp_path / "out")
    assert done.returncode == 2
    assert "a.png and a_%04d.png both write" in errors(done)[0]
    assert names(tmp_path / "out") == [".sdltx-batch"]


def there(done):
    """How many clips were there already."""
    return next((int(line.split()[0]) for line in done.stderr.splitlines() if "are there already" in line), 0)


@pytest.mark.by_day(0)
def test_what_is_there_is_what_was_asked_for(tmp_path, cache):  # noqa: F811
    """Whatever became of the files between two starts, or changed of what is asked for."""
    out = tmp_path / "out"
    picture = tmp_path / "p.png"
    Image.new("RGB", (64, 64)).save(picture)
    first = write(
        tmp_path / "first.jsonl",
        {"prompt": "a", **STILL, "output": "a.png"},
        {"prompt": "b", **STILL, "output": "b.wav"},
        {"prompt": "c", **SMALL, "output": "c_%04d.png", "images": [str(picture)]},
    )
    other = write(tmp_path / "other.jsonl", {"prompt": "z", **STILL, "output": "a.png"})

    def again(*arguments, jobs=first):
        done = run("batch", jobs, "-o", out, *arguments)
        assert done.returncode == 0, done.stderr
        return there(done)

    assert again() == 0
    assert again() == 3
    assert again("--wav-format", "f32") == 0
    assert again() == 0
    assert again(jobs=other) == 0
    assert again() == 2  # a.png is that of the other one
    assert generate("-o", out / "b.wav").returncode == 0
    assert again() == 2
    (out / "c_0009.png").unlink()
    assert again() == 2
    Image.new("RGB", (64, 64), (1, 2, 3)).save(picture)
    assert again() == 2
    copy = tmp_path / "copy"
    shutil.copytree(out, copy, copy_function=shutil.copyfile)  # with other times
    shutil.rmtree(out)
    copy.rename(out)
    assert again() == 3


@pytest.mark.by_day(0)
def test_another_lora_of_the_same_name_is_another_clip(tmp_path, cache, tiny_paths, tiny_dir):  # noqa: F811
    lora = tmp_path / "l.safetensors"
    shutil.copy(tiny_dir / "tiny-lora.safetensors", lora)
    model = [argument for path in tiny_paths for argument in ("-m", path)]
    line = {"prompt": "a", **STILL, "loras": [str(lora)], "output": "a.png"}
    jobs = write(tmp_path / "jobs.jsonl", line)
    counts = []
    for change in (False, False, True):
        if change:
            data = lora.read_bytes()
            lora.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        done = run("batch", jobs, "-o", tmp_path / "out", *model)
        assert done.returncode == 0, done.stderr
        counts.append(there(done))
    assert counts == [0, 1, 0]


def test_tiles_can_change_after_denoising(tmp_path, cache):  # noqa: F811
    """What ran out of memory while it was decoded goes on with smaller tiles."""
    jobs = write(tmp_path / "jobs.jsonl", {"prompt": "a", **SMALL, "output": "a.png"})
    out = tmp_path / "out"
    code = (
        "import sys, sdltx.cli.clips as c\n"
        "def fail(*_): raise MemoryError('[decode] no')\n"
        "c.FileClip.on_sound = fail\n"
        "from sdltx.cli import main; sys.exit(main())"
    )
    failed = subprocess.run([sys.executable, "-c", code, "batch", str(jobs), "-o", str(out)], check=False)
    assert failed.returncode != 0
    assert len(list((out / ".sdltx-batch").glob("*.safetensors"))) == 1
    done = run("batch", jobs, "-o", out, "--tile-size", 64, "--tile-overlap", 32, "-v")
    assert done.returncode == 0, done.stderr
    assert "denoise took" not in done.stderr


def test_what_a_model_cannot_do_fails_alone(tmp_path, cache):  # noqa: F811
    out = tmp_path / "out"
    (out / "folder.mp4").mkdir(parents=True)
    os.mkfifo(tmp_path / "pipe.png")
    wrong = {
        "blocks.mp4": {"stg_blocks": [900], "stg_scale": 1},
        "frame.mp4": {"images": [{"path": "/dev/null", "frame": 700}]},
        "zero.mp4": {"images": ["/dev/zero"]},
        "pipe.mp4": {"images": [str(tmp_path / "pipe.png")]},
        "upscaler.mp4": {"upscaler": str(tmp_path / "jobs.jsonl")},
        "folder.mp4": {},
        f"{'long' * 70}.mp4": {},
        "silent.wav": {"audio": False},
    }
    lines = [{"prompt": "a", **SMALL, **more, "output": name} for name, more in wrong.items()]
    jobs = write(tmp_path / "jobs.jsonl", *lines, {"prompt": "b", **SMALL, "output": "b.png"})
    done = run("batch", jobs, "-o", out)
    assert done.returncode == 2
    assert f"1 clips made, {len(wrong)} failed" in done.stderr
    for name in wrong:
        assert any(f"/{name}: [" in line for line in errors(done)), name
    assert (out / "b_0009.png").exists()


@pytest.mark.by_day(2)
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"prompt": "a", "output": "\ud800.mp4"}, "line 1: [output]"),
        ({"prompt": "a", "output": "a\0.mp4"}, "line 1: [output]"),
        ({"prompt": "a", "images": ["\ud800.png"]}, "line 1: [image]"),
        ({"prompt": "a", "images": [{"path": "a\0.png"}]}, "line 1: [image]"),
        ({"prompt": "a", "loras": ["a\0"]}, "line 1: [lora]"),
        ({"prompt": "a", "upscaler": "\ud800"}, "line 1: [upscaler]"),
        ({"prompt": "\ud800"}, "line 1: [encode]"),
    ],
)
def test_names_that_no_file_can_have(tmp_path, line, words):
    done = run("batch", write(tmp_path / "jobs.jsonl", line), "-o", tmp_path / "out")
    assert done.returncode == 2
    (error,) = errors(done)
    assert words in error


def test_lines_end_where_json_ends_them(tmp_path, cache):  # noqa: F811
    prompt = "a\u2028b\u0085c\x0bd"
    text = json.dumps({"prompt": prompt, **STILL, "output": "a.png"}, ensure_ascii=False).replace("\x0b", "\\u000b")
    (tmp_path / "jobs.jsonl").write_bytes(("\ufeff" + text + "\r\n\r\n").encode())
    done = run("batch", tmp_path / "jobs.jsonl", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert sdltx.media.read_settings(tmp_path / "out" / "a.png")["prompt"] == prompt


def test_standard_input_that_is_closed(tmp_path):
    command = f"{sys.executable} -m sdltx batch - -o {tmp_path / 'out'} <&-"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(errors(done)) == 1
    assert run("batch", tmp_path / "jobs.jsonl", "-o", "").returncode == 2


@pytest.mark.by_day(2)
@pytest.mark.parametrize("state", ["[" * 100_000, "{}", '{"done": {"a.png": 3}, "seeds": {"x": "y"}}', "\0"])
def test_a_state_that_is_broken_is_none(tmp_path, cache, state):  # noqa: F811
    folder = tmp_path / "out" / ".sdltx-batch"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text(state)
    (folder / "lock").write_text("none")
    jobs = write(tmp_path / "jobs.jsonl", {"prompt": "a", **STILL, "output": "a.png"})
    done = run("batch", jobs, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr


def test_what_was_written_when_it_was_killed_is_removed(tmp_path, cache):  # noqa: F811
    out = tmp_path / "out"
    jobs = write(tmp_path / "jobs.jsonl", *({"prompt": "a", **SMALL, "output": f"a.{kind}"} for kind in ("png", "mp4")))
    code = (
        "import os, signal, sys, sdltx.media as m, sdltx.cli.clips as c\n"
        "write = c.FileClip.on_frames\n"
        "c.FileClip.on_frames = lambda *given: (write(*given), os.kill(os.getpid(), signal.SIGKILL))\n"
        "from sdltx.cli import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", code, "batch", str(jobs), "-o", str(out)]
    for _ in range(2):
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
        assert len(list(out.glob(".sdltx-*.tmp*"))) == 1
    foreign = out / ".sdltx-1-abc.tmp.mp4"  # of a process that runs
    foreign.touch()
    done = run("batch", jobs, "-o", out)
    assert done.returncode == 0, done.stderr
    assert [file.name for file in out.glob(".sdltx-*.tmp*")] == [foreign.name]


def test_one_of_several_seeds_that_fails(tmp_path, cache):  # noqa: F811
    """The clip is named, and the others are made."""
    code = (
        "import sys, sdltx.cli.clips as c\n"
        "sound = c.FileClip.on_sound\n"
        "def fail(self, one):\n"
        "    if self.files.output.endswith('_2.png'): raise OSError(28, 'No space left on device')\n"
        "    sound(self, one)\n"
        "c.FileClip.on_sound = fail\n"
        "from sdltx.cli import main; sys.exit(main())"
    )
    size = ["-W", "64", "-H", "64", "--frames", "1", "--steps", "1"]
    done = subprocess.run(
        [sys.executable, "-c", code, "generate", "-p", "a", *size, "-b", "3", "-o", str(tmp_path / "y.png")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 6
    assert any("y_2.png: " in line and "No space" in line for line in errors(done))
    assert errors(done)[-1].endswith("1 of 3 failed")
    assert {"y_1.png", "y_3.png"} <= set(names(tmp_path))
    assert "y_2.png" not in names(tmp_path)
