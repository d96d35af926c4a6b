"""How the embedded tracker presents itself, and the largest bodies that it takes."""

from __future__ import annotations

from dataclasses import dataclass

BODY_LIMIT = 32 * 1024 * 1024
FILE_LIMIT = 5 * 1024**3  # what an object store takes in one PUT


@dataclass(frozen=True, slots=True)
class Settings:
    """How the server presents itself. ``hosts`` are names beyond loopback that it answers to."""

    public_url: str
    hosts: frozenset[str] = frozenset()
    private_pages: bool = False
    body_limit: int = BODY_LIMIT
    file_limit: int = FILE_LIMIT
