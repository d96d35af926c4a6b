"""Migrations of databases of earlier versions."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from pluto_dist.server.db import migrations
from pluto_dist.server.db.database import Database


@pytest.mark.parametrize("version", range(1, len(migrations.MIGRATIONS)))
def test_older_files_are_migrated(tmp_path: Path, version: int) -> None:
    """A file of an earlier version gets the migrations that it lacks, and keeps its rows."""
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as connection:
        for statement in [each for migration in migrations.MIGRATIONS[:version] for each in migration]:
            connection.execute(statement)
        connection.execute("INSERT INTO projects (organization, name, prefix, created_at) VALUES ('o', 'p', 'P', 1)")
        connection.execute(f"PRAGMA application_id = {migrations.APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {version}")
        connection.commit()
    with closing(Database(path)) as database:
        assert database.execute("SELECT name FROM projects").fetchone()[0] == "p"
        assert database.execute("SELECT count(*) FROM points").fetchone()[0] == 0
