"""A server under load: many videos that wait, many connections that hear of events; how long answers take meanwhile.

    python bench/server.py [--videos 100] [--readers 50]

Prints the time of an answer (median, 99 of 100) idle and under load, of an event from the change to the reader, of
cancelling, and the memory of both processes. Times are of this machine while it makes videos with all its cores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from serving import LONG, SHORT, Serving, serving, wait_for


def spread(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    return (
        f"{1000 * statistics.median(ordered):7.1f} ms, 99 of 100: {1000 * ordered[int(0.99 * (len(ordered) - 1))]:7.1f}"
    )


def resident(process: int) -> float:
    """MiB."""
    (line,) = [line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def answers(server: Serving, count: int) -> list[float]:
    found = []
    for _ in range(count):
        start = time.perf_counter()
        assert server.ask("/v1/videos?limit=20")[0] == 200
        found.append(time.perf_counter() - start)
        time.sleep(0.02)
    return found


def post(server: Serving, body: dict) -> str:
    status, told, _ = server.ask("/v1/videos", "POST", json.dumps(body).encode(), content_type="application/json")
    assert status == 200, told
    return json.loads(told)["id"]


def state(server: Serving, id: str) -> dict:
    return json.loads(server.ask(f"/v1/videos/{id}")[1])


class Reader(threading.Thread):
    """Hears of all videos."""

    def __init__(self, server: Serving) -> None:
        super().__init__(daemon=True)
        self.completed: dict[str, float] = {}
        self.events = 0
        self._stream = urllib.request.urlopen(server.url + "/v1/events", timeout=600)

    def run(self) -> None:
        for line in self._stream:
            if line.startswith(b"data: "):
                self.events += 1
                if b'"status": "completed"' in line:
                    self.completed.setdefault(json.loads(line[6:])["id"], time.time())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--videos", type=int, default=100)
    parser.add_argument("--readers", type=int, default=50)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "d", "--queue", args.videos + 10) as server:
        wait_for(lambda: server.ask("/health")[0] == 200)
        idle = answers(server, 100)
        engine = server.engine()
        print(f"idle:    an answer {spread(idle)}; {resident(server.process.pid):.0f} + {resident(engine):.0f} MiB")
        readers = [Reader(server) for _ in range(args.readers)]
        for reader in readers:
            reader.start()
        posts = []
        ids = []
        start = time.perf_counter()
        for seed in range(args.videos):
            began = time.perf_counter()
            ids.append(post(server, {"prompt": "a red circle moves left", **SHORT, "seed": seed}))
            posts.append(time.perf_counter() - began)
        print(f"posted:  {args.videos} videos, each {spread(posts)}")
        loaded = answers(server, 100)
        times = statistics.median(loaded) / statistics.median(idle)
        held = f"{resident(server.process.pid):.0f} + {resident(engine):.0f} MiB"
        print(f"loaded:  an answer {spread(loaded)}, {times:.1f} times idle; {held}")
        wait_for(lambda: all(len(reader.completed) >= len(ids) for reader in readers), 600)
        took = time.perf_counter() - start
        late = [
            max(reader.completed[id] for reader in readers) - min(reader.completed[id] for reader in readers)
            for id in ids
        ]
        print(
            f"events:  {args.readers} readers heard of each end within {spread(late)}; {readers[0].events} events each"
        )
        print(f"all:     {took:.1f} s, {took / args.videos:.2f} s a video; then {resident(server.process.pid):.0f} MiB")
        ends = []
        for seed in range(10):
            id = post(server, {"prompt": "x", **LONG, "seed": seed})
            wait_for(lambda one=id: state(server, one)["sdltx"]["phase"] == "denoise")
            began = time.perf_counter()
            server.ask(f"/v1/videos/{id}/cancel", "POST")
            wait_for(lambda one=id: state(server, one)["status"] == "failed")
            ends.append(time.perf_counter() - began)
        print(f"cancel:  {spread(ends)}")


if __name__ == "__main__":
    main()
