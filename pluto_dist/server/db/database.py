"""The database connection, its transactions, and the API keys.

No state is kept in memory, so several server processes may share one file: a writing transaction
holds the file's write lock from its first read to its commit.

The file is in WAL mode with ``synchronous=NORMAL``: a commit appends to the log without waiting for
the disk. A killed process loses nothing; a power failure may lose the last commits, but never
corrupts the file. WAL needs shared memory, so the file must be on a local disk, not on NFS.
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
_LOCK_TIMEOUT_S = 10.0


class DatabaseFileError(ValueError):
    """The file cannot be used as the tracker's database."""

    def __init__(self, path: Path, why: object) -> None:
        super().__init__(
            f"{path} cannot be the tracker's database: {why}. Name another file, or one that does not exist."
        )


class InvalidKeyError(Exception):
    """The API key is unknown, revoked or expired. The messages are the hosted tracker's."""


class Database:
    """One connection to the tracker's file, used by one thread at a time.

    The file has mode 0600, a folder created for it 0700.
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
        """A write transaction: holds the write lock, commits at the end, rolls back on an exception."""
        yield from self._transaction("BEGIN IMMEDIATE")

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """A read transaction: all reads see the same state."""
        yield from self._transaction("BEGIN")

    def _transaction(self, begin: str) -> Iterator[None]:
        self._connection.execute(begin)
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def add_key(self, key: str, *, organization: str = ORGANIZATION, expires_at: int | None = None) -> None:
        """Accept ``key`` from now on; only its hash is stored. ``expires_at`` in milliseconds since 1970."""
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
        """The organization that ``key`` belongs to.

        Raises:
            InvalidKeyError: the key is unknown, revoked or expired.
        """
        hashed = _hash(key)
        row = self.execute("SELECT * FROM api_keys WHERE hash = ?", (hashed,)).fetchone()
        if row is None or not hmac.compare_digest(row["hash"], hashed):
            raise InvalidKeyError("Key not found")
        if row["revoked_at"] is not None:
            raise InvalidKeyError("API key has been revoked")
        if row["expires_at"] is not None and row["expires_at"] <= now_ms():
            raise InvalidKeyError("API key has expired")
        return str(row["organization"])

    def accepts_key(self, key: str) -> bool:
        try:
            self.organization_of(key)
        except InvalidKeyError:
            return False
        return True


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)  # SQLite gives the write-ahead log the same mode
    # Opened in one thread and then used in another, never in both at once (see local.py).
    connection = sqlite3.connect(
        path, timeout=_LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    try:
        connection.row_factory = sqlite3.Row
        connection.execute(f"PRAGMA busy_timeout = {int(_LOCK_TIMEOUT_S * 1000)}")
        migrations.check_application(connection)
        _use_write_ahead_log(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        migrations.migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    # The switch to WAL does not wait for the busy timeout if another process opens the new file at the same time.
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
