"""API keys of the tracker: format, generation and masking. The database stores only their hashes."""

from __future__ import annotations

import re
import secrets

PREFIX = "mlps_"
PREFIXES = (PREFIX, "mlpi_")  # of the hosted tracker's keys; this server generates only the first kind
_MIN_SECRET_LENGTH = 8
_KEY = re.compile(rf"({'|'.join(PREFIXES)})[^/\s?&\"]+")


def mint() -> str:
    """A new random key."""
    return PREFIX + secrets.token_urlsafe(32)


def invalid_reason(key: str) -> str | None:
    """Why a user's own key cannot be used, without repeating the key; ``None`` for a valid one.

    >>> invalid_reason("mlps_short")
    'it must have at least 8 characters after mlps_'
    """
    if not key.startswith(PREFIX):
        return f"it must start with {PREFIX}"
    if len(key) < len(PREFIX) + _MIN_SECRET_LENGTH:
        return f"it must have at least {_MIN_SECRET_LENGTH} characters after {PREFIX}"
    if not (key.isascii() and key.isprintable()) or " " in key:
        return "it must be printable ASCII without blanks"
    return None


def masked(text: str) -> str:
    r"""``text`` with API keys masked and control characters replaced.

    >>> masked("/o/mlps_secret?page=1\n")
    '/o/mlps_***?page=1?'
    """
    printable = text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)
    return _KEY.sub(r"\1***", printable)
