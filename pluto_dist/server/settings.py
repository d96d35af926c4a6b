"""Settings of the embedded tracker, and the limits that its routes and its OpenAPI document share."""

from __future__ import annotations

from dataclasses import dataclass

BODY_LIMIT = 32 * 1024 * 1024  # bytes of a request body
FILE_LIMIT = 5 * 1024**3  # bytes of an uploaded file; S3 accepts no more in one PUT
LARGEST_INTEGER = 2**53  # JavaScript keeps numbers as doubles, which hold every integer up to this one
NAME_LIMIT = 1000  # characters of a log name, a file name or a type

# The largest page of each list.
RUNS_PER_PAGE = 200
POINTS_PER_PAGE = 10_000
RAW_POINTS_PER_PAGE = 50_000
LINES_PER_PAGE = 10_000
DATA_PER_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one server.

    Attributes:
        public_url: base URL of the addresses in responses.
        hosts: accepted Host names besides loopback.
        private_pages: whether the pages require the API key.
        body_limit: largest request body in bytes.
        file_limit: largest uploaded file in bytes.
        read_only: whether requests that change something are refused.
    """

    public_url: str
    hosts: frozenset[str] = frozenset()
    private_pages: bool = False
    body_limit: int = BODY_LIMIT
    file_limit: int = FILE_LIMIT
    read_only: bool = False
