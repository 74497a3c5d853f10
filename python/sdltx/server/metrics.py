"""What Prometheus reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from .store import CANCELLED, Video

_SECONDS = (1, 5, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200)


class Metrics:
    """Counts of one server."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.videos = Counter("sdltx_videos", "Videos that are over", ["status"], registry=self._registry)
        for status in ("completed", "failed", CANCELLED):
            self.videos.labels(status)
        self.seconds = Histogram(
            "sdltx_video_seconds", "Seconds to make a video", buckets=_SECONDS, registry=self._registry
        )
        self.frames = Counter("sdltx_frames", "Pictures of videos that were made", registry=self._registry)
        self.engine_restarts = Counter("sdltx_engine_restarts", "Engines that crashed", registry=self._registry)
        self.refused = Counter("sdltx_refused", "Requests that were refused", ["status"], registry=self._registry)

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Adds a number that is asked for when it is read."""
        Gauge(name, text, registry=self._registry).set_function(value)

    def watch_counts(self, counts: Callable[[], Mapping[str, int]], statuses: tuple[str, ...]) -> None:
        """Adds the videos of each status."""
        gauge = Gauge("sdltx_videos_now", "Videos that there are", ["status"], registry=self._registry)
        for status in statuses:
            gauge.labels(status).set_function(lambda status=status: counts().get(status, 0))  # type: ignore[misc]

    def completed(self, video: Video, seconds: float) -> None:
        """One was made."""
        self.videos.labels("completed").inc()
        self.seconds.observe(seconds)
        self.frames.inc(video.plan.get("result_frames") or 0)

    def failed(self, code: str) -> None:
        """One was not."""
        self.videos.labels(CANCELLED if code == CANCELLED else "failed").inc()

    def text(self) -> bytes:
        """Returns all of it as Prometheus reads it."""
        return generate_latest(self._registry)
