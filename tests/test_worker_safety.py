"""Workers and their clients when the other side is a stranger, broken or hostile: nobody ends, hangs or is let in."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import random
import re
import secrets
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import sdltx

SECRET = "SDLTX_WORKER_SECRET"
GREETING = b"sdltx wants a secret 1\n"
HELLO = bytes([14]) + struct.pack("<Q", 24) + bytes(24)
SEEDS = range(200 if os.environ.get("SDLTX_NIGHTLY") else 6)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def worker(*options: str, **environment: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Its port and process."""
    port = free_port()
    command = [sys.executable, "-m", "sdltx", "worker", "--port", str(port), "-t", "1", *options]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ | environment
    ) as process:
        for _ in range(200):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        try:
            yield port, process
        finally:
            process.terminate()
            process.wait(30)


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def received(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := client.recv(size - len(data))):
        data += piece
    return data


def proved(client: socket.socket, secret: bytes) -> bytes:
    """Proves to a worker that the secret is known; returns its own proof, which it sends to nobody else."""
    assert received(client, len(GREETING)) == GREETING
    theirs, own = received(client, 32), secrets.token_bytes(32)
    client.sendall(own + hmac.digest(secret, b"client" + theirs + own, hashlib.sha256))
    answer = received(client, 32)
    assert answer in (b"", hmac.digest(secret, b"worker" + theirs + own, hashlib.sha256))
    return answer


def is_served(client: socket.socket) -> bool:
    client.sendall(HELLO)
    return len(received(client, 36)) == 36


# --- who is let in ---


@pytest.mark.by_day(2)
@pytest.mark.parametrize("length", [1, 31, 55, 56, 63, 64, 65, 200])
def test_a_secret_opens(length):
    secret = "ä"[: length % 2] + "x" * (length - 2 * (length % 2)) if length > 1 else "x"
    with worker(**{SECRET: secret}) as (port, _), connected(port) as client:
        assert proved(client, secret.encode())
        assert is_served(client)


def test_strangers_are_not_heard(tiny_paths, monkeypatch):
    monkeypatch.setenv(SECRET, "open sesame")
    monkeypatch.setenv("SDLTX_WORKER_TIMEOUT", "1")
    with worker() as (port, process):
        device = f"rpc:127.0.0.1:{port}"
        for said in (b"", HELLO, b"GET / HTTP/1.1\r\n\r\n", bytes(1000)):
            with connected(port) as client:
                client.sendall(said)
                with contextlib.suppress(ConnectionError):
                    assert received(client, 1000)[: len(GREETING)] == GREETING
                    assert received(client, 1) == b""
        with connected(port) as client:
            assert proved(client, b"open barley") == b""
        with connected(port) as client:  # an answer of another time
            received(client, len(GREETING) + 32)
            client.sendall(bytes(64))
            assert received(client, 32) == b""
        with sdltx.load(*tiny_paths, device=device) as pipe:
            pipe.encode("a fox")
        monkeypatch.setenv(SECRET, "another")
        with pytest.raises(sdltx.BackendError, match="has another SDLTX_WORKER_SECRET"):
            sdltx.load(*tiny_paths, device=device)
        monkeypatch.delenv(SECRET)
        with pytest.raises(sdltx.BackendError, match="wants a secret; set SDLTX_WORKER_SECRET"):
            sdltx.load(*tiny_paths, device=device)
        assert process.poll() is None


def test_a_worker_without_a_secret_is_not_taken_for_one_with(tiny_paths, monkeypatch):
    monkeypatch.setenv("SDLTX_WORKER_TIMEOUT", "1")
    with worker() as (port, _):
        monkeypatch.setenv(SECRET, "open sesame")
        with pytest.raises(sdltx.BusyError, match="does not ask for the secret"):
            sdltx.load(*tiny_paths, device=f"rpc:127.0.0.1:{port}")


def test_an_impostor_does_not_learn_the_secret(tiny_paths, monkeypatch):
    """It gets a proof for its own number, which opens no other worker, and cannot prove anything itself."""
    monkeypatch.setenv(SECRET, "open sesame")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        heard = []

        def serve() -> None:
            client, _ = server.accept()
            with client:
                client.sendall(GREETING + bytes(32))
                heard.append(received(client, 64))
                client.sendall(bytes(32))

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(sdltx.BackendError, match="has another SDLTX_WORKER_SECRET"):
            sdltx.load(*tiny_paths, device=f"rpc:127.0.0.1:{server.getsockname()[1]}")
        thread.join()
    assert len(heard[0]) == 64 and b"sesame" not in heard[0]


def test_who_says_nothing_keeps_nobody_out(tiny_paths):
    with worker(SDLTX_WORKER_TIMEOUT="0.5") as (port, _), connected(port) as silent:
        start = time.monotonic()
        with sdltx.load(*tiny_paths, device=f"rpc:127.0.0.1:{port}") as pipe:
            pipe.encode("a fox")
        assert time.monotonic() - start < 20
        assert received(silent, 1) == b""


# --- what is said ---


class Proxy:
    """Stands between a client and a worker, and changes what goes one way."""

    def __init__(self, port: int, change: Callable[[bytes, int], bytes], from_client: bool) -> None:
        self._worker, self._change, self._from_client = port, change, from_client
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._threads = [threading.Thread(target=self._serve, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        self._server.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                other = connected(self._worker)
                other.settimeout(None)
                for end in (client, other):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for source, target, changed in (
                    (client, other, self._from_client),
                    (other, client, not self._from_client),
                ):
                    self._threads.append(
                        threading.Thread(target=self._copy, args=(source, target, changed), daemon=True)
                    )
                    self._threads[-1].start()

    def _copy(self, source: socket.socket, target: socket.socket, changed: bool) -> None:
        at = 0
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 16):
                target.sendall(self._change(piece, at) if changed else piece)
                at += len(piece)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        source.close()  # the other direction closes the other


def changes(seed: int, reach: int) -> Callable[[bytes, int], bytes]:
    """Replaces a few bytes, or a number at a limit, at places of a stream; or leaves some out."""
    rng = random.Random(seed)
    edits = []
    for _ in range(rng.randint(1, 4)):
        number = struct.pack("<Q", rng.choice([0, 1, 2, 3, 2**31, 2**32 - 1, 2**63, 2**64 - 1, rng.getrandbits(64)]))
        edits.append((int(reach ** rng.random()) + 36, rng.choice([number, number[:1], rng.randbytes(3), number[:4]])))

    def change(piece: bytes, at: int) -> bytes:
        out = bytearray(piece)
        for place, new in edits:
            if at <= place < at + len(piece):
                begin = place - at
                out[begin : begin + len(new)] = new[: len(piece) - begin]
        return bytes(out)

    return change


CLIENT = """
import sys, sdltx
clip = {"width": 64, "height": 64, "num_frames": 9, "num_inference_steps": 2, "preset": "distilled", "seed": 1}
for port in sys.argv[1:-2]:
    try:
        with sdltx.load(*sys.argv[-2:], device=f"rpc:127.0.0.1:{port}", offload="blocks", threads=1) as pipe:
            pipe.generate("a fox", **clip)
        print("clip", flush=True)
    except sdltx.SdltxError as error:
        line = str(error)
        assert line.startswith("[") and "\\n" not in line, line
        print(type(error).__name__, flush=True)
"""


def outcomes(proxies: list[Proxy], tiny_paths: list[str], timeout: float) -> list[str]:
    """What came of a client at each of them, in one process: it ends only by itself."""
    ports = [str(proxy.port) for proxy in proxies]
    environment = os.environ | {"SDLTX_WORKER_TIMEOUT": "3", "SDLTX_WORKER_PATIENCE": "5"}
    command = [sys.executable, "-W", "ignore", "-c", CLIENT, *ports, *tiny_paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment)
    lines = done.stdout.split()
    assert done.returncode == 0, f"ended at seed {len(lines)} by {done.returncode}: {done.stderr[-2000:]}"
    return lines


def test_what_a_worker_answers_cannot_end_its_client(tiny_paths):
    with worker() as (port, process):
        proxies = [Proxy(port, changes(seed, 3_000), from_client=False) for seed in SEEDS]
        lines = outcomes(proxies, tiny_paths, 20 * len(proxies))
        for proxy in proxies:
            proxy.close()
        assert process.poll() is None
    print({line: lines.count(line) for line in sorted(set(lines))})
    assert len(lines) == len(proxies) and len(set(lines)) > 1


ANSWERS = {
    14: bytes([5, 0, 0, 0]) + bytes(24),
    15: b"\1\0\0\0",
    1: 64,
    2: 1 << 30,
    11: struct.pack("<QQ", 1 << 30, 1 << 30),
}


@contextlib.contextmanager
def stand_in(answers: dict[int, bytes | int]) -> Iterator[tuple[int, list[int]]]:
    """A worker that answers commands by a table, and goes away at others: its port, and the commands it has heard."""
    server, heard = socket.create_server(("127.0.0.1", 0)), []

    def serve() -> None:
        while True:
            client, _ = server.accept()
            with client, contextlib.suppress(OSError, KeyError, IndexError):
                while True:
                    command = received(client, 1)[0]
                    heard.append(command)
                    received(client, *struct.unpack("<Q", received(client, 8)))
                    told = answers[command]
                    told = struct.pack("<Q", told) if isinstance(told, int) else told
                    client.sendall(struct.pack("<Q", len(told)) + told)

    def until_closed() -> None:
        with contextlib.suppress(OSError):
            serve()

    thread = threading.Thread(target=until_closed)
    thread.start()
    try:
        yield server.getsockname()[1], heard
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()


@pytest.mark.parametrize(
    ("command", "told"),
    [
        *((1, alignment) for alignment in (0, 3, 48, 2**21, 2**32, 2**63, 2**64 - 1)),
        *((2, largest) for largest in (0, 1, 2**20 - 1)),
        *((15, struct.pack("<I", count)) for count in (0, 65, 2**32 - 1)),
    ],
)
def test_answers_that_cannot_be(command, told, tiny_paths, monkeypatch):
    """They are not believed, and nothing more is asked. An alignment of none was a division by it."""
    monkeypatch.setenv("SDLTX_WORKER_TIMEOUT", "2")
    for answers in (ANSWERS, ANSWERS | {command: told}):
        with stand_in(answers) as (port, heard):
            with pytest.raises(sdltx.BackendError, match=r"^\[") as raised:
                sdltx.load(*tiny_paths, device=f"rpc:127.0.0.1:{port}").encode("a fox")
            assert "\n" not in str(raised.value)
            assert heard[-1] == (0 if answers is ANSWERS else command)  # 0 asks for memory


def test_what_a_client_says_cannot_end_a_worker(tiny_paths):
    """Its process for the clients may end; then there is another one, which makes the same clip."""
    with worker(SDLTX_WORKER_TIMEOUT="2") as (port, process):
        plain = Proxy(port, lambda piece, _: piece, from_client=True)
        proxies = [Proxy(port, changes(seed, 300_000), from_client=True) for seed in SEEDS]
        lines = outcomes([*proxies, plain], tiny_paths, 20 * len(proxies))
        for proxy in (*proxies, plain):
            proxy.close()
        assert process.poll() is None
        process.terminate()
        said = process.stderr.read().decode() if process.stderr else ""
    print({line: lines.count(line) for line in sorted(set(lines))}, said.count("started again"), "restarts")
    assert lines[-1] == "clip"
    assert len(set(lines)) > 1


@pytest.mark.by_day(0)
def test_clients_that_end_the_server_again_and_again(tiny_paths):
    """A message of 2^63 bytes, as soon as there is a server; the next one serves all the same."""
    with worker(SDLTX_WORKER_TIMEOUT="2") as (port, process):
        for _ in range(8):
            for _ in range(100):
                with contextlib.suppress(OSError), connected(port) as client:
                    client.sendall(HELLO)
                    if len(received(client, 36)) == 36:
                        client.sendall(bytes([10]) + struct.pack("<Q", 2**63))
                        received(client, 1)
                        break
                time.sleep(0.1)
            assert process.poll() is None
        for _ in range(100):
            with contextlib.suppress(sdltx.BackendError, sdltx.BusyError):
                with sdltx.load(*tiny_paths, device=f"rpc:127.0.0.1:{port}") as pipe:
                    pipe.encode("a fox")
                break
            time.sleep(0.1)
        else:
            pytest.fail("nobody serves")


def test_a_server_that_is_killed_is_there_again(tiny_paths):
    with worker() as (port, process):
        (server,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        with sdltx.load(*tiny_paths, device=f"rpc:127.0.0.1:{port}") as pipe:
            before = pipe.encode("a fox")
            os.kill(int(server), signal.SIGSEGV)
            with pytest.raises(sdltx.BackendError, match="is gone"):
                pipe.encode("a fox")
        for _ in range(100):
            with contextlib.suppress(sdltx.BackendError):
                with sdltx.load(*tiny_paths, device=f"rpc:127.0.0.1:{port}") as pipe:
                    np.testing.assert_array_equal(pipe.encode("a fox").video, before.video)
                break
            time.sleep(0.1)
        else:
            pytest.fail("nobody serves")


def test_the_server_ends_with_the_worker():
    with worker() as (_, process):
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.kill()
        process.wait()
        for _ in range(100):
            if not any(re.search(r"State:\s+[RSD]", state_of(child)) for child in children):
                break
            time.sleep(0.05)
        else:
            pytest.fail("the server lives on")


def state_of(process: str) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/status").read_text()
    return ""


def test_a_client_cannot_take_all_memory(tiny_paths):
    """An allocation of a terabyte, and one that fits the machine but not the limit."""
    with worker("--max-memory", "0.5") as (port, process), connected(port) as client:
        client.sendall(HELLO)
        received(client, 36)
        for size in (2**40, 2**30, 2**63):
            client.sendall(bytes([0]) + struct.pack("<QIQ", 12, 0, size))
            answer = received(client, 24)
            assert len(answer) == 24 and struct.unpack("<QQQ", answer)[1] == 0
        assert process.poll() is None
    for wrong in ("-1", "x", "nan"):
        done = subprocess.run(
            [sys.executable, "-m", "sdltx", "worker", f"--max-memory={wrong}"], capture_output=True, text=True
        )
        assert done.returncode == 2
        assert "max-memory" in done.stderr
