"""Servers and engines that crash, are stopped or killed: what was taken is made."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest
from asking import (
    Events,
    client_of,
    create,
    downloaded,
    over,
    post,
)
from serving import LONG, SHORT, serving, wait_for

from sdltx import media


def test_a_crash_is_a_failed_video_and_a_new_engine(server, client):
    video = create(client, extra_body=LONG)
    waiting = create(client, extra_body=SHORT)
    wait_for(lambda: json.loads(server.ask(f"/v1/videos/{video.id}")[1])["status"] == "in_progress")
    os.kill(server.engine(), signal.SIGSEGV)
    done = over(client, video.id)
    assert (done.status, done.error.code) == ("failed", "engine_crashed")
    assert "SIGSEGV" in done.error.message
    assert over(client, waiting.id).status == "completed"
    assert b"sdltx_engine_restarts_total 1.0" in server.ask("/metrics")[1]


def test_stopped_servers_go_on_with_the_queue(tmp_path):
    """Gracefully: what is made waits again, what is done stays."""
    with serving(tmp_path / "d") as server:
        client = client_of(server)
        done = create(client, extra_body=SHORT)
        over(client, done.id)
        made = create(client, extra_body={**SHORT, "num_inference_steps": 25, "width": 128, "height": 128})
        waiting = create(client, extra_body=SHORT)
        wait_for(lambda: json.loads(server.ask(f"/v1/videos/{made.id}")[1])["status"] == "in_progress")
        events = Events(server, "/v1/events")
        wait_for(lambda: events.found)
        engine = server.engine()
        with pytest.raises(AssertionError, match="another server"), serving(tmp_path / "d"):
            pass
        start = time.monotonic()
        assert server.end() == 0, server.lines
        assert time.monotonic() - start < 10
        assert not Path(f"/proc/{engine}").exists()
    with serving(tmp_path / "d") as server:
        client = client_of(server)
        assert downloaded(client, done.id)[4:8] == b"ftyp"
        for id in (made.id, waiting.id):
            assert over(client, id).status == "completed"
        assert server.end(signal.SIGINT) == 0


@pytest.mark.parametrize("way", ["delete", "cancel"])
def test_what_was_deleted_or_cancelled_stays_so_if_the_server_is_killed(tmp_path, way):
    """Also while the engine has not let go of it."""
    with serving(tmp_path / "d") as server:
        video = create(client_of(server), extra_body=LONG).id
        path = f"/v1/videos/{video}"
        wait_for(lambda: json.loads(server.ask(path)[1])["status"] == "in_progress")
        engine = server.engine()
        os.kill(engine, signal.SIGSTOP)
        told = server.ask(path, "DELETE") if way == "delete" else server.ask(f"{path}/cancel", "POST")
        assert told[0] == 200
        if way == "delete":
            assert server.ask(path)[0] == 404
            page = json.loads(server.ask("/v1/videos?limit=1")[1])
            assert (page["data"], page["has_more"]) == ([], False)
        server.end(signal.SIGKILL)
        os.kill(engine, signal.SIGKILL)
    with serving(tmp_path / "d") as server:
        status, told, _ = server.ask(path)
        if way == "delete":
            assert status == 404
            assert not (tmp_path / "d" / "videos" / video).exists()
        else:
            assert (json.loads(told)["status"], json.loads(told)["error"]["code"]) == ("failed", "cancelled")


@pytest.mark.by_day(0)
def test_a_server_that_ends_in_the_middle_of_a_body_says_so(tmp_path):
    with serving(tmp_path / "d") as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as half:
            half.sendall(
                b"POST /v1/videos HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: 100\r\n\r\n{"
            )
            time.sleep(0.3)
            assert server.end() == 0
            answer = half.recv(1 << 16)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 503"), answer
        assert not any("Traceback" in line for line in server.lines), server.lines


def states(folder: Path) -> dict[str, str]:
    db = sqlite3.connect(folder / "videos.sqlite")
    try:
        return dict(db.execute("SELECT id, status FROM videos"))
    finally:
        db.close()


@pytest.mark.parametrize("moment", range(100))
@pytest.mark.by_day(1)
def test_killed_servers_lose_nothing(tmp_path_factory, moment):
    """kill -9 at some moment: what was taken is made, what was finished is there, and all is as if made alone."""
    folder = tmp_path_factory.getbasetemp() / "killed" / "d"
    seeds = np.random.default_rng(moment)
    with serving(folder) as server:
        bodies = [
            {"prompt": "a red circle", **SHORT, "seed": int(seed), "num_inference_steps": 2}
            for seed in seeds.integers(1000, size=3)
        ]
        taken = {}
        for body in bodies:
            status, told = post(server, body)
            assert status == 200, told
            taken[told["id"]] = body["seed"]
        time.sleep(float(seeds.uniform(0, 1.2)))
        finished = {id for id, status in states(folder).items() if status == "completed"}
        engine = server.engine()
        server.end(signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{engine}").exists(), 10)
    for id in finished:
        assert (folder / "videos" / id / "video.mp4").exists()
    with serving(folder) as server:
        for id, seed in taken.items():
            wait_for(lambda one=id: states(folder)[one] == "completed")
            assert media.read_settings(folder / "videos" / id / "video.mp4")["seed"] == seed
            assert not list((folder / "videos" / id).glob(".sdltx-*"))
        server.end()
