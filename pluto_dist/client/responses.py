"""An HTTP answer without the API key, which a server may echo, and its parts: the error in words, the date, ...

Pure, except that the clock of this machine is used if the answer has no date.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import InvalidHeader, ProtocolError
from urllib3.util.retry import Retry

from pluto_dist.contract.secret import Secret


def redirected(url: str, location: str) -> str:
    advice = "Check PLUTO_URL_API."
    with suppress(ValueError):  # not a URL
        target = urlsplit(location)
        if target.scheme in ("http", "https") and target.hostname:
            advice = f"If that is your tracker, set PLUTO_URL_API={target.scheme}://{target.netloc.rpartition('@')[2]}"
    return f"{origin(url)} redirects elsewhere; a redirected request would lose its body.\n{advice}"


@dataclass(frozen=True, slots=True)
class Answer:
    """The parts of an answer that count, with the key masked."""

    status: int
    content: bytes
    date_header: str
    retry_header: str
    location: str
    media_type: str = ""

    @classmethod
    def read(cls, response: requests.Response, limit: int, key: Secret) -> Answer:
        """The answer, with at most ``limit`` bytes of its body.

        Raises:
            ProtocolError: the body ended before its length; urllib3 1.26 does not say so.
        """

        def header(name: str) -> str:
            return key.masked(response.headers.get(name, ""))

        body = response.raw.read(limit, decode_content=True)
        if len(body) < limit and (missing := response.raw.length_remaining):
            raise ProtocolError(f"Connection broken: {missing} bytes of the answer are missing")
        content = key.masked_bytes(body)
        media_type = header("Content-Type").partition(";")[0].strip().lower()
        return cls(response.status_code, content, header("Date"), header("Retry-After"), header("Location"), media_type)

    def date(self) -> float:
        """Seconds since 1970; this machine's clock if the answer has no date."""
        with suppress(ValueError, TypeError, OverflowError):  # no date, or no HTTP date
            return parsedate_to_datetime(self.date_header).timestamp()
        return time.time()

    def retry_after(self) -> float:
        """For how many seconds the server asks to be left alone."""
        try:
            return max(0.0, Retry().parse_retry_after(self.retry_header or "0"))
        except (InvalidHeader, ValueError, OverflowError):
            return 0.0  # neither seconds nor a date: as good as none


def error_text(content: bytes) -> str:
    """The message in any of the server's error shapes, or the beginning of another answer.

    >>> error_text(b'{"error": "Unauthorized", "message": "Key not found"}'), error_text(b'{"detail": "Run not found"}')
    ('Unauthorized: Key not found', 'Run not found')
    """
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return repr(content[:200].decode(errors="replace"))
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, dict) and isinstance(error.get("issues"), list):
        found = [i for i in error["issues"] if isinstance(i, dict) and isinstance(i.get("path"), list)]
        return "; ".join(f"{'.'.join(map(str, i['path']))}: {i.get('message')}" for i in found)[:1000]
    parts = (error, body.get("message"), body.get("detail")) if isinstance(body, dict) else ()  # detail: FastAPI's
    return ": ".join(str(part)[:500] for part in parts if part) or repr(body)[:200]


def origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
