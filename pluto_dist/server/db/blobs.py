"""Uploaded bytes on disk, in a folder beside the database, each named by its own SHA-256.

A path is made of a digest and of nothing that a client sent; the same content is stored once. The
folder is its owner's alone. What the bytes belong to is in ``files``.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

_DIGEST = re.compile(r"[0-9a-f]{64}")


class TooLargeError(Exception):
    """More bytes than may be stored in one file."""


@dataclass(frozen=True, slots=True)
class Blob:
    digest: str
    size: int


class Blobs:
    """The folder of a database's blobs, made when the first one arrives."""

    def __init__(self, database: Path) -> None:
        self._folder = database.with_name(database.name + ".blobs")

    async def write(self, chunks: AsyncIterator[bytes], limit: int) -> Blob:
        """Store what comes and say what it was; nothing stays of a body that breaks off.

        Raises:
            TooLargeError: it has more than ``limit`` bytes.
        """
        self._folder.mkdir(mode=0o700, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=".draft-", dir=self._folder)
        draft = Path(name)
        digest, size = hashlib.sha256(), 0
        try:
            with os.fdopen(descriptor, "wb") as file:
                async for chunk in chunks:
                    size += len(chunk)
                    if size > limit:
                        raise TooLargeError
                    digest.update(chunk)
                    file.write(chunk)
            path = self.path(digest.hexdigest())
            path.parent.mkdir(mode=0o700, exist_ok=True)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
        return Blob(digest.hexdigest(), size)

    def path(self, digest: str) -> Path:
        """Where the bytes with this digest are.

        Raises:
            ValueError: it is no digest.
        """
        if not _DIGEST.fullmatch(digest):
            raise ValueError("not a SHA-256 in hexadecimal")
        return self._folder / digest[:2] / digest
