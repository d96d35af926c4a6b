"""Size, backup and restore of a tracker's database with its uploaded files.

A backup may be made while servers write: SQLite copies one state of the file, and an uploaded file never changes.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from pluto_dist.contract.validation import Json
from pluto_dist.server.db.blobs import BlobStore
from pluto_dist.server.db.database import Database
from pluto_dist.server.db.records import iso, now_ms

_DAY_MS = 86_400_000
AGES = (30, 90, 365)  # days of the report on retention


class UpkeepError(Exception):
    """The backup or the restore cannot be made; the message says why."""


@dataclass(frozen=True, slots=True)
class ProjectSize:
    """How much a project has. Times in ISO 8601."""

    project: str
    runs: int
    running: int
    points: int
    console_lines: int
    files: int
    file_bytes: int
    oldest: str
    newest: str


@dataclass(frozen=True, slots=True)
class Size:
    """How much a database has, and how much of it is old.

    Attributes:
        database: path of the file.
        database_bytes: of the file and its write-ahead log.
        blob_bytes: of the uploaded files on disk; equal ones are stored once.
        runs_older_than: for each number of days, the runs that have not changed since.
        projects: the largest first.
    """

    database: str
    database_bytes: int
    blob_bytes: int
    runs_older_than: dict[str, int]
    projects: tuple[ProjectSize, ...]

    def to_json(self) -> dict[str, Json]:
        return {**asdict(self), "projects": [asdict(each) for each in self.projects]}


def size(path: Path) -> Size:
    """The size of the database at ``path``.

    Raises:
        DatabaseFileError: it is none.
    """
    with closing(_existing(path)) as database, database.snapshot():
        counted = database.execute(
            "SELECT p.name, count(*), sum(r.status = 'RUNNING'), "
            "sum((SELECT count(*) FROM points JOIN series ON series_id = series.id WHERE run_id = r.id)), "
            "sum((SELECT count(*) FROM log_lines WHERE run_id = r.id)), "
            "sum((SELECT count(*) FROM files WHERE run_id = r.id AND digest IS NOT NULL)), "
            "sum((SELECT coalesce(sum(size), 0) FROM files WHERE run_id = r.id AND digest IS NOT NULL)), "
            "min(r.created_at), max(r.updated_at) FROM runs r JOIN projects p ON p.id = r.project_id GROUP BY p.id"
        ).fetchall()
        ages = {
            f"{days} days": database.execute(
                "SELECT count(*) FROM runs WHERE updated_at < ?", (now_ms() - days * _DAY_MS,)
            ).fetchone()[0]
            for days in AGES
        }
    projects = [
        ProjectSize(name, runs, running, points, lines, uploaded, total, iso(oldest), iso(newest))
        for name, runs, running, points, lines, uploaded, total, oldest, newest in map(tuple, counted)
    ]
    files = (path, path.with_name(f"{path.name}-wal"))
    return Size(
        database=str(path),
        database_bytes=sum(each.stat().st_size for each in files if each.exists()),
        blob_bytes=sum(each.stat().st_size for each in _blobs_of(path).rglob("*") if each.is_file()),
        runs_older_than=ages,
        projects=tuple(sorted(projects, key=lambda each: (-each.points - each.file_bytes, each.project))),
    )


def back_up(path: Path, target: Path) -> int:
    """Copy the database at ``path`` to ``target``, and its uploaded files beside that; returns how many of those.

    Raises:
        DatabaseFileError: ``path`` is no database of a tracker.
        UpkeepError: ``target`` exists, or cannot be written.
    """
    if target.exists() or _blobs_of(target).exists():
        raise UpkeepError(f"{target} or {_blobs_of(target).name} beside it exists already; name another file")
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with closing(_existing(path)) as database:
            database.execute("VACUUM INTO ?", (str(target),))
        target.chmod(0o600)
        return _copy_blobs(path, target)
    except (OSError, sqlite3.Error) as error:
        raise UpkeepError(f"{target} cannot be written: {error}") from error


def restore(backup: Path, path: Path) -> int:
    """Put a backup where there is no database yet; returns the number of its runs.

    Raises:
        DatabaseFileError: ``backup`` is no database of a tracker.
        UpkeepError: ``path`` exists, or cannot be written.
    """
    back_up(backup, path)
    with closing(_existing(path)) as database:
        return int(database.execute("SELECT count(*) FROM runs").fetchone()[0])


def _existing(path: Path) -> Database:
    """The database at ``path``, which is not created."""
    if not path.is_file():
        raise UpkeepError(f"{path} is no database of a tracker: there is no such file")
    return Database(path)


def _blobs_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.blobs")


def _copy_blobs(path: Path, target: Path) -> int:
    source, copies = BlobStore(path), BlobStore(target)
    with closing(_existing(target)) as database:
        digests = [row[0] for row in database.execute("SELECT DISTINCT digest FROM files WHERE digest IS NOT NULL")]
    count = 0
    for digest in digests:
        blob, copy = source.path(digest), copies.path(digest)
        copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if blob.exists():  # a run may be deleted meanwhile
            shutil.copyfile(blob, copy)
            count += 1
    return count
