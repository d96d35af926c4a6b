"""Files of runs, and the signatures of the URLs that upload and download them.

A file is registered, then uploaded, then listed and downloaded. Upload and download need no API key:
like a presigned URL of an object store, the URL is signed for one file, one method and a lifetime, with
a secret of this database. The bytes are in ``blobs``.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass

from pluto_dist.serialization.text import parse_digits
from pluto_dist.server.db.blobs import Blob
from pluto_dist.server.db.database import Database
from pluto_dist.server.transport.sdk_requests import FileUpload

UPLOAD_S, DOWNLOAD_S = 3600, 5 * 24 * 3600  # lifetimes as on the hosted tracker
_COLUMNS = "id, run_id, log_name, file_name, type, step, sample, time, size, caption, digest"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a run; ``digest`` is ``None`` until it is uploaded."""

    id: int
    run: int
    log_name: str
    file_name: str
    type: str
    step: int
    sample: int
    time: int
    size: int
    caption: str | None
    digest: str | None


def register(database: Database, run: int, file: FileUpload) -> int:
    """The id of a file to upload; a file registered again keeps its id. The caller opens the transaction."""
    return int(
        database.execute(
            "INSERT INTO files (run_id, log_name, file_name, type, step, sample, time, size, caption, annotations) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (run_id, log_name, file_name, step, sample) "
            "DO UPDATE SET time = excluded.time, type = excluded.type, caption = excluded.caption, "
            "annotations = excluded.annotations RETURNING id",
            (
                run,
                file.log_name,
                file.file_name,
                file.type,
                file.step or 0,
                file.sample or 0,
                file.time,
                file.size,
                file.caption,
                file.annotations,
            ),
        ).fetchall()[0][0]
    )


def set_content(database: Database, file: int, blob: Blob) -> None:
    """Record the uploaded bytes of a file."""
    with database.transaction():
        database.execute("UPDATE files SET digest = ?, size = ? WHERE id = ?", (blob.digest, blob.size, file))


def find(database: Database, file: int) -> StoredFile | None:
    row = database.execute(f"SELECT {_COLUMNS} FROM files WHERE id = ?", (file,)).fetchone()
    return None if row is None else StoredFile(*row)


def list_uploaded(
    database: Database, run: int, *, name: str | None = None, group: str | None = None, limit: int = 10_000
) -> list[StoredFile]:
    """The run's uploaded files, optionally of one log name or one group of log names."""
    condition, values = "run_id = ? AND digest IS NOT NULL", (run,)
    rows = database.execute(
        f"SELECT {_COLUMNS} FROM files WHERE {condition} ORDER BY log_name, step, sample, id", values
    )
    found = (StoredFile(*row) for row in rows)
    selected = (
        each
        for each in found
        if (name is None or each.log_name == name) and (group is None or each.log_name.rpartition("/")[0] == group)
    )
    return [each for each, _ in zip(selected, range(limit), strict=False)]


class UrlSigner:
    """Signs and verifies the URLs of single files with a secret that is kept in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def sign(self, method: str, file: int, lifetime_s: int) -> str:
        """The query string of a signed URL."""
        expires = int(time.time()) + lifetime_s
        return f"expires={expires}&signature={self._signature(method, file, expires)}"

    def is_valid(self, method: str, file: int, expires: str, signature: str) -> bool:
        until = parse_digits(expires, most=14)
        if until is None or not signature.isascii():
            return False
        return hmac.compare_digest(self._signature(method, file, until), signature) and until > time.time()

    def _signature(self, method: str, file: int, expires: int) -> str:
        return hmac.new(self._secret(), f"{method} {file} {expires}".encode(), hashlib.sha256).hexdigest()

    def _secret(self) -> bytes:
        row = self._database.execute("SELECT value FROM secrets WHERE name = 'files'").fetchone()
        if row is None:
            with self._database.transaction():
                self._database.execute(
                    "INSERT OR IGNORE INTO secrets (name, value) VALUES ('files', ?)", (secrets.token_bytes(32),)
                )
            row = self._database.execute("SELECT value FROM secrets WHERE name = 'files'").fetchone()
        return bytes(row[0])
