"""Authentication of requests by API key, and the reading of authenticated bodies.

The key is checked before the body is read.
"""

from __future__ import annotations

import re
from typing import TypeVar

from starlette.requests import Request

from pluto_dist.contract.validation import Json, Record
from pluto_dist.server.api_keys import PREFIXES
from pluto_dist.server.db.database import Database, InvalidKeyError
from pluto_dist.server.transport.bodies import read_body, read_record
from pluto_dist.server.transport.responses import ResponseError, error_response, unauthorized_response

R = TypeVar("R", bound=Record)


class Authenticator:
    """Authenticates requests with the keys in ``database``. A body may have ``body_limit`` bytes."""

    def __init__(self, database: Database, body_limit: int) -> None:
        self._database = database
        self._body_limit = body_limit

    def organization(self, request: Request) -> str:
        """The organization of the request's key.

        Raises:
            ResponseError: 401.
        """
        # As measured on the hosted tracker: any scheme is accepted, and a second blank makes the key empty.
        parts = request.headers.get("authorization", "").rstrip().split(" ")
        key = parts[1] if len(parts) > 1 else ""
        if not key:
            raise ResponseError(unauthorized_response())
        if not key.startswith(PREFIXES):
            raise ResponseError(unauthorized_response("Invalid API key"))
        try:
            return self._database.organization_of(key)
        except InvalidKeyError as error:
            raise ResponseError(unauthorized_response(str(error))) from error

    async def read_record(self, request: Request, record: type[R]) -> tuple[str, R, dict[str, Json]]:
        """Organization, record and JSON body of a request.

        Raises:
            ResponseError: 401, or an error of the body.
        """
        organization = self.organization(request)
        parsed, body = await read_record(request, record, self._body_limit)
        return organization, parsed, body

    async def read_lines(self, request: Request) -> tuple[str, float, bytes]:
        """Organization, run and raw body of a request with the header ``X-Run-Id``.

        Raises:
            ResponseError: 401, 413, or 400 for an invalid header or a compressed body.
        """
        organization = self.organization(request)
        run = run_in_header(request)
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise ResponseError(
                error_response(400, "the body is compressed; this server accepts uncompressed bodies only")
            )
        return organization, run, await read_body(request, self._body_limit)


def run_in_header(request: Request) -> float:
    """The run in the header ``X-Run-Id``.

    Raises:
        ResponseError: 400 if the header is missing or invalid.
    """
    value = request.headers.get("x-run-id")
    if value is None:
        raise ResponseError(error_response(400, "Missing required header: X-Run-Id"))
    if not re.fullmatch("[0-9]+", value):
        raise ResponseError(error_response(400, "X-Run-Id must be the run's number, in digits"))
    return float(value)
