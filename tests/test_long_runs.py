"""What goes on for days: many runs in a process, many threads and processes, clocks that jump, closed homes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from commands import TINY_CLIP, run

import sdltx

NIGHTLY = os.environ.get("SDLTX_NIGHTLY")
CLIP = {"width": 64, "height": 64, "num_frames": 9, "num_inference_steps": 2, "preset": "distilled", "seed": 1}

CYCLES = """
import gc, os, sys
import numpy as np
import sdltx

cycles, model, encoder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
clip = dict(width=64, height=64, num_frames=9, num_inference_steps=2, preset="distilled")

def expected(kind, call):
    try:
        call()
    except kind:
        return
    raise SystemExit("no error")

def stop(phase, done, total):
    if phase == "denoise" and done:
        raise sdltx.Cancelled("enough")

def state():
    gc.collect()
    with open("/proc/self/status") as lines:
        told = dict(line.split(":", 1) for line in lines)
    return int(told["RssAnon"].split()[0]), len(os.listdir("/proc/self/fd")), int(told["Threads"])

first = None
for i in range(cycles):
    options = ({}, {"precision": "f32"}, {"offload": "blocks"}, {"threads": 1})[i % 4]
    expected(sdltx.ModelFileError, lambda: sdltx.load(__file__))
    with sdltx.load(model, encoder, **options) as pipe:
        video = pipe.generate("a fox", seed=i % 4, **clip)
        expected(sdltx.Cancelled, lambda: pipe.generate("a fox", seed=1, progress=stop, **clip))
        expected(sdltx.InvalidRequestError, lambda: pipe.generate("a fox", **{**clip, "width": 63}))
        expected(sdltx.ModelFileError, lambda: pipe.generate("a fox", loras=[(__file__, 1.0)], **clip))
        expected(ZeroDivisionError, lambda: pipe.generate("a fox", progress=lambda *_: 1 / 0, **clip))
        if i % 4 == 0:
            first = video if first is None else first
            assert np.array_equal(video.frames, first.frames) and np.array_equal(video.audio, first.audio), i
    del video
    print(*state(), flush=True)
"""


def test_cycles(tiny_paths, tmp_path):
    """Load, generate, cancel, fail, close: memory, handles and threads stay what they were after the first ones."""
    cycles = 1000 if NIGHTLY else 12
    program = tmp_path / "cycles.py"
    program.write_text(CYCLES)
    command = [sys.executable, str(program), str(cycles), *tiny_paths]
    # Memory that the C library keeps for the next time is not ours to count.
    environment = os.environ | {"MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000, env=environment)
    assert done.returncode == 0, done.stderr
    told = np.array([list(map(int, line.split())) for line in done.stdout.splitlines()])
    assert len(told) == cycles
    warm = told[cycles // 4 :]
    memory, handles, threads = warm[:, 0], warm[:, 1], warm[:, 2]
    early, late = np.median(memory[: len(memory) // 3]), np.median(memory[-len(memory) // 3 :])
    print(f"{cycles} cycles: {early:.0f} kB, then {late:.0f} kB; {handles[-1]} handles, {threads[-1]} threads")
    assert late <= early * (1.01 if NIGHTLY else 1.05)
    assert len(set(handles)) == 1
    assert len(set(threads)) <= 2 and threads[-1] <= threads[0]


@pytest.mark.by_day(0)
def test_eight_threads_on_four_pipelines(tiny_paths):
    pipes = [sdltx.load(*tiny_paths, threads=1) for _ in range(4)]
    expected = pipes[0].generate("a fox", **CLIP)
    done, failures = [0] * 8, []

    def work(number: int) -> None:
        try:
            while done[number] < (40 if NIGHTLY else 2):
                try:
                    video = pipes[number % 4].generate("a fox", **CLIP)
                except sdltx.BusyError:
                    continue
                assert np.array_equal(video.frames, expected.frames)
                assert np.array_equal(video.audio, expected.audio)
                done[number] += 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(600)
    for pipe in pipes:
        pipe.close()
    assert not failures
    assert min(done) >= 2


def test_two_processes_on_one_model(tiny_paths, tmp_path):
    """They read the same files and write into the same folder at once."""
    model = ["-m", tiny_paths[0], "-m", tiny_paths[1], "--preset", "distilled"]
    command = [sys.executable, "-m", "sdltx", "generate", "-p", "a fox", *TINY_CLIP, *model]
    running = [
        subprocess.Popen(
            [*command, "-o", str(tmp_path / f"{i}.mp4"), "--save-latents", str(tmp_path / f"{i}.safetensors")]
        )
        for i in range(6 if NIGHTLY else 2)
    ]
    running.append(
        subprocess.Popen(
            [sys.executable, "-m", "sdltx", "convert", tiny_paths[0], str(tmp_path / "m.gguf"), "--type", "q8_0"]
        )
    )
    assert [process.wait(300) for process in running] == [0] * len(running)
    clips = {path.read_bytes() for path in tmp_path.glob("*.mp4")}
    assert len(clips) == 1
    assert len(list(tmp_path.iterdir())) == 2 * (len(running) - 1) + 1


CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>
/* The time of day jumps years back and forth with every call; the clock that only goes on is left as it is. */
static long jump(void) {
    static _Atomic unsigned long calls;
    return (long)((calls++ * 2654435761u) % 63072000u) - 31536000;
}
int clock_gettime(clockid_t id, struct timespec* to) {
    static int (*real)(clockid_t, struct timespec*);
    if (!real) real = (int (*)(clockid_t, struct timespec*))dlsym(RTLD_NEXT, "clock_gettime");
    const int result = real(id, to);
    if (id == CLOCK_REALTIME && result == 0) to->tv_sec += jump();
    return result;
}
time_t time(time_t* to) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (to) *to = now.tv_sec;
    return now.tv_sec;
}
int gettimeofday(struct timeval* to, void* zone) {
    (void)zone;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    to->tv_sec = now.tv_sec;
    to->tv_usec = now.tv_nsec / 1000;
    return 0;
}
"""


def test_clocks_that_jump(tmp_path, monkeypatch):
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "clock.c").write_text(CLOCK)
    library = tmp_path / "clock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", str(tmp_path / "clock.c"), "-o", str(library), "-ldl"], check=True)
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text(
        '{"prompt": "a", "seed": 1, "width": 64, "height": 64, "num_frames": 9, "num_inference_steps": 1}\n'
    )
    results = []
    for preloaded in ("", str(library)):
        environment = os.environ | {"LD_PRELOAD": preloaded}
        folder = tmp_path / f"out{len(results)}"
        for _ in range(2):  # the second time all is there
            done = run("batch", jobs, "-o", folder, env=environment)
            assert done.returncode == 0, done.stderr
        assert "1 of 1" in done.stderr or "is there" in done.stderr, done.stderr
        results.append((folder / "0001.mp4").read_bytes())
    assert results[0] == results[1]


@pytest.mark.by_day(0)
def test_homes_that_are_closed(tmp_path):
    """No home, one that cannot be written to, one that is a file: clips are made all the same."""
    (tmp_path / "file").touch()
    gone = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    for number, home in enumerate((tmp_path / "none", tmp_path / "file", Path("/proc"), None)):
        environment = {name: value for name, value in gone.items() if name != "HOME"}
        if home is not None:
            environment["HOME"] = str(home)
        output = tmp_path / f"{number}.mp4"
        done = run("generate", "-p", "a", *TINY_CLIP, "-o", output, env=environment)
        assert done.returncode == 0, done.stderr
        assert output.exists()
        assert "Traceback" not in done.stderr
        assert run("models", env=environment).returncode == 0
