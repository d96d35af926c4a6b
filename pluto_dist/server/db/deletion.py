"""Deletes a run with all that it logged, and the uploaded bytes that no other run has."""

from __future__ import annotations

from pluto_dist.server.db import run_updates
from pluto_dist.server.db.blobs import BlobStore
from pluto_dist.server.db.database import Database

# Tables with a column run_id, the referring ones first.
_OF_RUN = (
    "status_changes", "attaches", "log_names", "series", "log_lines", "data_points", "files", "alerts", "model_graphs",
)  # fmt: skip


def delete_run(database: Database, blobs: BlobStore, organization: str, run_id: float) -> None:
    """Delete a run. Its number is not used again; its forks stay, as plain runs.

    Raises:
        RequestRejectedError: 404 if the organization has no such run, 400 if ``run_id`` is not an integer.
    """
    with database.transaction():
        run = run_updates.get_run(database, organization, run_id).id
        digests = database.execute("SELECT DISTINCT digest FROM files WHERE run_id = ?", (run,)).fetchall()
        database.execute("DELETE FROM points WHERE series_id IN (SELECT id FROM series WHERE run_id = ?)", (run,))
        for name in _OF_RUN:
            database.execute(f"DELETE FROM {name} WHERE run_id = ?", (run,))
        database.execute("UPDATE runs SET forked_from = NULL, fork_step = NULL WHERE forked_from = ?", (run,))
        database.execute("DELETE FROM runs WHERE id = ?", (run,))
        for (digest,) in digests:
            is_used = database.execute("SELECT 1 FROM files WHERE digest = ? LIMIT 1", (digest,)).fetchone()
            if digest is not None and is_used is None:
                blobs.path(digest).unlink(missing_ok=True)
