"""Batches on a Ray cluster: two nodes on this machine, of which one is killed in between."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from commands import errors, names, run
from PIL import Image
from ray_nodes import ENV, Nodes, free_port

import sdltx


@pytest.fixture(scope="module")
def cluster():
    pytest.importorskip("ray")
    with Nodes() as nodes:
        yield nodes


def lines_of(count: int, folder: Path, **more: object) -> Path:
    """A batch of clips of two sizes, some of them from a picture."""
    Image.fromarray(np.full((64, 64, 3), (200, 30, 30), np.uint8)).save(folder / "red.png")
    lines = []
    for i in range(count):
        line = {"prompt": f"a {('red', 'blue')[i % 2]} circle", "seed": i, "width": 64 + 32 * (i % 2), "height": 64}
        line |= {"num_frames": 9, "num_inference_steps": 4, "output": f"{i}.{'wav' if i == 3 else 'mp4'}", **more}
        if i == 1:
            line["images"] = [str(folder / "red.png")]
        lines.append(json.dumps(line))
    path = folder / "jobs.jsonl"
    path.write_text("\n".join(lines))
    return path


def finished(folder: Path) -> list[str]:
    return [name for name in names(folder) if not name.startswith(".")] if folder.exists() else []


@pytest.mark.by_day(0)
def test_a_batch_is_as_if_made_alone_though_a_node_is_killed(cluster, tmp_path):
    second = cluster.add()
    jobs = lines_of(12, tmp_path, num_inference_steps=20)
    command = [sys.executable, "-m", "sdltx", "batch", jobs, "-o", tmp_path / "there", "--on", cluster.address, "-v"]
    batch = subprocess.Popen([str(one) for one in command], stderr=subprocess.PIPE, text=True, env=ENV)
    # Both have begun, and the second one has some.
    for _ in range(600):
        if len(finished(tmp_path / "there")) > 1:
            break
        time.sleep(0.1)
    second.kill()
    _, said = batch.communicate(timeout=240)
    assert batch.returncode == 0, said
    assert "is lost" in said, said
    assert "12 clips made, 0 failed" in said
    assert said.count("wrote ") == 12
    done = run("batch", jobs, "-o", tmp_path / "here", "-q")
    assert done.returncode == 0, done.stderr
    for i in range(12):
        name = f"{i}.{'wav' if i == 3 else 'mp4'}"
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes(), name
    # The same command finds all of it there.
    done = run("batch", jobs, "-o", tmp_path / "there", "--on", cluster.address, env=ENV)
    assert done.returncode == 0, done.stderr
    assert "12 of 12 clips are there already" in done.stderr


@pytest.mark.by_day(0)
def test_what_fails_there_is_told_here(cluster, tmp_path):
    address = cluster.address
    jobs = lines_of(3, tmp_path)
    text = jobs.read_text() + "\n" + json.dumps({"prompt": "x", "loras": ["none.safetensors"], "output": "bad.mp4"})
    jobs.write_text(text)
    done = run("batch", jobs, "-o", tmp_path / "out", "--on", address, env=ENV)
    assert done.returncode == 3
    assert "none.safetensors" in done.stderr
    assert "3 clips made, 1 failed" in done.stderr
    done = run("batch", jobs, "-o", tmp_path / "out2", "--on", address, "-m", tmp_path / "none.gguf", env=ENV)
    assert done.returncode == 3, done.stderr
    assert "none.gguf" in errors(done)[-1]
    for i in range(3):
        assert (tmp_path / "out" / f"{i}.mp4").exists()


@pytest.mark.by_day(0)
def test_there_is_no_cluster(tmp_path):
    pytest.importorskip("ray")
    jobs = lines_of(1, tmp_path)
    done = run("batch", jobs, "-o", tmp_path / "out", "--on", f"ray://127.0.0.1:{free_port()}", env=ENV)
    assert done.returncode == 6, done.stderr
    assert len(errors(done)) == 1
    assert "cannot reach a cluster" in done.stderr


def test_without_its_extra_it_says_how_to_get_it(tmp_path):
    code = (
        "import sys; sys.modules['ray'] = None\n"
        "from sdltx.cli import main; sys.exit(main(['batch', sys.argv[1], '-o', sys.argv[2], '--on', 'auto']))"
    )
    command = [sys.executable, "-c", code, lines_of(1, tmp_path), tmp_path / "out"]
    done = subprocess.run([str(one) for one in command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert 'pip install "sdltx[ray]"' in done.stderr


def test_requests_that_were_read_need_no_files(tmp_path):
    """What is sent elsewhere makes the same clip, and tells the same of its files."""
    jobs = lines_of(2, tmp_path)
    request = sdltx.Request.from_dict(
        {name: value for name, value in json.loads(jobs.read_text().splitlines()[1]).items() if name != "output"}
    )
    loaded = request.loaded()
    with sdltx.load() as pipe:
        clip = pipe.generate(request)
        (tmp_path / "red.png").unlink()
        again = pipe.generate(loaded)
    np.testing.assert_array_equal(clip.frames, again.frames)
    assert dict(clip.metadata) == dict(again.metadata)
    assert again.metadata["images"][0]["sha256"]
