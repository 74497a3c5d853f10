"""The application, as a web server runs it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from ..errors import SdltxError
from . import problems
from .catalogue import Catalogue
from .guard import Guard
from .metrics import Metrics
from .routes import Routes
from .scheduler import Scheduler
from .settings import Settings
from .store import COMPLETED, FAILED, IN_PROGRESS, QUEUED, Store, free_bytes

PAGE = Path(__file__).parent / "page"


class Server:
    """A store, its scheduler, and the application before them."""

    def __init__(self, settings: Settings) -> None:
        """Raises BusyError or BackendError for a folder that it cannot have."""
        self.store = Store(settings.folder)
        self.metrics = Metrics()
        self.scheduler = Scheduler(settings, self.store, Catalogue(settings.files), self.metrics)
        self._watch()
        app = Starlette(
            lifespan=self._lifespan,
            exception_handlers={
                problems.Problem: problems.handle,
                SdltxError: problems.handle,
                HTTPException: problems.handle_http,
                ClientDisconnect: problems.handle_gone,
                Exception: problems.handle_bug,
            },
        )
        guard = Guard(app, settings, lambda status: self.metrics.refused.labels(str(status)).inc())
        app.router.routes.extend(Routes(self.scheduler, guard).all())
        if settings.page:
            files = StaticFiles(directory=PAGE)
            app.router.routes.append(Mount("/page", files))
            app.router.routes.append(Route("/", lambda _request: _index(), methods=["GET"]))
        self.app: ASGIApp = guard

    def _watch(self) -> None:
        metrics, scheduler, store = self.metrics, self.scheduler, self.store
        metrics.watch_counts(store.counts, (QUEUED, IN_PROGRESS, COMPLETED, FAILED))
        metrics.watch("sdltx_engine_up", "Whether the engine runs", lambda: float(scheduler.engine.is_up.is_set()))
        metrics.watch("sdltx_event_readers", "Connections that hear of events", lambda: float(len(scheduler.hub)))
        metrics.watch("sdltx_disk_free_bytes", "Bytes free for videos", lambda: float(free_bytes(store.folder)))

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        async with self.running():
            yield

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Makes videos for as long as the block goes on. Raises what loading the model raises."""
        try:
            await self.scheduler.start()
            yield
        finally:
            await self.scheduler.stop()
            self.store.close()


def _index() -> object:
    from starlette.responses import FileResponse

    return FileResponse(PAGE / "index.html")
