"""Devices of other processes: the branch of every operation that a GPU takes, and several devices at once."""

from __future__ import annotations

import logging
import re
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from compare import assert_close

import sdltx

SMALL = {"width": 96, "height": 64, "num_frames": 17, "frame_rate": 24, "seed": 3, "num_inference_steps": 3}
SMALL["preset"] = "distilled"  # without guidance


def everything(paths, **options) -> dict[str, np.ndarray]:
    with sdltx.load(*paths, **options) as pipe:
        context = pipe.encode("a red ball bounces")
        latents = pipe.sample(context, **SMALL)
        video = pipe.decode(latents)
        return {
            "video context": context.video,
            "audio context": context.audio,
            "video latents": latents.video,
            "audio latents": latents.audio,
            "frames": video.frames,
            "sound": video.audio,
        }


@pytest.fixture(scope="module")
def on_cpu(tiny_paths):
    return everything(tiny_paths, precision="f32")


@pytest.fixture(scope="module")
def on_worker(tiny_paths, workers):
    return everything(tiny_paths, precision="f32", device=workers[0])


@pytest.mark.by_day(0)
def test_a_worker_adds_up_in_another_order(on_cpu, on_worker):
    """By ggml's kernels, as our own are for the memory of the host."""
    assert np.abs(on_cpu["frames"].astype(int) - on_worker["frames"]).max() <= 1
    for name in ("video context", "audio context", "video latents", "audio latents", "sound"):
        assert_close(name, on_worker[name], on_cpu[name], 2e-5)


@pytest.mark.by_day(2)
@pytest.mark.sanitize
@pytest.mark.parametrize("offload", ["none", "stage", "blocks"])
@pytest.mark.parametrize("count", [1, 2])
def test_workers_give_the_same_bits(tiny_paths, workers, on_worker, count, offload):
    there = everything(tiny_paths, precision="f32", device=workers[:count], offload=offload)
    for name, values in on_worker.items():
        assert np.array_equal(values, there[name]), name


@pytest.mark.by_day(0)
def test_half_precision_differs_a_little(tiny_paths, workers):
    """GPUs attend in half precision; nothing else differs."""
    here = everything(tiny_paths)
    there = everything(tiny_paths, device=workers[0], offload="blocks")
    for name in ("video context", "audio context", "video latents", "audio latents"):
        difference = np.sqrt(np.mean((here[name] - there[name]) ** 2) / np.mean(here[name] ** 2))
        print(f"{name}: {difference:.1e}")
        assert difference < 1e-2


def test_blocks_take_turns_in_two_buffers(tiny_paths, workers):
    """The block that computes and the next one are on the device, and what belongs to no block."""
    held = {}
    for offload in ("stage", "blocks"):
        with sdltx.load(*tiny_paths, device=workers[0], precision="f32", offload=offload) as pipe:
            seen = []

            def progress(phase, done, total, seen=seen, pipe=pipe):
                if phase == "denoise":
                    seen.append(pipe.memory()[0]["weights"])

            pipe.sample(pipe.encode("a fox"), **SMALL, progress=progress)
            held[offload] = max(seen)
            assert pipe.memory()[0] == {"device": workers[0], "weights": 0, "mapped": 0, "inputs": 0, "working": 0}
    block = next(n for n in pipe_block_bytes(tiny_paths))
    print(f"{held}, a block has {block}")
    assert held["stage"] - held["blocks"] == pytest.approx(block, rel=0.05)  # 2 of 3 are there


def pipe_block_bytes(paths):
    from sdltx import _core

    files = _core.ModelFiles(paths)
    for index in range(3):
        prefix = f"model.diffusion_model.transformer_blocks.{index}."
        yield sum(files.tensor(name).nbytes for name in files.names() if name.startswith(prefix))


def test_weights_are_spread_over_devices(tiny_paths, workers):
    with sdltx.load(*tiny_paths, device=workers, precision="f32") as pipe:
        pipe.sample(pipe.encode("a fox"), **SMALL)
        first, second, cpu = pipe.memory()
        assert first["weights"] > 0 and second["weights"] > 0 and cpu["weights"] == 0
        assert pipe.device == ",".join(workers)


def test_a_run_on_a_worker_is_cancelled_within_a_block(tiny_paths, workers):
    class Stop(Exception):
        pass

    def progress(phase, done, total):
        if phase == "denoise" and done == 2:
            raise Stop

    with sdltx.load(*tiny_paths, device=workers[0]) as pipe:
        context = pipe.encode("a fox")
        with pytest.raises(Stop):
            pipe.sample(context, **SMALL, progress=progress)
        pipe.sample(context, **SMALL)


def test_a_stop_in_one_piece_of_a_run_ends_all(workers):
    """Where a device lacks an operation a run goes in pieces, and the next answer need not be another stop."""
    assert sdltx._core.ops.stop_ends_all_pieces(workers[0])


# --- errors ---


@pytest.mark.sanitize
def test_one_pipeline_at_a_time(tiny_paths, workers, monkeypatch):
    monkeypatch.setenv("SDLTX_WORKER_TIMEOUT", "0.5")
    with sdltx.load(*tiny_paths, device=workers[0]):
        with pytest.raises(sdltx.BusyError, match="another pipeline"):
            sdltx.load(*tiny_paths, device=workers[0])
        code = f"import sdltx; sdltx.load(*{tiny_paths!r}, device={workers[0]!r})"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "BusyError" in other.stderr
        command = [sys.executable, "-m", "sdltx", "generate", "-p", "a fox", "--dry-run", "--device", workers[0]]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 6  # not a bug of ours
        assert "serves one client at a time" in done.stderr
    sdltx.load(*tiny_paths, device=workers[0]).close()


@pytest.mark.parametrize("device", ["rpc:", "rpc:localhost", "rpc:localhost:x", "rpc:a:b:1", "rpc::1"])
def test_addresses(tiny_paths, device):
    with pytest.raises(sdltx.InvalidRequestError, match="rpc:HOST:PORT"):
        sdltx.load(*tiny_paths, device=device)


def test_lists_of_devices(tiny_paths, workers):
    with pytest.raises(sdltx.BusyError):
        sdltx.load(*tiny_paths, device=[workers[0], workers[0]])
    with pytest.raises(sdltx.InvalidRequestError, match="leave it out"):
        sdltx.load(*tiny_paths, device=["cpu", workers[0]])
    with pytest.raises(sdltx.BackendError, match="no device 'gpu'"):
        sdltx.load(*tiny_paths, device=[workers[0], "gpu"])


def test_nobody_there(tiny_paths):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(sdltx.BackendError, match="start a worker there"):
        sdltx.load(*tiny_paths, device=f"rpc:127.0.0.1:{port}")


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.0 400 Bad Request\r\n\r\n" + b" " * 100])
def test_somebody_else_there(tiny_paths, answer):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def serve():
            client, _ = server.accept()
            with client:
                client.recv(64)
                client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(sdltx.BackendError, match="not a worker"):
            sdltx.load(*tiny_paths, device=f"rpc:127.0.0.1:{server.getsockname()[1]}")
        thread.join()


@pytest.mark.by_day(1)
@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--host", "nowhere"], "not an IPv4 address"),
        (["--port", "0"], "within 1 to 65535"),
        (["--device", "gpu"], "no device 'gpu'"),
    ],
)
def test_bad_arguments_of_a_worker(arguments, message):
    done = subprocess.run([sys.executable, "-m", "sdltx", "worker", *arguments], capture_output=True, text=True)
    assert done.returncode in (2, 6)
    assert message in done.stderr


def test_a_port_in_use_and_a_warning():
    with socket.socket() as server:
        server.bind(("0.0.0.0", 0))
        server.listen()
        command = [sys.executable, "-m", "sdltx", "worker", "--host", "0.0.0.0", "--port", str(server.getsockname()[1])]
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 6
    assert "everybody who reaches" in done.stderr and "SDLTX_WORKER_SECRET" in done.stderr
    assert "is the port in use?" in done.stderr


# --- workers that go away ---


def start_worker(port):
    command = [sys.executable, "-m", "sdltx", "worker", "--port", str(port), "-t", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert b"serving cpu" in process.stderr.readline()
    for _ in range(100):
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return process
        time.sleep(0.1)
    raise AssertionError("the worker does not listen")


@pytest.fixture
def mortal():
    """A worker to kill: its process and its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with start_worker(port) as process:
        yield process, port
        process.kill()


@pytest.mark.by_day(2)
@pytest.mark.parametrize("phase", ["idle", "load", "encode", "denoise", "upscale", "decode", "sound"])
@pytest.mark.parametrize("offload", ["none", "blocks"])
def test_a_worker_that_goes_away_is_an_error_of_the_call(tiny_paths, tiny_dir, mortal, phase, offload):
    """And nothing at all when the pipeline is closed and when the program ends."""
    process, port = mortal
    code = f"""
import os, signal, sdltx
pipe = sdltx.load(*{tiny_paths!r}, device="rpc:127.0.0.1:{port}", offload={offload!r})
phase = {phase!r}
def gone():
    try:
        os.kill({process.pid}, signal.SIGKILL)
    except ProcessLookupError:
        pass
def progress(now, done, total):
    if now == phase:
        gone()
if phase == "idle":
    context = pipe.encode("a fox")
    gone()
for _ in range(2):  # it stays an error
    try:
        pipe.generate("a fox", width=64, height=64, num_frames=9, num_inference_steps=2, preset="distilled", seed=1,
                      upscaler={str(tiny_dir / "tiny-spatial-upscaler-x2.safetensors")!r}, progress=progress)
        raise SystemExit("no error")
    except sdltx.BackendError as error:
        assert "127.0.0.1:{port} is gone" in str(error), error
if {offload!r} == "none":
    pipe.close()
with sdltx.load(*{tiny_paths!r}) as here:
    here.encode("a fox")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_worker_that_comes_back(tiny_paths, mortal):
    process, port = mortal
    device = f"rpc:127.0.0.1:{port}"
    with sdltx.load(*tiny_paths, device=device) as pipe:
        before = pipe.encode("a fox")
        process.kill()
        process.wait()
        with pytest.raises(sdltx.BackendError, match="is gone"):
            pipe.encode("a fox")
    process = start_worker(port)
    try:
        with sdltx.load(*tiny_paths, device=device) as pipe:
            np.testing.assert_array_equal(pipe.encode("a fox").video, before.video)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_norms_stand_together(tiny_paths, workers, monkeypatch, caplog):
    """GPUs compute a norm and the products and sums behind it in one pass if nothing stands between them.

    ggml's scheduler tells operations by their numbers in a plan; views, which cost nothing, only by the gaps.
    """
    monkeypatch.setenv("GGML_SCHED_DEBUG", "2")
    with sdltx.load(*tiny_paths, device=workers[0]) as pipe, caplog.at_level(logging.DEBUG, "sdltx"):
        context = pipe.encode("a")
        caplog.clear()
        pipe.sample(context, **SMALL)
    lines = (re.match(r"node #\s*(\d+) \(\s*(\S+)\)", record.getMessage()) for record in caplog.records)
    nodes = [(int(line[1]), line[2]) for line in lines if line]
    followed: dict[tuple[str, ...], int] = {}
    for (number, kind), *others in zip(nodes, nodes[1:], nodes[2:], strict=False):
        if kind == "RMS_NORM":
            chain = [after for i, (at, after) in enumerate(others, 1) if at == number + i]
            followed[tuple(chain)] = followed.get(tuple(chain), 0) + 1
    modulated, weighted = (
        sum(n for chain, n in followed.items() if chain[:length] == wanted and len(chain) == length)
        for length, wanted in ((2, ("MUL", "ADD")), (1, ("MUL",)))
    )
    # Of both streams of a block: before attention to itself, to text and to the other, as queries and as keys, and
    # before the feed-forward; of queries and keys of the three.
    blocks = modulated // 10
    assert blocks >= 9 and modulated == blocks * 10
    assert weighted == blocks * 12 and sum(followed.values()) == modulated + weighted
