"""What stays in memory when there is not enough for all: never another result, never more than there is."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import encoded
import numpy as np
import pytest
import test_encodings
import wide_rows
from commands import errors, run
from test_memory import held

import sdltx
from sdltx.cli import plan
from sdltx.jobs import VideoJob

SMALL = {"width": 96, "height": 64, "num_frames": 17, "frame_rate": 24, "seed": 3, "num_inference_steps": 2}
RESERVE = 128 << 20  # of the host, for what is not counted


def clip(pipe, progress=None):
    made = pipe.generate("a red ball bounces", **SMALL, progress=progress)
    return made.frames, made.audio


def step(told, name):
    return next(one for one in told["steps"] if one["step"] == name)


@pytest.fixture(scope="module")
def expected(tiny_paths):
    with sdltx.load(*tiny_paths, precision="f32", offload="none") as pipe:
        return clip(pipe)


@pytest.mark.by_day(1)
@pytest.mark.sanitize
@pytest.mark.threads
@pytest.mark.parametrize("on", ["cpu", "worker"])
def test_the_clip_is_the_same_whatever_fits(tiny_paths, workers, on, caplog):
    """With room for less and less of the transformer beside what denoising cannot do without."""
    device = workers[0] if on == "worker" else "cpu"
    with sdltx.load(*tiny_paths, precision="f32", device=device, offload="stage") as pipe:
        denoise = step(pipe.estimate(**SMALL), "denoise")
    with sdltx.load(*tiny_paths, precision="f32", device=device) as pipe:
        context = pipe.encode("a red ball bounces")
        expected = pipe.sample(context, **SMALL)

        def pretend(room):
            pipe._core.pretend_memory([room, 1 << 40] if on == "worker" else [room + RESERVE])

        pretend(1 << 40)
        (used, *_), everything = denoise["devices"], held(pipe, "weights")
        weights = used["weights"]
        least = used["inputs"] + used["working"] + denoise["host"] * (on == "cpu")
        seen = []
        for share in (2.0, 1.01, 0.9, 0.8, 0.7):
            room = int(least + share * weights)
            pretend(room)
            told = step(pipe.estimate(**SMALL), "denoise")
            estimated = told["devices"][0]["weights"]
            assert bool(told["brought"]) == (on == "worker" and share < 1)
            assert told["brought"] <= weights
            assert not told["misfit"]
            most = []

            def progress(phase, done, total, most=most):
                if phase == "denoise":
                    most.append(held(pipe, "weights"))

            caplog.clear()
            with caplog.at_level(logging.INFO, "sdltx"):
                latents = pipe.sample(context, **SMALL, progress=progress)
            assert np.array_equal(latents.video, expected.video)
            assert np.array_equal(latents.audio, expected.audio)
            print(on, share, f"estimated {estimated}, held {max(most)} of {weights}, everything {everything}")
            assert max(most) <= room - least or share == 2
            assert ("blocks are brought" in caplog.text) == (share < 1)
            if share < 1:
                assert abs(estimated - max(most)) <= weights // 100
            seen.append(max(most))
        assert seen == sorted(seen, reverse=True)
        assert seen[-1] < seen[1]


@pytest.mark.parametrize("offload", ["auto", "none", "blocks"])
def test_what_cannot_fit_is_refused_before_anything_is_computed(tiny_paths, offload):
    with sdltx.load(*tiny_paths, precision="f32", offload=offload) as pipe:
        pipe._core.pretend_memory([1 << 20])
        phases = []
        with pytest.raises(sdltx.OutOfMemoryError, match=r"\[(encode prompts|denoise)\] needs .* are free") as failed:
            clip(pipe, lambda phase, *_: phases.append(phase))
        assert "\n" not in str(failed.value)
        assert phases == []
        pipe._core.pretend_memory([])
        clip(pipe)


@pytest.mark.by_day(0)
def test_other_networks_go_when_there_is_no_room(tiny_paths, workers):
    with sdltx.load(*tiny_paths, precision="f32", device=workers[0], offload="stage") as pipe:
        devices = [one["devices"][0] for one in pipe.estimate(**SMALL)["steps"] if one["devices"]]
        most = max(one["weights"] + one["inputs"] + one["working"] for one in devices)
    with sdltx.load(*tiny_paths, precision="f32", device=workers[0]) as pipe:
        pipe._core.pretend_memory([1 << 40, 1 << 40])
        expected = clip(pipe)
        everything = held(pipe, "weights")
        pipe._core.pretend_memory([most + (64 << 10), 1 << 40])
        assert all(np.array_equal(a, b) for a, b in zip(clip(pipe), expected, strict=True))
        assert held(pipe, "weights") < everything


def test_what_is_read_each_time(tmp_path):
    """Weights that lie in files pass as far as there is no room, with the time that it takes where a disk tells it."""
    path = tmp_path / "fp8.safetensors"
    encoded.write(path, wide_rows.write(tmp_path / "wide.safetensors"), "float8_e4m3fn", test_encodings.is_large)
    with sdltx.load(path) as pipe:
        whole = step(pipe.estimate(**SMALL), "denoise")
        assert whole["passing"] == whole["reading"] == 0
        needed = whole["memory"] + RESERVE
        passing = []
        for room in (1 << 40, whole["devices"][0]["mapped"] // 2, 0):
            pipe._core.pretend_memory([needed + room])
            told = step(pipe.estimate(**SMALL), "denoise")
            passing.append(told["passing"])
            assert bool(told["reading"]) == bool(told["passing"] and reads_past_the_cache(path))
        assert passing[0] == 0
        assert passing[-1] > 0
        assert passing == sorted(passing)
        lines = plan.choices({"steps": [told]})
    assert len(lines) == 1
    assert "read each time" in lines[0]


@pytest.mark.by_day(0)
@pytest.mark.sanitize
@pytest.mark.threads
def test_bytes_read_by_each_step(tmp_path):
    """What passes is read once in each step, as it is told before; what stays is not read again."""
    path = tmp_path / "fp8.safetensors"
    encoded.write(path, wide_rows.write(tmp_path / "wide.safetensors"), "float8_e4m3fn", test_encodings.is_large)
    os.sync()
    rng = np.random.default_rng(5)
    context = sdltx.Context(rng.standard_normal((64, 512), np.float32), rng.standard_normal((64, 256), np.float32))
    with sdltx.load(path) as pipe:
        forget(path)
        needed = step(pipe.estimate(**SMALL), "denoise")["memory"] + RESERVE
        for room in (1 << 40, 0):
            pipe._core.pretend_memory([needed + room])
            told = step(pipe.estimate(**SMALL), "denoise")
            steps = {**SMALL, "num_inference_steps": 5, "guidance_scale": 1, "audio_guidance_scale": 1}
            seen = []
            pipe.sample(context, **steps, on_step=lambda *_, seen=seen: seen.append(bytes_read()))
            if room and not seen[0]:
                pytest.skip("the system does not count what is read of this file system")
            read = np.diff(seen)
            print(f"told {told['passing']}, read {read}")
            if room:
                assert told["passing"] == 0
                assert read.max() == 0
            else:
                # The thread is some of the next step ahead, and at so small a size the pages count that lie on borders.
                assert 0.7 < read.mean() / told["passing"] < 1.3


def forget(path):
    """Has the system give up what it has in memory of a file."""
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def bytes_read():
    """Returns what this process has had read from disks."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("read_bytes")).split()[1])


def reads_past_the_cache(path):
    """Whether the file system lets one."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
    except (AttributeError, OSError):
        return False
    return True


@pytest.mark.parametrize("limit", ["x", float("nan"), 1e9, True])
def test_limits_that_are_none(tiny_paths, limit):
    with pytest.raises(sdltx.InvalidRequestError):
        sdltx.load(*tiny_paths, max_memory=limit)


def test_limits(tiny_paths, expected):
    all_stays_free = sdltx.load(*tiny_paths, precision="f32", max_memory=-1 << 19)
    with all_stays_free as pipe, pytest.raises(sdltx.OutOfMemoryError):
        clip(pipe)
    with sdltx.load(*tiny_paths, precision="f32", max_memory=64, max_vram=-1) as pipe:
        assert all(np.array_equal(a, b) for a, b in zip(clip(pipe), expected, strict=True))


def test_the_command(tiny_paths):
    model = [argument for path in tiny_paths for argument in ("-m", path)]
    size = ["-W", 96, "-H", 64, "--frames", 17]
    done = run("estimate", *model, *size, "--json")
    assert done.returncode == 0, done.stderr
    with sdltx.load(*tiny_paths) as pipe:
        assert json.loads(done.stdout) == pipe.estimate(width=96, height=64, num_frames=17)
    done = run("estimate", *model, *size, "--tile-size", 64, "--tile-overlap", 32)
    assert "of memory at most" in done.stdout
    assert [line.split("  ")[0] for line in done.stdout.splitlines()[1:5]] == [
        "encode prompts",
        "denoise",
        "decode pictures",
        "decode sound",
    ]
    assert errors(run("estimate", *model, "-W", 65))[0].startswith("error: [sample] width")


def decode_step(pipe, tiling=None):
    size = {"width": 512, "height": 512, "num_frames": 17}
    return step(pipe.estimate(**size, tiling=tiling), "decode pictures")["memory"]


@pytest.fixture
def latents():
    rng = np.random.default_rng(0)
    return sdltx.Latents(rng.standard_normal((8, 3, 16, 16), np.float32), None, 24)


def test_tiles_are_chosen_by_what_fits(tiny_paths, latents, caplog):
    small = sdltx.Tiling(256, 64, 32, 16)
    with sdltx.load(*tiny_paths) as pipe:
        room = decode_step(pipe, small) + (1 << 20)
        assert room < decode_step(pipe)
        expected = pipe.decode(latents, tiling=small)
        pipe._core.pretend_memory([room])
        told = step(pipe.estimate(width=512, height=512, num_frames=17), "decode pictures")
        assert told["tiles"] == list(small)
        assert told["memory"] <= room
        assert not told["misfit"]
        assert step(pipe.estimate(width=64, height=64, num_frames=9), "decode pictures")["tiles"] is None
        made = pipe.decode(latents)
        assert made.metadata["tiling"] == list(small)
        assert np.array_equal(made.frames, expected.frames)
        with pytest.raises(sdltx.OutOfMemoryError, match="smaller tiles"):  # what is asked for is not changed
            pipe.decode(latents, tiling=sdltx.Tiling())
        pipe._core.pretend_memory([1 << 20])
        told = step(pipe.estimate(width=512, height=512, num_frames=17), "decode pictures")
        with pytest.raises(sdltx.OutOfMemoryError, match="smaller tiles") as refused:
            pipe.decode(latents)
        assert told["misfit"].startswith("[decode pictures] needs ")
        assert str(refused.value).startswith("[decode pictures] needs ")
    with sdltx.load(*tiny_paths, offload="none") as pipe:
        pipe._core.pretend_memory([room])
        with pytest.raises(sdltx.OutOfMemoryError, match="smaller tiles"):
            pipe.decode(latents)


def test_memory_that_others_take_meanwhile(tiny_paths, latents, caplog):
    with sdltx.load(*tiny_paths) as pipe:
        size = {"width": 512, "height": 512, "num_frames": 17, "tiling": sdltx.Tiling(256, 64, 32, 16)}
        (used,) = step(pipe.estimate(**size), "decode pictures")["devices"]
        room = used["weights"] + used["inputs"] + used["working"]
        told = []

        class Told(VideoJob):
            def on_tiles(self, tiling):
                super().on_tiles(tiling)
                told.append(tiling)

        def progress(phase, done, total):
            if phase == "decode" and done == 0:
                pipe._core.pretend_memory([room])

        job = Told(sdltx.Request("", **SMALL), latents=latents)
        pipe.run([job], progress=progress)
        assert job.error is None
        assert "trying smaller tiles" in caplog.text
        assert told[-1].size <= 256
        assert job.video.metadata["tiling"] == list(told[-1])
        pipe._core.pretend_memory([])
        expected = pipe.decode(latents, tiling=told[-1])
        assert np.array_equal(job.video.frames, expected.frames)


@pytest.mark.by_day(1)
@pytest.mark.parametrize("tiling", [None, sdltx.Tiling()])
def test_networks_of_sound_and_pictures_take_turns(tiny_paths, workers, tiling):
    """What each fits into alone is enough for a clip with both, in the tiles that were asked for."""
    with sdltx.load(*tiny_paths, precision="f32", device=workers[0]) as pipe:
        latents = pipe.sample(pipe.encode("a red ball bounces"), **SMALL)
        expected = pipe.decode(latents, tiling=tiling)
        size = {name: SMALL[name] for name in ("width", "height", "num_frames")}
        devices = [
            step(pipe.estimate(**size, tiling=tiling), name)["devices"][0]
            for name in ("decode pictures", "decode sound")
        ]
        room = max(one["weights"] + one["inputs"] + one["working"] for one in devices)
        assert room < devices[0]["weights"] + devices[1]["weights"] + devices[0]["working"]
        pipe._core.pretend_memory([room + (64 << 10), 1 << 40])
        told = step(pipe.estimate(**size, tiling=tiling), "decode pictures")
        assert (told["misfit"], told["tiles"]) == ("", None)
        made = pipe.decode(latents, tiling=tiling)
        assert np.array_equal(made.frames, expected.frames)
        assert np.array_equal(made.audio, expected.audio)
        assert made.metadata.get("tiling") == expected.metadata.get("tiling")


def test_an_upscaler_that_does_not_fit_is_refused_at_once(tiny_paths, tiny_dir, workers):
    upscaler = tiny_dir / "tiny-spatial-upscaler-x2.safetensors"
    size = {"width": 128, "height": 64, "num_frames": 17, "upscaler": [upscaler]}
    with sdltx.load(*tiny_paths, precision="f32") as pipe:
        context = pipe.encode("a red ball bounces")
    with sdltx.load(*tiny_paths, precision="f32", device=workers[0]) as pipe:
        used = step(pipe.estimate(**size), "upscale")["devices"][0]
        needed = used["weights"] + used["inputs"] + used["working"]
        pipe._core.pretend_memory([needed - (64 << 10), 1 << 40])
        steps = pipe.estimate(**size)["steps"]
        assert step({"steps": steps}, "upscale")["misfit"].startswith("[upscale] needs ")
        others = [one for one in steps if one["step"] == "denoise"]
        assert others
        phases = []
        with pytest.raises(sdltx.OutOfMemoryError, match=r"needs .* are free"):
            pipe.sample(context, negative=context, **size, seed=1, progress=lambda phase, *_: phases.append(phase))
        assert phases == []


def test_a_child_that_was_forked_in_a_run_ends(tmp_path):
    """Also where it leaves that run, whose thread it has not."""
    path = tmp_path / "fp8.safetensors"
    encoded.write(path, wide_rows.write(tmp_path / "wide.safetensors"), "float8_e4m3fn", test_encodings.is_large)
    program = f"""
import os, signal
import numpy as np
import sdltx

class Stop(Exception): pass

children = []

def on_step(*_):
    if children:
        return
    for kind in range(4):
        children.append(os.fork())
        if not children[-1]:
            signal.alarm(20)
            if kind % 2:
                raise Stop
            return

rng = np.random.default_rng(5)
context = sdltx.Context(rng.standard_normal((64, 512), np.float32), rng.standard_normal((64, 256), np.float32))
with sdltx.load({str(path)!r}, threads=1) as pipe:
    try:
        pipe.sample(context, width=96, height=64, num_frames=17, seed=1, sigmas=[1, 0.7, 0.5, 0], preset="distilled",
                    on_step=on_step)
    except Stop:
        pass
if children[-1]:
    print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.stdout.strip() == "[0, 0, 0, 0]", done.stderr


def test_keys_of_the_prompt_stay_where_there_is_room():
    """Those of LTX-2.0 are the same in every step: made once, if all weights stay as well."""
    folder = Path(__file__).parent / "data" / "tiny-ltx2"
    clip = {**SMALL, "num_inference_steps": 3, "preset": "dev"}
    with sdltx.load(folder / "tiny-ltx-2.safetensors", folder / "gemma", precision="f32") as pipe:
        seen = {}  # by bytes of what lives through the steps: how much of the weights stays, and the clip
        for room in range(28 << 20, 16 << 20, -(1 << 19)):
            pipe._core.pretend_memory([room + RESERVE])
            (used, *_) = step(pipe.estimate(**clip), "denoise")["devices"]
            if used["inputs"] not in seen:
                video = pipe.generate("a red ball bounces", **clip)
                seen[used["inputs"]] = video.frames, video.audio
        (kept, expected), (made_each_time, got) = seen.items()
        blocks, contexts = 2, 2
        one = 2 * 4 * 1024 * (64 + 32)  # of one block and context
        # Three of the four passes share a context either way.
        assert kept - made_each_time == (blocks * contexts - 1) * one
        for a, b in zip(got, expected, strict=True):
            assert np.array_equal(a, b)
