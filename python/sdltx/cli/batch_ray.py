"""Clips of a batch on the machines of a Ray cluster: who has which, and what is done when one is lost.

Ray starts the workers, brings them their clips and the files back, and notices when a machine is gone.
"""

from __future__ import annotations

import logging
import re
import socket
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import sdltx

from ..ray_worker import Loaded, Made, RayWorker, Task
from ..writing import Manner
from .job import MODEL_OPTIONS, Job

_TOGETHER = 8  # clips of one size that a worker gets at once
_ATTEMPTS = 3  # of a clip whose worker was lost each time
_LOOK = 1.0  # seconds between two looks at progress
_NEW_NODES = 10.0  # seconds between two looks for machines that came in
_PROGRESS = "progress"
_REACHED = 10.0  # seconds for the first machine of a cluster to answer
_PATIENCE = 120.0  # seconds without any worker


@dataclass
class Order:
    """A clip that is wanted."""

    task: Task
    size: tuple[Any, ...]
    done: Callable[[Made], None]
    """Is called with its files, or with what it failed with."""
    attempts: int = 0


@dataclass(eq=False)
class _Worker:
    """One device; ``orders`` are with it, in the order in which it makes them."""

    actor: Any
    node: str
    name: str
    loading: Any
    loaded: Loaded | None = None
    orders: dict[Any, Order] = field(default_factory=dict)


class Cluster:
    """The workers of a cluster, as a ``with`` block."""

    def __init__(self, job: Job, address: str) -> None:
        """address: ray://HOST:PORT, or auto for the cluster that this machine is of."""
        try:
            import ray
        except ImportError:
            raise sdltx.InvalidRequestError(
                '[ray] the package ray is missing; install it with: pip install "sdltx[ray]"'
            ) from None
        self._job = job
        self._ray: Any = ray
        _check_address(address)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # which the error tells, too
                self._ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        except Exception as error:  # of many kinds, by what is wrong with an address
            text = " ".join(str(error).split())[:200]
            raise sdltx.BackendError(f"[ray] cannot reach a cluster at {address}: {text}") from None
        self._kind = _kind_of(ray)
        self._workers: list[_Worker] = []
        self._refused: dict[str, sdltx.SdltxError] = {}
        self._looked = 0.0

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            self._ray.kill(worker.actor)
        self._ray.shutdown()

    def first(self) -> tuple[Loaded, Callable[[Sequence[sdltx.Request]], list[Any]]]:
        """Returns the model as the first worker has it, and what asks it for plans. Raises what keeps all from it."""
        self._wait_for_one()
        worker = next(worker for worker in self._workers if worker.loaded)
        assert worker.loaded is not None

        def resolve(requests: Sequence[sdltx.Request]) -> list[Any]:
            found: list[Any] = self._ray.get(worker.actor.resolve.remote(list(requests)))
            return found

        return worker.loaded, resolve

    def _wait_for_one(self) -> None:
        end = time.monotonic() + _PATIENCE
        while not any(worker.loaded for worker in self._workers):
            self._look_for_nodes()
            if not self._workers and self._refused:
                raise next(iter(self._refused.values()))
            if time.monotonic() > end:
                raise sdltx.BackendError("[ray] no machine of the cluster is free to make clips; see ray status")
            self._take_in(timeout=_LOOK)

    def _look_for_nodes(self) -> None:
        """Starts a worker on each device that has none."""
        if self._workers and time.monotonic() - self._looked < _NEW_NODES:
            return
        self._looked = time.monotonic()
        for node in self._ray.nodes():
            resources = node.get("Resources", {})
            name = f"{node['NodeManagerHostname']} {node['NodeID'][:6]}"
            if not node["Alive"] or not resources.get("CPU") or name in self._refused:
                continue
            devices = int(resources.get("GPU", 0)) or 1
            there = sum(worker.node == node["NodeID"] for worker in self._workers)
            for _ in range(devices - there):
                self._start(node["NodeID"], name, resources["CPU"] / devices, 1 if resources.get("GPU") else 0)

    def _start(self, node: str, name: str, cpus: float, gpus: int) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        args = self._job.args
        options = {name: value for name in MODEL_OPTIONS if (value := getattr(args, name)) is not None}
        kind = self._kind.options(
            num_cpus=cpus if cpus < 1 else int(cpus),
            num_gpus=gpus,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        )
        actor = kind.remote(getattr(args, "named_models", args.model), options, not args.no_cache)
        self._workers.append(_Worker(actor, node, name, actor.load.remote()))

    def _take_in(self, timeout: float) -> None:
        """Takes in what workers that were started say."""
        waiting = {worker.loading: worker for worker in self._workers if worker.loaded is None}
        ready, _ = self._ray.wait(list(waiting), num_returns=len(waiting), timeout=timeout) if waiting else ([], [])
        for reference in ready:
            worker = waiting[reference]
            try:
                loaded: Loaded = self._ray.get(reference)
            except Exception as error:  # Ray's, of a worker that is gone
                loaded = Loaded("", {}, "", [], {}, sdltx.BackendError(f"[ray] {_short(error)}"))
            problem = loaded.error
            if problem is None and loaded.version != sdltx.__version__:
                problem = sdltx.BackendError(f"[ray] {worker.name} has sdltx {loaded.version}, not {sdltx.__version__}")
            if problem is not None:
                self._job.warn(f"{worker.name} makes no clips: {problem}")
                self._refused[worker.name] = problem
                self._workers.remove(worker)
                self._ray.kill(worker.actor)
                continue
            worker.loaded = loaded
            self._job.detail(f"{worker.name}: {loaded.info['model']} on {loaded.device}")

    def run(self, orders: Sequence[Order]) -> None:
        """Has all clips made; each is told to its order as soon as it is there."""
        waiting = sorted(orders, key=lambda order: order.size)  # of one size follow each other
        count = len(waiting)
        left = count
        while left:
            self._look_for_nodes()
            self._take_in(timeout=0)
            for worker in self._workers:
                if worker.loaded and not worker.orders and waiting:
                    share = -(-len(waiting) // max(1, 2 * len(self._workers)))
                    self._give(worker, waiting, min(_TOGETHER, share))
            if not any(worker.orders for worker in self._workers):
                self._wait_for_one()
                continue
            left -= self._collect(waiting)
            self._show(count, left)

    def _give(self, worker: _Worker, waiting: list[Order], most: int) -> None:
        size = waiting[0].size
        taken: list[Order] = []
        while waiting and waiting[0].size == size and len(taken) < most:
            taken.append(waiting.pop(0))
        if len(taken) > 1:
            worker.actor.encode.remote([order.task.request for order in taken])
        worker.orders = {worker.actor.make.remote(order.task): order for order in taken}

    def _collect(self, waiting: list[Order]) -> int:
        """Takes what is ready; returns how many clips are over."""
        ready, _ = self._ray.wait([one for worker in self._workers for one in worker.orders], timeout=_LOOK)
        over = 0
        for reference in ready:
            worker = next((worker for worker in self._workers if reference in worker.orders), None)
            if worker is None:  # it was lost a moment ago
                continue
            order = worker.orders[reference]
            try:
                made: Made = self._ray.get(reference)
            except Exception as error:  # Ray's, of a worker that is gone
                over += self._lost(worker, order, waiting, error)
                continue
            del worker.orders[reference]
            order.done(made)
            over += 1
        return over

    def _lost(self, worker: _Worker, current: Order, waiting: list[Order], error: Exception) -> int:
        """Gives the clips of a worker to others; returns how many are given up."""
        self._workers.remove(worker)
        self._looked = 0.0
        self._job.warn(f"{worker.name} is lost, its clips go to others: {_short(error)}")
        current.attempts += 1
        over = 0
        for order in reversed(worker.orders.values()):
            if order.attempts >= _ATTEMPTS:
                order.done(Made([], 0, sdltx.BackendError(f"[ray] it ended {_ATTEMPTS} workers: {_short(error)}")))
                over += 1
            else:
                waiting.insert(0, order)
        return over

    def _show(self, count: int, left: int) -> None:
        busy = [worker for worker in self._workers if worker.orders]
        asked = [worker.actor.progress.remote() for worker in busy]
        ready, _ = self._ray.wait(asked, num_returns=len(asked), timeout=_LOOK) if asked else ([], [])
        fractions = []
        for reference in ready:
            try:
                fractions.append(self._ray.get(reference)[1])
            except Exception:  # the next look at its clips tells why
                continue
        done = count - left
        self._job.bars.whole = lambda: ((done + sum(fractions)) / count, None)
        self._job.bars.show("clips", done, count)


def _kind_of(ray: Any) -> Any:
    """The worker as Ray starts it: it tells of its progress while it makes a clip."""

    class Worker(RayWorker):
        @ray.method(concurrency_group=_PROGRESS)  # type: ignore[untyped-decorator]
        def progress(self) -> tuple[str, float, float | None]:
            return super().progress()

    return ray.remote(concurrency_groups={_PROGRESS: 1})(Worker)


def _check_address(address: str) -> None:
    """Raises for what is no address, and where nobody listens, which takes Ray half a minute to find out."""
    if address == "auto":
        return
    match = re.fullmatch(r"ray://\[?([^/\s]+?)\]?:(\d{1,5})", address)
    if match is None:
        raise sdltx.InvalidRequestError(f"[ray] --on {address!r} is no address such as ray://HOST:10001, and not auto")
    try:
        socket.create_connection((match[1], int(match[2])), timeout=_REACHED).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise sdltx.BackendError(f"[ray] cannot reach a cluster at {address}: {reason}") from None


def manner_of(args: Any) -> Manner:
    """How the clips of a command are written."""
    return Manner(args.metadata, args.wav_format, args.overwrite, not args.no_audio)


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:160]
