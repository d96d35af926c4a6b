"""The database file: its permissions, and files that are no database of the tracker."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from pluto_dist.server import LocalServer
from pluto_dist.server.db.database import Database, DatabaseFileError
from server.conftest import Client


def test_files_are_private(tmp_path: Path) -> None:
    """The files have mode 0600, a folder that was created for them 0700."""
    previous = os.umask(0)
    try:
        with LocalServer(tmp_path / "new" / "t.db") as server:
            one = Client(server)
            one.create_run("p")
            one.session.close()
            modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in (tmp_path / "new").iterdir()}
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    assert set(modes.values()) == {0o600}
    assert "t.db" in modes


@pytest.mark.parametrize("kind", ["text", "folder", "other program", "newer"])
def test_other_files_are_rejected(tmp_path: Path, kind: str) -> None:
    """A file that is no database of the tracker is rejected with a reason, and not changed."""
    path = tmp_path / "file"
    if kind == "text":
        path.write_text("hello " * 500)
    elif kind == "folder":
        path.mkdir()
    elif kind == "newer":
        Database(path).close()
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA user_version = 99")
        connection.close()
    else:
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE foreign_table (a)")
        connection.close()
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(DatabaseFileError, match="cannot be the tracker's database"):
        Database(path)
    assert not path.is_file() or path.read_bytes() == before
