"""Uploaded files on disk, in a folder beside the database, each named by its SHA-256 digest.

Nothing that a client sent becomes part of a path, and equal contents are stored once. The folder has
mode 0700. Names and other facts about the files are in ``files``.
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
    """The file has more bytes than the limit."""


@dataclass(frozen=True, slots=True)
class Blob:
    """Digest and size of stored bytes."""

    digest: str
    size: int


class BlobStore:
    """The blob folder of a database; created with the first blob."""

    def __init__(self, database: Path) -> None:
        self._folder = database.with_name(database.name + ".blobs")

    async def write(self, chunks: AsyncIterator[bytes], limit: int) -> Blob:
        """Store the bytes. Nothing is kept if ``chunks`` raises.

        Raises:
            TooLargeError: there are more than ``limit`` bytes.
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
        """The path of the blob with this digest.

        Raises:
            ValueError: ``digest`` is no digest.
        """
        if not _DIGEST.fullmatch(digest):
            raise ValueError("not a SHA-256 in hexadecimal")
        return self._folder / digest[:2] / digest
