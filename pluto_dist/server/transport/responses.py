"""HTTP answers and request bodies, in the three error shapes that the hosted server has.

A ``{"error": text}``; B ``{"error": "Unauthorized", "message": text}``; C ``{"success": false,
"error": {"issues": [...], "name": "ZodError"}}``, where ``error`` is an object. What is wrong with a
body is decided by ``wire``; this module only dresses it. It knows no route and no database.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import TypeVar

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from pluto_dist.contract.validation import ContractError, Issue, Json, Record, parse_document

DRAIN_LIMIT = 256 * 1024 * 1024
BODY_SECONDS = 60.0  # how long the next part of a body is waited for
_ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"))

R = TypeVar("R", bound=Record)


class AnswerError(Exception):
    """Ends the handling of a request with this response."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


class AsciiJSONResponse(JSONResponse):
    """JSON in ASCII: text that UTF-8 cannot carry (a lone surrogate in a document) still arrives."""

    def render(self, content: Json) -> bytes:
        return _ENCODER.encode(content).encode("ascii")


def failure(status: int, message: str) -> Response:
    """Shape A."""
    return AsciiJSONResponse({"error": message}, status)


def unauthorized(message: str | None = None) -> Response:
    """Shape B; without a message it is shape A."""
    body = {"error": "Unauthorized", "message": message}
    return AsciiJSONResponse({k: v for k, v in body.items() if v is not None}, 401)


def invalid(issues: tuple[Issue, ...]) -> Response:
    """Shape C."""
    error = {"issues": [issue.to_json() for issue in issues], "name": "ZodError"}
    return AsciiJSONResponse({"success": False, "error": error}, 400)


def not_found() -> Response:
    return PlainTextResponse("404 Not Found", 404)


async def read_record(request: Request, record: type[R], limit: int) -> tuple[R, dict[str, Json]]:
    """The record in the request's body, and the body itself.

    Raises:
        AnswerError: the body is too large, no JSON, or no such record.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        raise AnswerError(failure(400, "the Content-Type must be application/json"))
    try:
        body = parse_document((await read_body(request, limit)).decode())
    except ValueError as error:
        raise AnswerError(failure(400, "Malformed JSON in request body")) from error
    try:
        return record.from_json(body), body
    except ContractError as error:
        raise AnswerError(invalid(error.issues)) from error


async def read_body(request: Request, limit: int) -> bytes:
    """The body; one that is too large is read on for a while, so that its sender sees the answer.

    Raises:
        AnswerError: 413; 408 where nothing more of it arrives, 400 where its sender hangs up.
    """
    chunks: list[bytes] = []
    size = 0
    async for chunk in _within(BODY_SECONDS, request.stream()):
        size += len(chunk)
        if size <= limit:
            chunks.append(chunk)
        else:
            chunks.clear()
        if size > max(limit, DRAIN_LIMIT):
            break
    if size > limit:
        raise AnswerError(failure(413, f"the request body has more than {limit} bytes"))
    return b"".join(chunks)


async def _within(seconds: float, stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """What ``stream`` brings, as long as each part comes within ``seconds``."""
    while True:
        try:
            with anyio.fail_after(seconds):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            late = failure(408, f"nothing of the request body arrived for {seconds:.0f} s")
            late.headers["Connection"] = "close"
            raise AnswerError(late) from error
        except ClientDisconnect as error:
            raise AnswerError(failure(400, "the request body ended too early")) from error
        yield chunk
