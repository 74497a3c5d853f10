"""What is answered at which address."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from anyio import to_thread
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

import sdltx

from ..options import ROWS
from . import bodies, drafts
from .engine_video import PREVIEW, SPRITES, THUMBNAIL
from .files import FileAnswer
from .guard import COOKIE, Guard
from .hub import Hub, Reader
from .openapi import document
from .problems import Problem, of
from .remixing import remixed
from .scheduler import Scheduler
from .settings import Limits
from .store import COMPLETED, OVER, Store, Video, is_id, new_id
from .views import shape_of, video_object

_PING = 15  # seconds between two signs of life of a stream of events
_SLOWEST = 30  # seconds for a reader to take an event
_SHOWN = 200  # characters of a prompt in events of a video that is not over
_MOST_LISTED = 100
_VARIANTS = {"thumbnail": (THUMBNAIL, "image/webp"), "spritesheet": (SPRITES, "image/jpeg")}
_Answer = Callable[[Request], Awaitable[Response]]


class Routes:
    """The addresses of a server."""

    def __init__(self, scheduler: Scheduler, guard: Guard) -> None:
        self._scheduler, self._guard = scheduler, guard
        self._store: Store = scheduler.store
        self._limits: Limits = scheduler.settings.limits
        self._began = int(time.time())

    def all(self) -> list[Route]:
        """Returns them for Starlette."""
        told: dict[str, dict[str, _Answer]] = {
            "/v1/videos": {"GET": self.list, "POST": self.create},
            "/v1/videos/{id}": {"GET": self.get, "DELETE": self.delete},
            "/v1/videos/{id}/cancel": {"POST": self.cancel},
            "/v1/videos/{id}/remix": {"POST": self.remix},
            "/v1/videos/{id}/content": {"GET": self.content},
            "/v1/videos/{id}/preview": {"GET": self.preview},
            "/v1/videos/{id}/events": {"GET": self.events},
            "/v1/events": {"GET": self.events},
            "/v1/plans": {"POST": self.plan},
            "/v1/models": {"GET": self.models},
            "/v1/models/{id}": {"GET": self.model},
            "/v1/options": {"GET": self.options},
            "/session": {"POST": self.open_session, "DELETE": self.close_session},
            "/health": {"GET": self.health},
            "/metrics": {"GET": self.metrics},
            "/openapi.json": {"GET": self.openapi},
        }
        return [Route(path, _by_method(answers), methods=list(answers)) for path, answers in told.items()]

    # Videos

    async def create(self, request: Request) -> Response:
        """Takes a video into the queue."""
        self._check_queue()
        body = await bodies.read(request)
        try:
            self._check_model(body)
            return JSONResponse(self._told(await self._taken(body)))
        finally:
            await body.close()

    async def remix(self, request: Request) -> Response:
        """Takes a video like another one, with some options changed."""
        source = self._find(request)
        self._check_queue()
        body = await bodies.read(request, required=False)
        try:
            self._check_model(body)
            video = await self._taken(remixed(source, body), remixed_from=source.id)
            return JSONResponse(self._told(video))
        finally:
            await body.close()

    async def plan(self, request: Request) -> Response:
        """Tells what a video would come to."""
        body = await bodies.read(request)
        folder = self._store.folder_of(new_id())
        try:
            self._check_model(body)
            _, plan = await self._planned(body, folder)
        finally:
            await body.close()
            await to_thread.run_sync(lambda: shutil.rmtree(folder, ignore_errors=True))
        told = {name: value for name, value in plan.items() if name not in ("steps", "seed")}
        told |= {"object": "plan", "estimated_seconds": self._scheduler.seconds_of(plan)}
        return JSONResponse({**told, **shape_of(plan)})

    async def _taken(self, body: bodies.Body, **more: Any) -> Video:
        id = new_id()
        folder = self._store.folder_of(id)
        try:
            draft, plan = await self._planned(body, folder)
            self._check_queue()  # others may have come meanwhile
            if plan["misfit"] and self._scheduler.is_idle:  # else by what is free when its turn comes
                raise Problem(422, f"it does not fit: {plan['misfit']}", "out_of_memory")
            video = self._store.add(id, {**draft.request, "seed": plan["seed"]}, {**plan, **more}, draft.file)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._scheduler.added(id)
        return video

    async def _planned(self, body: bodies.Body, folder: Path) -> tuple[drafts.Draft, dict[str, Any]]:
        try:
            draft = await to_thread.run_sync(drafts.draft, body, folder, self._store)
        except OSError as error:
            raise Problem(507, f"the server cannot keep the files: {error.strerror}") from None
        if len(json.dumps(draft.request)) > self._limits.request:
            raise Problem(422, f"without its files a request has {self._limits.request >> 10} KiB at most", "too_large")
        self._check_limits(draft.request)
        try:
            # Says what is wrong with kinds of values before the engine is asked.
            located = self._scheduler.catalogue.located(draft.request, folder)
            sdltx.Request.from_dict(located)
            answer = await self._scheduler.engine.plan(located, draft.file)
        except sdltx.SdltxError as error:
            problem = of(error)
            problem.message = self._scheduler.catalogue.without_folders(problem.message, folder)
            raise problem from None
        plan = {**answer.pop("plan"), **answer}
        self._check_limits(plan)
        for stage in plan["stages"]:
            self._check_limits(stage)
        return draft, plan

    def _check_queue(self) -> None:
        if self._store.count_unfinished() >= self._limits.queue:
            raise Problem(
                429,
                f"{self._limits.queue} videos wait already; send it again when some are done",
                "queue_full",
                {"Retry-After": "30"},
            )

    def _check_model(self, body: bodies.Body) -> None:
        name, served = body.fields.get("model"), self._scheduler.engine.model["model"]
        if name not in (None, "", served):
            raise Problem(404, f"there is no model {str(name)[:60]!r} here, only {served!r}", "model_not_found")

    def _check_limits(self, told: dict[str, Any]) -> None:
        limits = self._limits
        numbers = {name: value for name, value in told.items() if type(value) in (int, float)}
        if huge := [name for name, value in numbers.items() if not abs(value) < 1 << 63]:
            raise Problem(422, f"[{huge[0]}] it is out of range")
        width, height = numbers.get("width", 0), numbers.get("height", 0)
        if width * height > limits.pixels:
            raise Problem(
                422,
                f"[size] {width}x{height} is more than the {limits.pixels} pixels that this server makes",
                "too_large",
            )
        seconds = numbers.get("duration", 0.0)
        frames = numbers.get("result_frames", numbers.get("num_frames", 0))
        if rate := numbers.get("frame_rate", 0):
            seconds = max(seconds, frames / rate)
        for name in ("extend", "extend_before"):
            seconds = max(seconds, numbers.get(name, 0.0))
        if seconds > limits.seconds + 0.5:
            raise Problem(
                422,
                f"[seconds] {seconds:g} is more than the {limits.seconds:g} seconds that this server makes",
                "too_large",
            )
        if (steps := numbers.get("num_inference_steps", 0)) > limits.steps:
            raise Problem(
                422, f"[num_inference_steps] {steps:g} is more than {limits.steps}, at most here", "too_large"
            )

    def _find(self, request: Request) -> Video:
        id = request.path_params["id"]
        video = self._store.get(id) if is_id(id) else None
        if video is None or self._scheduler.is_deleted(id):
            raise Problem(404, f"there is no video {id[:60]!r}", "video_not_found")
        return video

    def _told(self, video: Video) -> dict[str, Any]:
        return video_object(video, self._scheduler)

    def _told_short(self, video: Video) -> str:
        """A video as events tell it, which may be many a second: what it is made from only when it is over."""
        told = self._told(video)
        if video.status not in OVER:
            told["prompt"] = told["prompt"][:_SHOWN]
            del told["sdltx"]["request"], told["sdltx"]["doubts"]
        return json.dumps(told)

    async def get(self, request: Request) -> Response:
        """Tells of a video."""
        return JSONResponse(self._told(self._find(request)))

    async def list(self, request: Request) -> Response:
        """Tells of videos, the newest first."""
        query = request.query_params
        limit, order, after = query.get("limit", "20"), query.get("order", "desc"), query.get("after")
        if not (limit.isascii() and limit.isdigit() and len(limit) < 5 and 1 <= int(limit) <= _MOST_LISTED):
            raise Problem(422, f"[limit] {limit[:60]!r} is no number from 1 to {_MOST_LISTED}")
        if order not in ("asc", "desc"):
            raise Problem(422, f"[order] {order[:60]!r} is neither asc nor desc")
        waiting = query.get("waiting", "false")
        if waiting not in ("true", "false"):
            raise Problem(422, f"[waiting] {waiting[:60]!r} is neither true nor false")
        if after is not None and not is_id(after):
            raise Problem(422, f"[after] {after[:60]!r} is no id of a video")
        found = self._store.page(after=after, limit=int(limit), newest_first=order == "desc", waiting=waiting == "true")
        if found is None:
            raise Problem(404, f"there is no video {after!r}", "video_not_found")
        videos, more = found
        data = [self._told(video) for video in videos]
        ends = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
        return JSONResponse({"object": "list", "data": data, "has_more": more, **ends})

    async def delete(self, request: Request) -> Response:
        """Removes a video; one that is made is stopped."""
        video = self._find(request)
        self._scheduler.delete(video.id)
        return JSONResponse({"id": video.id, "object": "video.deleted", "deleted": True})

    async def cancel(self, request: Request) -> Response:
        """Stops a video, which is failed then, with the code "cancelled"."""
        video = self._find(request)
        self._scheduler.cancel(video.id)
        return JSONResponse(self._told(self._store.get(video.id) or video))

    async def content(self, request: Request) -> Response:
        """Gives the file of a video, also in parts."""
        video = self._find(request)
        variant = request.query_params.get("variant", "video")
        if variant not in ("video", *_VARIANTS):
            raise Problem(422, f"[variant] {variant[:60]!r} is none of video, thumbnail and spritesheet")
        if video.status != COMPLETED:
            raise Problem(409, f"the video is not finished; it is {video.status}", "video_not_finished")
        name, kind = _VARIANTS.get(variant) or (video.file, drafts.FORMATS[video.file.rpartition(".")[2]])
        path = self._store.folder_of(video.id) / name
        if not path.exists():
            raise Problem(404, f"there is no {variant} of it")
        return FileAnswer(
            path,
            media_type=kind,
            filename=f"{video.id}{path.suffix}",
            content_disposition_type="attachment" if "download" in request.query_params else "inline",
            headers={"Cache-Control": "private, max-age=31536000, immutable"},
        )

    async def preview(self, request: Request) -> Response:
        """Gives a small animation of how a video looks so far."""
        video = self._find(request)
        try:  # as a whole, as it is replaced now and then
            content = (self._store.folder_of(video.id) / PREVIEW).read_bytes()
        except OSError:
            raise Problem(409, "there is no preview of it yet", "no_preview") from None
        return Response(content, media_type="image/webp")

    async def events(self, request: Request) -> Response:
        """Tells of one video, or of all, as they change."""
        video = self._find(request).id if "id" in request.path_params else None
        if len(self._scheduler.hub) >= self._limits.readers:
            raise Problem(429, "too many hear of events already", "too_many_readers", {"Retry-After": "30"})
        return _Events(self._scheduler.hub, self._scheduler.hub.join(video), self._changes)

    async def _changes(self, reader: Reader) -> AsyncIterator[ServerSentEvent]:
        if reader.video is not None:
            reader.note(reader.video)
        else:
            yield ServerSentEvent(event="ready", data="{}")
        async for id in reader.changes():
            video = self._store.get(id)
            if video is None or self._scheduler.is_deleted(id):
                yield ServerSentEvent(event="deleted", data=json.dumps({"id": id}))
            else:
                told = self._scheduler.hub.told(id, lambda video=video: self._told_short(video))  # type: ignore[misc]
                yield ServerSentEvent(event="video", data=told)
            if reader.video is not None and (video is None or video.status in OVER):
                return

    # The server

    def _model(self) -> dict[str, Any]:
        model = self._scheduler.engine.model
        return {
            "id": model["model"],
            "object": "model",
            "created": self._began,
            "owned_by": "Lightricks",
            "sdltx": {
                name: model[name]
                for name in ("version", "distilled", "preset", "defaults", "has_audio", "parts", "device", "note")
            },
        }

    async def models(self, _request: Request) -> Response:
        """Tells which model is served."""
        return JSONResponse({"object": "list", "data": [self._model()]})

    async def model(self, request: Request) -> Response:
        """Tells of one model."""
        model = self._model()
        if request.path_params["id"] != model["id"]:
            raise Problem(404, f"there is no model {request.path_params['id'][:60]!r} here", "model_not_found")
        return JSONResponse(model)

    async def options(self, _request: Request) -> Response:
        """Tells all options, and files that they may name."""
        names = ("kind", "group", "unit", "range", "help", "docs", "choices")
        rows = {name: {key: row[key] for key in names} for name, row in ROWS.items() if name not in drafts.HIDDEN}
        limits = {
            name: getattr(self._limits, name) for name in ("queue", "upload", "json", "pixels", "seconds", "steps")
        }
        return JSONResponse(
            {
                "options": rows,
                "files": sorted(self._scheduler.catalogue.files()),
                "formats": list(drafts.FORMATS),
                "limits": limits,
                "model": self._model(),
            }
        )

    async def open_session(self, request: Request) -> Response:
        """Takes the token of a form, and remembers it in a cookie."""
        body = await bodies.read(request)
        if not self._guard.is_token(str(body.fields.get("token", ""))):
            raise Problem(401, "this is not the token of this server", "invalid_token")
        response = JSONResponse({"open": True})
        if (token := self._scheduler.settings.token) is not None:
            secure = request.url.scheme == "https"
            response.set_cookie(COOKIE, quote(token), httponly=True, samesite="strict", secure=secure)
        return response

    async def close_session(self, _request: Request) -> Response:
        """Forgets it."""
        response = JSONResponse({"open": False})
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return response

    async def health(self, _request: Request) -> Response:
        """Tells whether videos are made."""
        well = self._scheduler.is_well
        if well:
            status = "ok"
        elif self._scheduler.is_behind:
            status = "the database fails"
        else:
            status = "the engine does not answer" if self._scheduler.engine.is_up.is_set() else "the engine is starting"
        return JSONResponse({"status": status, "version": sdltx.__version__}, 200 if well else 503)

    async def metrics(self, _request: Request) -> Response:
        """Tells numbers to Prometheus."""
        return Response(self._scheduler.metrics.text(), media_type="text/plain; version=0.0.4")

    async def openapi(self, _request: Request) -> Response:
        """Tells all of this to programs."""
        return JSONResponse(document(self._limits))


class _Events(EventSourceResponse):
    """A stream whose reader counts from the moment that it is let in."""

    def __init__(self, hub: Hub, reader: Reader, changes: Callable[[Reader], AsyncIterator[ServerSentEvent]]) -> None:
        headers = {"X-Accel-Buffering": "no"}
        super().__init__(changes(reader), ping=_PING, send_timeout=_SLOWEST, headers=headers)
        self._hub, self._reader = hub, reader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._hub.leave(self._reader)


def _by_method(answers: Mapping[str, _Answer]) -> _Answer:
    """One route for all methods of an address, so that it can tell which there are."""

    async def answer(request: Request) -> Response:
        return await answers["GET" if request.method == "HEAD" else request.method](request)

    return answer
