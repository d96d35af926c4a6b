"""Who asks, and what they sent: the API key and the body of a request, for every group of endpoints.

The key is checked before a body is looked at. Nothing here knows what a request is for.
"""

from __future__ import annotations

from typing import TypeVar

from starlette.requests import Request

from pluto_dist.contract.validation import Json, Record
from pluto_dist.server.db.database import Database, KeyRefusedError
from pluto_dist.server.transport.responses import AnswerError, failure, read_body, read_record, unauthorized

KEY_PREFIXES = ("mlps_", "mlpi_")

R = TypeVar("R", bound=Record)


class Access:
    """Opens requests with the keys that ``database`` knows; a body has at most ``body_limit`` bytes."""

    def __init__(self, database: Database, body_limit: int) -> None:
        self._database = database
        self._body_limit = body_limit

    def organization(self, request: Request) -> str:
        """The organization that the request's key opens.

        Raises:
            AnswerError: 401.
        """
        # The scheme word is not looked at, and a second blank leaves an empty key: as measured.
        parts = request.headers.get("authorization", "").rstrip().split(" ")
        key = parts[1] if len(parts) > 1 else ""
        if not key:
            raise AnswerError(unauthorized())
        if not key.startswith(KEY_PREFIXES):
            raise AnswerError(unauthorized("Invalid API key"))
        try:
            return self._database.organization_of(key)
        except KeyRefusedError as error:
            raise AnswerError(unauthorized(str(error))) from error

    async def read(self, request: Request, record: type[R]) -> tuple[str, R, dict[str, Json]]:
        """Organization, record and body of a JSON request.

        Raises:
            AnswerError: 401, or what is wrong with the body.
        """
        organization = self.organization(request)
        found, body = await read_record(request, record, self._body_limit)
        return organization, found, body

    async def read_lines(self, request: Request) -> tuple[str, float, bytes]:
        """Organization, run and body of a request that names its run in ``X-Run-Id``.

        Raises:
            AnswerError: 401, 413, or 400 for a run that is no number and for a compressed body.
        """
        organization = self.organization(request)
        run = run_in_header(request)
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise AnswerError(failure(400, "the body is compressed; this server reads it only as it is"))
        return organization, run, await read_body(request, self._body_limit)


def run_in_header(request: Request) -> float:
    """The run that a request to the ingest endpoints is about.

    Raises:
        AnswerError: 400 when there is none.
    """
    named = request.headers.get("x-run-id")
    if named is None:
        raise AnswerError(failure(400, "Missing required header: X-Run-Id"))
    if not (named.isascii() and named.isdigit()):
        raise AnswerError(failure(400, "X-Run-Id must be the run's number, in digits"))
    return float(named)
