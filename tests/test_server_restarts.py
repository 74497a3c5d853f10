"""Servers and engines that crash, are stopped or killed: what was taken is made."""

from __future__ import annotations

import json
import os
import signal
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

openai = pytest.importorskip("openai")


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
