"""The database schema as a list of migrations.

``PRAGMA user_version`` is the number of migrations a file has had. Each migration and the new version
are one transaction, so a killed process leaves the file unchanged, and of two processes that open a
new file at the same time only one migrates it. Migrations are only ever appended.
"""

from __future__ import annotations

import sqlite3

APPLICATION_ID = 0x504C5544  # "PLUD" in the file's header: this is a tracker's database

_RUNS = (
    """
    CREATE TABLE api_keys (
        hash TEXT PRIMARY KEY,
        organization TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        expires_at INTEGER,
        revoked_at INTEGER
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE projects (
        id INTEGER PRIMARY KEY,
        organization TEXT NOT NULL,
        name TEXT NOT NULL,
        prefix TEXT NOT NULL,
        next_number INTEGER NOT NULL DEFAULT 1,
        created_at INTEGER NOT NULL,
        UNIQUE (organization, name)
    )
    """,
    "CREATE INDEX projects_by_prefix ON projects (organization, prefix)",
    """
    CREATE TABLE runs (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        project_id INTEGER NOT NULL REFERENCES projects (id),
        number INTEGER NOT NULL,
        external_id TEXT,
        name TEXT NOT NULL,
        status TEXT NOT NULL,
        status_updated INTEGER,
        status_metadata TEXT,
        tags TEXT NOT NULL,
        config TEXT,
        system_metadata TEXT,
        logger_settings TEXT,
        forked_from INTEGER REFERENCES runs (id),
        fork_step INTEGER,
        created_at INTEGER NOT NULL,
        updated_at INTEGER NOT NULL,
        heartbeat_at INTEGER,
        UNIQUE (project_id, number),
        UNIQUE (project_id, external_id)
    )
    """,
    """
    CREATE TABLE status_changes (
        id INTEGER PRIMARY KEY,
        run_id INTEGER NOT NULL REFERENCES runs (id),
        from_status TEXT,
        to_status TEXT NOT NULL,
        at INTEGER NOT NULL,
        source TEXT NOT NULL
    )
    """,
    "CREATE INDEX status_changes_by_run ON status_changes (run_id)",
    """
    CREATE TABLE attaches (
        id INTEGER PRIMARY KEY,
        run_id INTEGER NOT NULL REFERENCES runs (id),
        at INTEGER NOT NULL,
        user_agent TEXT NOT NULL,
        outcome TEXT NOT NULL,
        fields TEXT NOT NULL
    )
    """,
    "CREATE INDEX attaches_by_run ON attaches (run_id)",
)

_LOGGED = (
    """
    CREATE TABLE log_names (
        run_id INTEGER NOT NULL REFERENCES runs (id),
        name TEXT NOT NULL,
        type TEXT NOT NULL,
        PRIMARY KEY (run_id, name)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE series (
        id INTEGER PRIMARY KEY,
        run_id INTEGER NOT NULL REFERENCES runs (id),
        name TEXT NOT NULL,
        UNIQUE (run_id, name)
    )
    """,
    # The primary key is the whole row, so a batch that arrives twice is stored once. SQLite has no NaN: values that
    # are not finite are stored as text, which a column without a type does not convert.
    """
    CREATE TABLE points (
        series_id INTEGER NOT NULL,
        step INTEGER NOT NULL,
        time INTEGER NOT NULL,
        value NOT NULL,
        PRIMARY KEY (series_id, step, time, value)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE log_lines (
        run_id INTEGER NOT NULL,
        time INTEGER NOT NULL,
        number INTEGER NOT NULL,
        type TEXT NOT NULL,
        message TEXT NOT NULL,
        PRIMARY KEY (run_id, time, number, type, message)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE data_points (
        id INTEGER PRIMARY KEY,
        run_id INTEGER NOT NULL,
        name TEXT NOT NULL,
        type TEXT NOT NULL,
        step INTEGER NOT NULL,
        time INTEGER NOT NULL,
        digest TEXT NOT NULL,
        data TEXT NOT NULL,
        UNIQUE (run_id, name, step, time, digest)
    )
    """,
    """
    CREATE TABLE files (
        id INTEGER PRIMARY KEY,
        run_id INTEGER NOT NULL REFERENCES runs (id),
        log_name TEXT NOT NULL,
        file_name TEXT NOT NULL,
        type TEXT NOT NULL,
        step INTEGER NOT NULL,
        sample INTEGER NOT NULL,
        time INTEGER NOT NULL,
        size INTEGER NOT NULL,
        caption TEXT,
        annotations TEXT,
        digest TEXT,
        UNIQUE (run_id, log_name, file_name, step, sample)
    )
    """,
    """
    CREATE TABLE alerts (
        id INTEGER PRIMARY KEY,
        run_id INTEGER NOT NULL REFERENCES runs (id),
        at INTEGER NOT NULL,
        level TEXT NOT NULL,
        title TEXT NOT NULL,
        body TEXT NOT NULL
    )
    """,
    "CREATE INDEX alerts_by_run ON alerts (run_id)",
    """
    CREATE TABLE model_graphs (
        run_id INTEGER PRIMARY KEY REFERENCES runs (id),
        format TEXT NOT NULL,
        nodes TEXT NOT NULL
    )
    """,
    "CREATE TABLE secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
)

# For the newest runs of a project.
_RUNS_BY_AGE = ("CREATE INDEX runs_by_age ON runs (project_id, created_at)",)

_NOTES_AND_EVENTS = (
    "ALTER TABLE runs ADD COLUMN notes TEXT",
    "ALTER TABLE status_changes ADD COLUMN metadata TEXT",  # the status_metadata that came with the status
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_RUNS, _LOGGED, _RUNS_BY_AGE, _NOTES_AND_EVENTS)


def check_application(connection: sqlite3.Connection) -> None:
    """Check that the file is a tracker's database, or empty. Writes nothing.

    Raises:
        ValueError: the file belongs to another program or has a newer schema.
    """
    version = _version(connection)
    application = int(connection.execute("PRAGMA application_id").fetchone()[0])
    has_tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] > 0
    if application != APPLICATION_ID and (has_tables or version > 0):
        raise ValueError("it is another program's SQLite file")
    if version > len(MIGRATIONS):
        raise ValueError(
            f"it has schema {version}, but this version of pluto-dist supports {len(MIGRATIONS)}: update pluto-dist"
        )


def migrate(connection: sqlite3.Connection) -> None:
    """Apply the migrations that the file has not had."""
    while (version := _version(connection)) < len(MIGRATIONS):
        connection.execute("BEGIN IMMEDIATE")
        try:
            if _version(connection) == version:
                _apply(connection, version)
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise


def _apply(connection: sqlite3.Connection, version: int) -> None:
    for statement in MIGRATIONS[version]:
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {version + 1}")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
