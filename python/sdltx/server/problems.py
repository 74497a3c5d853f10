"""What is answered when something is wrong: OpenAI's object of an error, with one line that says what to do."""

from __future__ import annotations

from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..errors import (
    InvalidRequestError,
    ModelFileError,
    ModelMismatchError,
    OutOfMemoryError,
    SdltxError,
)

_LONGEST = 600


class Problem(Exception):
    """Ends a request with a status and a line."""

    def __init__(
        self, status: int, message: str, code: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers
        self.code = code or HTTPStatus(status).phrase.lower().replace(" ", "_")


def of(error: SdltxError) -> Problem:
    """Returns what an error of the engine is over HTTP: of the request, or of the server for a while."""
    if isinstance(error, OutOfMemoryError):
        return Problem(422, str(error), "out_of_memory")
    if isinstance(error, (InvalidRequestError, ModelMismatchError, ModelFileError)):
        return Problem(422, str(error), "invalid_request")
    return Problem(503, str(error), "server_error", {"Retry-After": "5"})


def response(problem: Problem) -> Response:
    """Returns it as it is sent."""
    kind = "server_error" if problem.status >= 500 else "invalid_request_error"
    # What was sent may be in it: of any length, and texts that cannot be written.
    text = " ".join(problem.message[:_LONGEST].encode(errors="replace").decode().split())
    body = {"error": {"message": text, "type": kind, "param": None, "code": problem.code}}
    return JSONResponse(body, problem.status, problem.headers)


async def handle(_request: Request, error: Exception) -> Response:
    """Is Starlette's handler of these, and of the core's errors."""
    if isinstance(error, SdltxError):
        return response(of(error))
    assert isinstance(error, Problem)
    return response(error)


async def handle_gone(_request: Request, _error: Exception) -> Response:
    """Is the handler of clients that went away in the middle of what they sent."""
    return response(Problem(400, "the request ended in the middle"))


async def handle_http(_request: Request, error: Exception) -> Response:
    """Is the handler of what Starlette itself refuses."""
    status = getattr(error, "status_code", 500)
    detail = str(getattr(error, "detail", ""))
    texts = {404: "there is nothing at this address", 405: "this address does not take that method"}
    return response(Problem(status, texts.get(status, detail), headers=getattr(error, "headers", None)))


async def handle_bug(_request: Request, _error: Exception) -> Response:
    """Is the handler of what nobody expected, which the log tells."""
    return response(Problem(500, "the server has a bug; its log tells more", "server_error"))
