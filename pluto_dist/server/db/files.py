"""The files of runs: announced, then uploaded, then listed and fetched.

An announced file gets an address to send its bytes to, which needs no key: like an object store's
presigned URL it is signed for one file, one method and some time, with a secret of this database. Names
are data here; the bytes are in ``blobs``.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass

from pluto_dist.server.db.blobs import Blob
from pluto_dist.server.db.database import Database
from pluto_dist.server.transport.bodies import AnnouncedFile

UPLOAD_S, DOWNLOAD_S = 3600, 5 * 24 * 3600  # as on the hosted server
_COLUMNS = "id, run_id, log_name, file_name, type, step, sample, time, size, caption, digest"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a run; ``digest`` is ``None`` until its bytes have arrived."""

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


def announce(database: Database, run: int, file: AnnouncedFile) -> int:
    """The number of the file to come; announced again it is the same file. Stands in a transaction."""
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


def arrived(database: Database, file: int, blob: Blob) -> None:
    with database.transaction():
        database.execute("UPDATE files SET digest = ?, size = ? WHERE id = ?", (blob.digest, blob.size, file))


def find(database: Database, file: int) -> StoredFile | None:
    row = database.execute(f"SELECT {_COLUMNS} FROM files WHERE id = ?", (file,)).fetchone()
    return None if row is None else StoredFile(*row)


def uploaded(
    database: Database, run: int, *, name: str | None = None, group: str | None = None, limit: int = 10_000
) -> list[StoredFile]:
    """The run's files whose bytes are here, under one log name or group of log names if given."""
    condition, values = "run_id = ? AND digest IS NOT NULL", (run,)
    rows = database.execute(
        f"SELECT {_COLUMNS} FROM files WHERE {condition} ORDER BY log_name, step, sample, id", values
    )
    found = (StoredFile(*row) for row in rows)
    wanted = (
        each
        for each in found
        if (name is None or each.log_name == name) and (group is None or each.log_name.rpartition("/")[0] == group)
    )
    return [each for each, _ in zip(wanted, range(limit), strict=False)]


class Signatures:
    """Makes and checks the addresses of single files. The secret is made once and stays in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def query(self, method: str, file: int, lifetime_s: int) -> str:
        expires = int(time.time()) + lifetime_s
        return f"expires={expires}&signature={self._signature(method, file, expires)}"

    def are_valid(self, method: str, file: int, expires: str, signature: str) -> bool:
        if not (expires.isascii() and expires.isdigit() and len(expires) < 15 and signature.isascii()):
            return False
        wanted = self._signature(method, file, int(expires))
        return hmac.compare_digest(wanted, signature) and int(expires) > time.time()

    def _signature(self, method: str, file: int, expires: int) -> str:
        return hmac.new(self._secret(), f"{method} {file} {expires}".encode(), hashlib.sha256).hexdigest()

    def _secret(self) -> bytes:
        row = self._database.execute("SELECT value FROM secrets WHERE name = 'files'").fetchone()
        if row is None:
            with self._database.transaction():
                made = secrets.token_bytes(32)
                self._database.execute("INSERT OR IGNORE INTO secrets (name, value) VALUES ('files', ?)", (made,))
            row = self._database.execute("SELECT value FROM secrets WHERE name = 'files'").fetchone()
        return bytes(row[0])
