"""What the server does when its database, its disk or its engine fails for a while."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from serving import LONG, SHORT, serving, wait_for

from sdltx.server.settings import Limits


def post(server, body):
    status, told, _ = server.ask("/v1/videos", "POST", json.dumps(body).encode(), content_type="application/json")
    assert status == 200, told
    return json.loads(told)["id"]


def state(server, id):
    return json.loads(server.ask(f"/v1/videos/{id}")[1])


@contextmanager
def locked(server):
    """Somebody else has the database."""
    other = sqlite3.connect(server.folder / "videos.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


@pytest.mark.by_day(0)
def test_a_database_that_fails_for_a_while(tmp_path):
    with serving(tmp_path / "d") as server:
        video = post(server, {"prompt": "x", **SHORT, "num_inference_steps": 20, "width": 128, "height": 128})
        wait_for(lambda: state(server, video)["status"] == "in_progress")
        with locked(server):
            wait_for(lambda: server.ask("/health")[0] == 503)  # it is done, and cannot be written down
            assert "database" in json.loads(server.ask("/health")[1])["status"]
            status, told, _ = server.ask(
                "/v1/videos", "POST", json.dumps({"prompt": "x", **SHORT}).encode(), content_type="application/json"
            )
            assert status == 503
            assert str(tmp_path) not in told.decode()
        wait_for(lambda: state(server, video)["status"] == "completed")
        assert server.ask("/health")[0] == 200
        after = post(server, {"prompt": "x", **SHORT})
        wait_for(lambda: state(server, after)["status"] == "completed")


@pytest.mark.by_day(0)
def test_an_engine_that_crashes_meanwhile(tmp_path):
    with serving(tmp_path / "d", "--keep-days", "0.000001") as server:
        video = post(server, {"prompt": "x", **LONG})
        wait_for(lambda: state(server, video)["sdltx"]["phase"] == "denoise")
        with locked(server):
            os.kill(server.engine(), signal.SIGKILL)
            time.sleep(2)
        # It is known again, and the watch goes on, which removes what is old.
        wait_for(lambda: server.ask("/health")[0] == 200)
        after = post(server, {"prompt": "x", **SHORT})
        wait_for(
            lambda: (
                server.ask(f"/v1/videos/{video}")[0] in (200, 404) and state(server, after).get("status") != "queued"
            )
        )
        wait_for(lambda: server.ask(f"/v1/videos/{after}")[0] == 404 or state(server, after)["status"] == "completed")


@pytest.mark.by_day(0)
def test_an_engine_that_hangs(tmp_path):
    with serving(tmp_path / "d") as server:
        video = post(server, {"prompt": "x", **LONG})
        wait_for(lambda: state(server, video)["sdltx"]["phase"] == "denoise")
        engine = server.engine()
        os.kill(engine, signal.SIGSTOP)
        wait_for(lambda: server.ask("/health")[0] == 503)
        assert "does not answer" in json.loads(server.ask("/health")[1])["status"]
        wait_for(lambda: state(server, video)["status"] == "failed", 200)
        wait_for(lambda: server.ask("/health")[0] == 200)
        assert server.engine() != engine


def test_no_more_readers_than_the_limit(server):
    """Who comes at once is counted, too."""
    host, port = server.url.removeprefix("http://").split(":")
    readers = [socket.create_connection((host, int(port)), timeout=60) for _ in range(Limits.readers + 10)]
    for reader in readers:
        reader.sendall(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answers = [reader.recv(12) for reader in readers]
    assert answers.count(b"HTTP/1.1 429") == 10
    assert answers.count(b"HTTP/1.1 200") == Limits.readers
    for reader in readers:
        reader.close()
    wait_for(lambda: b"sdltx_event_readers 0.0" in server.ask("/metrics")[1])


@pytest.mark.by_day(0)
def test_readers_that_do_not_read_take_little(tmp_path):
    with serving(tmp_path / "d") as server:
        host, port = server.url.removeprefix("http://").split(":")
        readers = [socket.create_connection((host, int(port))) for _ in range(200)]
        for reader in readers:
            reader.sendall(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        video = post(
            server, {"prompt": "red circle " * 5000, **SHORT, "num_inference_steps": 40, "width": 128, "height": 128}
        )
        slowest = 0.0
        while state(server, video)["status"] != "completed":
            start = time.monotonic()
            assert server.ask("/health")[0] == 200
            slowest = max(slowest, time.monotonic() - start)
            time.sleep(0.1)
        told = Path(f"/proc/{server.process.pid}/status").read_text()
        (line,) = [line for line in told.splitlines() if line.startswith("VmRSS")]
        assert int(line.split()[1]) < 300_000  # KiB
        assert slowest < 3
        for reader in readers:
            reader.close()
