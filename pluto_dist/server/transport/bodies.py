"""Reading of request bodies, within a size limit and a timeout.

``pluto_dist.contract.validation`` checks a body against its record; this module turns the outcome
into an HTTP response.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TypeVar

import anyio
from starlette.requests import ClientDisconnect, Request

from pluto_dist.contract.validation import ContractError, Json, Record, parse_document
from pluto_dist.server.transport.responses import ResponseError, error_response, validation_response

DRAIN_LIMIT = 256 * 1024 * 1024  # bytes
BODY_TIMEOUT_S = 60.0  # for the next chunk of a body

R = TypeVar("R", bound=Record)


async def read_record(request: Request, record: type[R], limit: int) -> tuple[R, dict[str, Json]]:
    """The record in the request's body, and the body itself.

    Raises:
        ResponseError: the body is too large, not JSON, or no valid record.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        raise ResponseError(error_response(400, "the Content-Type must be application/json"))
    try:
        body = parse_document((await read_body(request, limit)).decode())
    except ValueError as error:
        raise ResponseError(error_response(400, "Malformed JSON in request body")) from error
    try:
        return record.from_json(body), body
    except ContractError as error:
        raise ResponseError(validation_response(error.issues)) from error


async def read_body(request: Request, limit: int) -> bytes:
    """The body. Up to ``DRAIN_LIMIT``, one that is too large is read to its end, so that its sender gets the response.

    Raises:
        ResponseError: 413 for a body over ``limit`` bytes, 408 for a timeout, 400 if the client disconnects.
    """
    chunks: list[bytes] = []
    size = 0
    async for chunk in _with_timeout(request.stream(), BODY_TIMEOUT_S):
        size += len(chunk)
        if size <= limit:
            chunks.append(chunk)
        else:
            chunks.clear()
        if size > max(limit, DRAIN_LIMIT):
            break
    if size > limit:
        raise ResponseError(error_response(413, f"the request body has more than {limit} bytes"))
    return b"".join(chunks)


async def _with_timeout(stream: AsyncIterator[bytes], seconds: float) -> AsyncIterator[bytes]:
    """The chunks of ``stream``; the timeout applies to each."""
    while True:
        try:
            with anyio.fail_after(seconds):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            response = error_response(408, f"nothing of the request body arrived for {seconds:.0f} s")
            response.headers["Connection"] = "close"
            raise ResponseError(response) from error
        except ClientDisconnect as error:
            raise ResponseError(error_response(400, "the request body ended too early")) from error
        yield chunk
