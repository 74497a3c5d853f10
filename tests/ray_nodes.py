"""Nodes of a Ray cluster on this machine, for tests and figures."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

RAY = Path(sys.executable).with_name("ray")
# Nodes that are gone are noticed sooner than usual.
ENV = {
    **os.environ,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "3",
}


def free_port() -> int:
    """One that Ray takes: neither of those that systems give away, nor of its own."""
    while True:
        port = random.randrange(20_000, 22_900)
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) != 0:
                return port


class Node:
    """A node of a cluster, with one core."""

    def __init__(self, *arguments: object) -> None:
        low = random.randrange(11_000, 19_000, 100)
        command = [RAY, "start", "--block", "--num-cpus", 1, "--disable-usage-stats", *arguments]
        command += ["--min-worker-port", low, "--max-worker-port", low + 99, "--object-store-memory", 100_000_000]
        self._process = subprocess.Popen(
            [str(one) for one in command],
            env=ENV,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def kill(self) -> None:
        """All of it at once, as a power cut does."""
        children = [self._process.pid]
        for pid in children:
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                children += [int(child) for child in task.read_text().split()]
        for pid in reversed(children):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait()


class Nodes:
    """A cluster, as a ``with`` block; address: of its client's port."""

    def __init__(self) -> None:
        self._port, client = free_port(), free_port()
        self.address = f"ray://127.0.0.1:{client}"
        head = ["--head", "--port", self._port, "--ray-client-server-port", client, "--include-dashboard", "false"]
        self._nodes = [Node(*head)]
        for _ in range(300):
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", client)) == 0:
                    break
            time.sleep(0.1)

    def add(self) -> Node:
        """Starts one more."""
        self._nodes.append(Node("--address", f"127.0.0.1:{self._port}"))
        return self._nodes[-1]

    def __enter__(self) -> Nodes:
        return self

    def __exit__(self, *_: object) -> None:
        for node in reversed(self._nodes):
            node.kill()
