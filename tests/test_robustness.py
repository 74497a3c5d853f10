"""Several threads, forks, callbacks that call back, memory that runs out, files that vanish: one clear word each."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import sdltx
from sdltx import _core

SMALL = {"width": 64, "height": 32, "num_frames": 9, "num_inference_steps": 2, "seed": 7}


@pytest.fixture
def pipe(tiny_paths):
    with sdltx.load(*tiny_paths) as pipe:
        yield pipe


def python(code, **options):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120, **options
    )


# --- one run at a time ---


@pytest.mark.threads
@pytest.mark.sanitize
def test_a_second_thread_is_told_that_the_pipeline_is_busy(pipe):
    """A call from another thread while one runs, whatever it asks for."""
    context = pipe.encode("a fox")
    seen = []

    def other():
        for call in (
            lambda: pipe.encode("a dog"),
            lambda: pipe.sample(context, **SMALL),
            lambda: pipe.tokenize("x"),
            pipe.close,
        ):
            try:
                call()
            except sdltx.SdltxError as error:
                seen.append(type(error))

    def progress(phase, done, total):
        if phase == "denoise" and done == 1:
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()

    latents = pipe.sample(context, **SMALL, progress=progress)
    assert seen == [sdltx.BusyError] * 4
    assert np.array_equal(latents.video, pipe.sample(context, **SMALL).video)


@pytest.mark.threads
@pytest.mark.sanitize
def test_threads_that_retry_all_get_the_same_clip(pipe):
    def generate(_):
        while True:
            try:
                return pipe.generate("a fox", **SMALL).frames
            except sdltx.BusyError:
                threading.Event().wait(0.01)

    with ThreadPoolExecutor(4) as pool:
        clips = list(pool.map(generate, range(4)))
    assert all(np.array_equal(clips[0], clip) for clip in clips)


@pytest.mark.threads
@pytest.mark.sanitize
def test_two_pipelines_run_in_two_threads(tiny_paths):
    pipes = [sdltx.load(*tiny_paths, threads=1) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        a, b = pool.map(lambda p: p.generate("a fox", **SMALL).frames, pipes)
    assert np.array_equal(a, b)


@pytest.mark.sanitize
def test_a_callback_may_use_the_pipeline(pipe):
    """Previews decode between steps, and signals still stop the run afterwards."""
    context = pipe.encode("a fox")
    expected = pipe.sample(context, **SMALL)
    previews = []

    def progress(phase, done, total):
        if phase == "denoise" and done == 1:
            previews.append(pipe.decode(expected).frames)
            previews.append(pipe.sample(context, **SMALL).video)

    latents = pipe.sample(context, **SMALL, progress=progress)
    assert np.array_equal(latents.video, expected.video)
    assert np.array_equal(previews[1], expected.video)


@pytest.mark.sanitize
def test_a_signal_handler_may_not_compute_inside_a_computation(pipe):
    """It runs while a graph does; between units of work, in a callback, it may."""
    context = pipe.encode("a fox")

    def handler(number, frame):
        pipe.encode("a dog")
        signal.setitimer(signal.ITIMER_REAL, 0.02)

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(sdltx.BusyError, match="a computation is running"):
            pipe.sample(context, width=256, height=256, num_frames=65, num_inference_steps=500, seed=1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.sanitize
def test_closed(tiny_paths):
    with sdltx.load(*tiny_paths) as pipe:
        context = pipe.encode("a fox")
        loop = pipe._core.sampler(
            context.video,
            context.audio,
            _core.ClipOptions(width=32, height=32, num_frames=1, frame_rate=1.0, num_inference_steps=1),
        )
    for call in (lambda: pipe.encode("x"), lambda: pipe.sample(context, **SMALL), loop.step, lambda: pipe.tokenize("")):
        with pytest.raises(sdltx.InvalidRequestError, match="closed"):
            call()
    pipe.close()
    assert "LTX" in repr(pipe)


@pytest.mark.sanitize
def test_steps_end(pipe):
    context = pipe.encode("a fox")
    loop = pipe._core.sampler(
        context.video,
        context.audio,
        _core.ClipOptions(width=32, height=32, num_frames=1, frame_rate=1.0, num_inference_steps=1),
    )
    loop.step()
    before = loop.video
    with pytest.raises(sdltx.InvalidRequestError, match="all 1 steps are done"):
        loop.step()
    assert np.array_equal(loop.video, before)


# --- logging ---


@pytest.mark.threads
@pytest.mark.sanitize
def test_logging_from_threads_and_from_handlers():
    """A handler may log, or replace the handler, and threads log while the GIL is fought for: nobody waits for ever."""
    done = python(
        """
        import logging, threading, sdltx
        import sdltx._core_tests
        from sdltx import _core
        pipe = sdltx.load()
        lines = []
        def handler(level, text):
            lines.append(text)
            if len(lines) % 3 == 0:
                _core.set_log(handler)
            if len(lines) % 7 == 0:
                pipe.info
        _core.set_log(handler)
        def work():
            for _ in range(20):
                try:
                    pipe.tokenize("a red ball " * 500)  # warns that the prompt is cut
                except sdltx.BusyError:
                    pass
        threads = [threading.Thread(target=work) for _ in range(4)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        print(len(lines) > 10)
        """
    )
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


@pytest.mark.sanitize
def test_an_interrupt_inside_a_log_handler_stops_the_run():
    """Where a signal arrives there is left to chance; it must not get lost there."""
    done = python(
        """
        import sdltx
        import sdltx._core_tests
        from sdltx import _core
        pipe = sdltx.load()
        def handler(level, text):
            raise KeyboardInterrupt
        _core.set_log(handler)
        try:
            pipe.encode("a red ball " * 500)
            print("lost")
        except KeyboardInterrupt:
            print("stopped")
        """
    )
    assert (done.returncode, done.stdout) == (0, "stopped\n"), done.stderr


# --- processes ---


def _generate_in_child(queue, paths):
    try:
        queue.put(sdltx.load(*paths, threads=2).generate("a fox", **SMALL).frames.shape)
    except sdltx.SdltxError as error:
        queue.put(str(error))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_says_what_to_do_instead_of_waiting_for_ever(tiny_paths):
    sdltx.load(*tiny_paths, threads=2).encode("a fox")
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_generate_in_child, args=(queue, tiny_paths))
    child.start()
    said = queue.get(timeout=60)
    child.join(10)
    assert "spawn" in said


# --- memory ---


@pytest.mark.by_day(1)
@pytest.mark.parametrize("megabytes", [300, 450, 512, 700, 1000])
def test_too_little_memory_is_an_error_and_not_a_crash(tmp_path, megabytes):
    """Wherever it runs out: an exception with a name, no half-written file, and no signal."""
    done = subprocess.run(
        [
            *("bash", "-c", f'ulimit -v {megabytes * 1024}; exec "$@"', "-", sys.executable, "-m", "sdltx"),
            *("generate", "-p", "x", "-W", "384", "-H", "384", "-s", "1", "--no-audio", "-t", "1"),
            *("--steps", "1", "-o", str(tmp_path / "m.mp4")),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode >= 0, done.stderr
    assert done.returncode in (0, 5, 6), done.stderr
    assert {p.name for p in tmp_path.iterdir()} <= {"m.mp4", "m.latents.safetensors"}
    if done.returncode:
        assert "GGML_ASSERT" not in done.stderr


def test_the_memory_of_a_run_ends_with_it_even_if_it_fails(tiny_paths):
    code = f"""
        import sdltx
        def anonymous():
            with open("/proc/self/status") as status:
                return next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))
        pipe = sdltx.load(*{tiny_paths!r})
        context = pipe.encode("a fox")
        def progress(phase, done, total):
            if phase == "denoise" and done == 1:
                print(anonymous() - before)
                raise ZeroDivisionError
        for _ in range(2):
            before = anonymous()
            try:
                pipe.sample(context, width=1024, height=1024, num_frames=33, seed=1, progress=progress)
            except ZeroDivisionError:
                print(anonymous() - before)
    """
    # What is freed goes back to the system at once, and so can be seen.
    done = python(code, env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"})
    _, _, during, after = map(int, done.stdout.split())
    print(f"{during} kB during, {after} kB after")
    assert during > 2_000
    assert after < during / 5


# --- the end of a process ---


def test_an_assertion_says_one_line_and_leaves_no_file(tmp_path):
    done = python(
        f"""
        from pathlib import Path
        import sdltx._core_tests
        from sdltx import _core, _files
        temporary = _files.temporary_beside(Path({str(tmp_path / "clip.mp4")!r}))
        assert temporary.exists()
        _core.ops.abort("a test")
        """
    )
    assert done.returncode == -signal.SIGABRT
    assert done.stderr.count("\n") == 1
    assert "please report" in done.stderr
    assert "a test" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_model_file_cut_off_while_in_use_is_named(tiny_paths, tmp_path):
    copy = tmp_path / "model.safetensors"
    shutil.copy(tiny_paths[0], copy)
    done = python(
        f"""
        import os, sdltx
        pipe = sdltx.load({str(copy)!r}, {tiny_paths[1]!r})
        os.truncate({str(copy)!r}, 4096)
        pipe.generate("a fox", width=32, height=32, num_frames=1, num_inference_steps=1)
        """
    )
    assert done.returncode == 1
    assert f"ModelFileError: [{copy}] was cut off" in done.stderr


@pytest.mark.by_day(1)
@pytest.mark.parametrize("options", ['offload="none"', 'offload="blocks"', 'precision="f32"', 'device="WORKER"'])
def test_files_that_shrink_are_errors_of_the_call(tiny_paths, tmp_path, options, workers):
    """While it denoises, before it decodes, before anything; restored, the same file gives the same clip."""
    copy = tmp_path / "model.safetensors"
    shutil.copy(tiny_paths[0], copy)
    options = options.replace("WORKER", workers[0])
    done = python(
        f"""
        import os, shutil, sdltx
        copy, encoder = {str(copy)!r}, {tiny_paths[1]!r}
        clip = dict(width=64, height=64, num_frames=9, num_inference_steps=2, preset="distilled", seed=1)
        def load():
            shutil.copy({tiny_paths[0]!r}, copy)
            return sdltx.load(copy, encoder, {options})
        def outcome(call):
            try:
                call()
                return "whole"  # what it needs is in memory
            except sdltx.ModelFileError as error:
                assert str(error).startswith(f"[{{copy}}] was cut off"), error
                return "error"
            except sdltx.BackendError as error:
                assert "WORKER" not in {options!r} and "rpc" in {options!r}, error
                return "error"
        with load() as pipe:
            first = pipe.generate("a fox", **clip)
        seen = []
        for size in (4096, os.path.getsize(copy) // 2, os.path.getsize(copy) - 4096):
            for phase in ("load", "encode", "denoise", "decode"):
                with load() as pipe:
                    def cut(now, done, total):
                        if now == phase:
                            os.truncate(copy, size)
                    if phase == "load":
                        os.truncate(copy, size)
                    seen.append(outcome(lambda: pipe.generate("a fox", progress=cut, **clip)))
                    if seen[-1] == "error":  # and again, until it is loaded anew
                        seen.append(outcome(lambda: pipe.generate("a fox", **clip)))
                        assert seen[-1] == "error"
        with load() as pipe:
            again = pipe.generate("a fox", **clip)
        assert (first.frames == again.frames).all() and (first.audio == again.audio).all()
        print(seen.count("whole"), seen.count("error"))
        """
    )
    assert done.returncode == 0, done.stderr
    whole, failed = map(int, done.stdout.split())
    print(f"{whole} runs had all that they needed, {failed} failed")
    assert failed >= 4


@pytest.mark.parametrize("kind", ["keep", "q8_0"])
def test_a_source_that_shrinks_leaves_no_output(tiny_paths, tmp_path, kind):
    copy = tmp_path / "model.safetensors"
    shutil.copy(tiny_paths[0], copy)
    done = python(
        f"""
        import os, sdltx
        def cut(phase, done, total):
            os.truncate({str(copy)!r}, 200_000)
        sdltx.convert({str(copy)!r}, output={str(tmp_path / "out.gguf")!r}, type={kind!r}, threads=1, progress=cut)
        """
    )
    assert f"ModelFileError: [{copy}] was cut off" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_until_something_is_decoded_no_byte_of_the_decoders_is_read(tiny_paths, tmp_path):
    """The file that holds them loses its data after loading: reading any is an error."""
    from safetensors import safe_open
    from safetensors.numpy import save_file

    with safe_open(tiny_paths[0], "numpy") as file:
        metadata = file.metadata()
        names = list(file.keys())
    source = _core.ModelFiles(tiny_paths[:1])
    for path, wanted in (("dit", True), ("decoders", False)):
        arrays = {n: source.tensor(n) for n in names if n.startswith(("model.", "text_")) == wanted}
        save_file(arrays, tmp_path / f"{path}.safetensors", metadata)
    code = f"""
        import os, struct, sdltx
        decoders = {str(tmp_path / "decoders.safetensors")!r}
        pipe = sdltx.load({str(tmp_path / "dit.safetensors")!r}, decoders, {tiny_paths[1]!r})
        with open(decoders, "rb") as file:
            header = 8 + struct.unpack("<Q", file.read(8))[0]
        os.truncate(decoders, header)
        pipe.sample(pipe.encode("a fox"), width=32, height=32, num_frames=9, num_inference_steps=1, seed=1)
        print("sampled", flush=True)
        pipe.decode_audio(sdltx.Latents(video=[[[[0.0]]]], audio=[[[0.0] * 16] * 3] * 2))
    """
    done = python(code)
    assert done.stdout == "sampled\n", done.stderr
    assert "decoders.safetensors] was cut off" in done.stderr


@pytest.mark.sanitize
def test_threads_follow_affinity_and_not_the_machine():
    code = """
        import os
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        import sdltx
        import sdltx._core_tests
        from sdltx import _core
        print(_core.usable_processors())
    """
    assert python(code).stdout == "1\n"
    assert 1 <= _core.usable_processors() <= (os.cpu_count() or 1)


def test_the_last_words_also_remove_folders_of_frames(tmp_path):
    done = python(
        f"""
        from pathlib import Path
        import sdltx._core_tests
        from sdltx import _core
        folder = Path({str(tmp_path / "frames.tmp")!r})
        folder.mkdir()
        for i in range(300):
            (folder / f"frame_with_a_long_name_{{i:04d}}.png").touch()
        _core.guard_file(str(folder))
        _core.ops.abort("a test")
        """
    )
    assert done.returncode == -signal.SIGABRT
    assert list(tmp_path.iterdir()) == []


@pytest.mark.by_day(1)
@pytest.mark.sanitize
@pytest.mark.parametrize("what", ["sample", "callback", "encode", "decode", "load", "log"])
def test_a_program_may_end_while_a_daemon_thread_computes(what):
    """As the web interfaces do that keep their model in a thread."""
    code = """
import logging, sys, threading, time, sdltx
pipe = sdltx.load(threads=1)
context = pipe.encode("a red square")
latents = pipe.sample(context, width=128, height=128, num_frames=97, num_inference_steps=1, seed=1)
clip = {"width": 64, "height": 64, "num_frames": 97, "num_inference_steps": 20, "seed": 1}
def sample(): pipe.sample(context, **clip)
def callback(): pipe.sample(context, **clip, progress=lambda *_: None, on_step=lambda *_: None)
def encode():
    while True: pipe.encode("a red square " * 100)
def decode():
    while True: pipe.decode(latents)
def load():
    while True: sdltx.load(threads=1)
def log():
    logging.getLogger("sdltx").setLevel(logging.DEBUG)
    while True: pipe.encode("word " * 2000)
threading.Thread(target=globals()[sys.argv[1]], daemon=True).start()
time.sleep(0.3)
"""
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code, what], capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stderr) == (0, "")
