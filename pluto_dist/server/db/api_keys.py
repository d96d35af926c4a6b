"""API keys of this server: how one is made, and what one must look like. Pure; ``database`` keeps hashes."""

from __future__ import annotations

import secrets

PREFIX = "mlps_"


def mint() -> str:
    return PREFIX + secrets.token_urlsafe(32)


def fault_in(key: str) -> str | None:
    """Why a key that was chosen by hand would not work, without repeating it; ``None`` when it would."""
    if not key.startswith(PREFIX):
        return f"it must start with {PREFIX}"
    if len(key) < len(PREFIX) + 8:
        return f"it must have at least 8 characters after {PREFIX}"
    if not (key.isascii() and key.isprintable()) or " " in key:
        return "it must be printable ASCII without blanks"
    return None
