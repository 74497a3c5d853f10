"""Who may ask, and how much: names of the server, tokens, pages of others, bodies; and headers for browsers."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from contextlib import suppress
from urllib.parse import unquote

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .problems import Problem, response
from .settings import Settings

COOKIE = "sdltx_token"
_OPEN = ("/health", "/session", "/", "/openapi.json")
"""Addresses that need no token; the files of the page are others."""
_SAFE = ("GET", "HEAD", "OPTIONS")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
}
_LONGEST_LOGIN = 64 << 10  # bytes
# Most programs read the answer when they have sent all, so what is too long is taken and dropped, up to an end.
_DRAINED, _LINGERING = 4, 30.0  # times what may be sent; seconds
_Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """Stands before the application."""

    def __init__(self, app: ASGIApp, settings: Settings, refused: Callable[[int], None]) -> None:
        """refused: is told the status of each request that was."""
        self._app: _Application = app
        self._refused = refused
        self._settings = settings
        self._token = None if settings.token is None else settings.token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Is called by the web server."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        begun = False

        async def send_guarded(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                if message["status"] >= 400:
                    self._refused(message["status"])
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, self._limited(scope, receive), send_guarded)
        except asyncio.CancelledError:  # the server ends before the request did
            if begun:
                raise
            problem = Problem(503, "the server ends; send it again when it is back", "server_ends")
            await response(problem)(scope, receive, send_guarded)
        except Problem as problem:  # of a body that goes on, too
            if begun:
                raise
            limits = self._settings.limits
            if problem.status == 413:
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(_drained(receive, _DRAINED * max(limits.upload, limits.json)), _LINGERING)
            await response(problem)(scope, receive, send_guarded)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        # A page elsewhere can have its own name lead here, and then ask as if it were ours.
        host = headers.get("host", "").lower()
        name = host if host.endswith("]") else host.rsplit(":", 1)[0]
        if name not in self._settings.hosts:
            raise Problem(403, f"this server is not called {name[:60]!r}; --allow-host makes it so", "unknown_host")
        origin = headers.get("origin")
        if origin is not None and scope["method"] not in _SAFE and origin.lower().partition("://")[2] != host:
            raise Problem(403, "pages of other servers may not change anything here", "other_origin")
        path: str = scope["path"]
        if self._token is not None and path not in _OPEN and not path.startswith("/page/") and not self.knows(headers):
            raise Problem(
                401,
                "show the token of this server: Authorization: Bearer ...",
                "invalid_token",
                {"WWW-Authenticate": "Bearer"},
            )

    def knows(self, headers: Headers) -> bool:
        """Whether a request shows the token."""
        given = headers.get("authorization", "")
        if given[:7].lower() == "bearer " and self.is_token(given[7:].strip()):
            return True
        # One by one, as others of the same host are of whatever form.
        pairs = (one.strip().partition("=") for one in headers.get("cookie", "").split(";"))
        return any(name == COOKIE and self.is_token(unquote(value)) for name, _, value in pairs)

    def is_token(self, text: str) -> bool:
        """Whether it is the token; takes as long for any other."""
        return self._token is None or hmac.compare_digest(text.encode(errors="surrogatepass"), self._token)

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        limits = self._settings.limits
        headers = Headers(scope=scope)
        multipart = headers.get("content-type", "").lower().startswith("multipart/")
        most = limits.upload if multipart else limits.json
        if scope["path"] == "/session":  # which everybody may ask
            most = _LONGEST_LOGIN
        told = headers.get("content-length", "0")
        too_much = Problem(
            413,
            f"the body is longer than {most / 2**20:g} MiB; send files as parts of a form, or smaller ones",
            "too_large",
        )
        if told.isdigit() and int(told[:20]) > most:
            raise too_much
        received = 0

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > most:
                raise too_much
            return message

        return receive_limited


async def _drained(receive: Receive, most: int) -> None:
    taken = 0
    while taken <= most:
        message = await receive()
        taken += len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            return
