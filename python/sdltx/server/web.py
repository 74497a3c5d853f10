"""The web server: a socket, and an end that signals ask for."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from ..errors import InvalidRequestError

_PATIENCE = 5  # seconds that connections have to end in


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals alone: they are handled here."""
        yield


def listening(host: str, port: int) -> socket.socket:
    """Returns a socket of this address. Raises InvalidRequestError if it cannot be had."""
    if not 0 <= port < 1 << 16:
        raise InvalidRequestError(f"[serve] --port {port} is none; use 0 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        opened = socket.socket(family, kind, protocol)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidRequestError(f"[serve] cannot listen at {host}:{port}: {reason}; choose another") from None
    opened.setblocking(False)
    return opened


async def answer(app: ASGIApp, at: socket.socket, *, verbose: bool, stopping: Callable[[], None]) -> None:
    """Answers until SIGINT or SIGTERM comes, and then ends well. stopping: ends what would go on."""
    server = _Server(
        uvicorn.Config(
            app,
            lifespan="off",
            log_level="info" if verbose else "warning",
            access_log=verbose,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_PATIENCE,
        )
    )

    def stop() -> None:
        server.should_exit = True
        stopping()

    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, stop)
    try:
        await server.serve([at])
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
