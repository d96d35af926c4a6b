"""The tracker's file: one SQLite connection, its transactions, and the API keys.

What is written to runs is in ``runs``, what is read from them in ``queries``. No state is kept in
memory, so several server processes may share one file: whoever writes holds the file's write lock
from the first read of the transaction to its commit.

The file is in WAL mode with ``synchronous=NORMAL``: a commit is a write into the log without waiting
for the disk. A killed process loses nothing; a power cut may lose the last moments, and never leaves
a damaged file. WAL needs shared memory, so the file must be on a local disk, not on NFS.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pluto_dist.server.db import migrations
from pluto_dist.server.db.records import now_ms

ORGANIZATION = "local-org"
_LOCK_WAIT_S = 10.0


class DatabaseFileError(ValueError):
    """A file that cannot be used as the tracker's database."""

    def __init__(self, path: Path, why: object) -> None:
        super().__init__(
            f"{path} cannot be the tracker's database: {why}. Name another file, or one that does not exist."
        )


class KeyRefusedError(Exception):
    """An API key that opens nothing; the message says why, in the hosted server's words."""


class Database:
    """One connection to the tracker's file, used by one thread at a time.

    The file and a folder made for it are readable by their owner only.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._connection = _connect(path)
        except (sqlite3.Error, OSError, ValueError) as error:
            raise DatabaseFileError(path, error) from error

    def close(self) -> None:
        self._connection.close()

    def execute(self, statement: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        return self._connection.execute(statement, values)

    def execute_many(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        self._connection.executemany(statement, rows)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside is one change: no other process writes meanwhile, an error undoes all of it."""
        yield from self._within("BEGIN IMMEDIATE")

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Everything read inside is of one moment."""
        yield from self._within("BEGIN")

    def _within(self, begin: str) -> Iterator[None]:
        self._connection.execute(begin)
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def add_key(self, key: str, *, organization: str = ORGANIZATION, expires_at: int | None = None) -> None:
        """Let ``key`` in from now on; only its hash is stored. ``expires_at`` in milliseconds."""
        with self.transaction():
            self.execute(
                "INSERT INTO api_keys (hash, organization, created_at, expires_at) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (hash) DO UPDATE SET revoked_at = NULL, expires_at = excluded.expires_at",
                (_hash(key), organization, now_ms(), expires_at),
            )

    def revoke_key(self, key: str) -> None:
        with self.transaction():
            self.execute("UPDATE api_keys SET revoked_at = ? WHERE hash = ?", (now_ms(), _hash(key)))

    def organization_of(self, key: str) -> str:
        """The organization that ``key`` opens.

        Raises:
            KeyRefusedError: the key is unknown, revoked or expired.
        """
        wanted = _hash(key)
        row = self.execute("SELECT * FROM api_keys WHERE hash = ?", (wanted,)).fetchone()
        if row is None or not hmac.compare_digest(row["hash"], wanted):
            raise KeyRefusedError("Key not found")
        if row["revoked_at"] is not None:
            raise KeyRefusedError("API key has been revoked")
        if row["expires_at"] is not None and row["expires_at"] <= now_ms():
            raise KeyRefusedError("API key has expired")
        return str(row["organization"])

    def knows(self, key: str) -> bool:
        try:
            self.organization_of(key)
        except KeyRefusedError:
            return False
        return True


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)  # SQLite gives the log beside it the same mode
    # Opened in the main thread and used in the server's, one after the other (see local.py).
    connection = sqlite3.connect(
        path, timeout=_LOCK_WAIT_S, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    try:
        connection.row_factory = sqlite3.Row
        connection.execute(f"PRAGMA busy_timeout = {int(_LOCK_WAIT_S * 1000)}")
        migrations.check_owner(connection)
        _use_write_ahead_log(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        migrations.migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    # Two processes that open a new file at once: the switch of mode does not wait for the busy timeout.
    deadline = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
