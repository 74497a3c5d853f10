"""Commands that are killed at any moment: outputs are whole or not there, and the next start goes on."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import run
from hub_server import serving

from sdltx import media

KILLS = 50 if os.environ.get("SDLTX_NIGHTLY") else 2  # of each command
CLIP = ["-W", "64", "-H", "64", "--num-frames", "17", "--steps", "2", "-s", "1", "-q"]
MODEL = [sys.executable, "-m", "sdltx"]


def killed(command: list[str], longest: float, seed: int) -> bool:
    """Whether it was still running."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        time.sleep(random.Random(seed).uniform(0.2, longest))
        process.kill()
        return process.wait() == -signal.SIGKILL


def seconds(command: list[str]) -> float:
    start = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - start


def test_generate(tmp_path):
    def command(folder: Path) -> list[str]:
        outputs = ["-o", str(folder / "clip.mp4"), "--save-latents", str(folder / "l.safetensors")]
        return [*MODEL, "generate", "-p", "a red ball", *CLIP, *outputs]

    whole, hits = tmp_path / "whole", 0
    whole.mkdir()
    longest = seconds(command(whole)) * 1.1
    for seed in range(KILLS):
        folder = tmp_path / str(seed)
        folder.mkdir()
        hits += killed(command(folder), longest, seed)
        for name in ("clip.mp4", "l.safetensors"):
            if (folder / name).exists():
                assert (folder / name).read_bytes() == (whole / name).read_bytes()
        assert run(*command(folder)[3:]).returncode == 0
        assert (folder / "clip.mp4").read_bytes() == (whole / "clip.mp4").read_bytes()
    assert hits


@pytest.mark.by_day(0)
def test_an_older_clip_stays(tmp_path):
    clip = tmp_path / "clip.mp4"
    old = [*MODEL, "generate", "-p", "a blue ball", *CLIP, "-o", str(clip)]
    longest = seconds(old) * 1.1
    before = clip.read_bytes()
    for seed in range(KILLS):
        killed([*MODEL, "generate", "-p", "a red ball", *CLIP, "-o", str(clip)], longest, seed)
        after = clip.read_bytes()
        assert after == before or media.read_settings(clip)["prompt"] == "a red ball"
        if after != before:
            assert run(*old[3:]).returncode == 0
            assert clip.read_bytes() == before


@pytest.mark.by_day(1)
@pytest.mark.parametrize("suffix", ["gguf", "safetensors"])
def test_convert(tmp_path, tiny_paths, suffix):
    target = tmp_path / f"model.{suffix}"
    command = [*MODEL, "convert", tiny_paths[0], str(target), "--type", "q8_0" if suffix == "gguf" else "keep"]
    longest = seconds(command) * 1.1
    whole = target.read_bytes()
    for seed in range(KILLS):
        target.unlink(missing_ok=True)
        killed(command, longest, seed)
        assert not target.exists() or target.read_bytes() == whole
    assert run(*command[3:]).returncode == 0
    assert target.read_bytes() == whole


@pytest.mark.by_day(0)
def test_batch(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    jobs = tmp_path / "jobs.jsonl"
    line = {"width": 64, "height": 64, "num_frames": 17, "num_inference_steps": 2}
    jobs.write_text("".join(json.dumps({"prompt": f"clip {i}", "seed": i, **line}) + "\n" for i in range(3)))

    def command(folder: Path) -> list[str]:
        return [*MODEL, "batch", str(jobs), "-o", str(folder)]

    longest = seconds(command(tmp_path / "whole")) * 1.1
    names = [f"000{i}.mp4" for i in (1, 2, 3)]
    whole = {name: (tmp_path / "whole" / name).read_bytes() for name in names}
    for seed in range(KILLS):
        folder = tmp_path / str(seed)
        killed(command(folder), longest, seed)
        for name in names:
            if (folder / name).exists():
                assert (folder / name).read_bytes() == whole[name]
        done = run(*command(folder)[3:])
        assert done.returncode == 0, done.stderr
        assert {name: (folder / name).read_bytes() for name in names} == whole


PULL = """
import sys
from huggingface_hub import constants
address = sys.argv[1]
constants.HUGGINGFACE_CO_URL_TEMPLATE = address + constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
constants.ENDPOINT = address
from sdltx import hub, model_sets
from sdltx.model_sets import ModelSet, PublishedFile
one = PublishedFile("people/weights", "a.gguf", "transformer", 0.1)
model_sets.SETS = (ModelSet("a-model", "q1", "for tests", (one,)),)
model_sets.USUAL = {"a-model": "q1"}
hub.pull("a-model:q1")
"""


@pytest.mark.by_day(0)
def test_pull(tmp_path, monkeypatch):
    weights = random.Random(1).randbytes(20_000_000)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    with serving() as server:
        server.publish("people/weights", "a.gguf", weights)
        command = [sys.executable, "-W", "ignore", "-c", PULL, server.address]
        monkeypatch.setenv("SDLTX_MODELS", str(tmp_path / "first"))
        longest = seconds(command) * 1.1
        for seed in range(KILLS):
            monkeypatch.setenv("SDLTX_MODELS", str(tmp_path / str(seed)))
            target = tmp_path / str(seed) / "people" / "weights" / "a.gguf"
            killed(command, longest, seed)
            assert not target.exists() or target.read_bytes() == weights
            subprocess.run(command, check=True)
            assert target.read_bytes() == weights
