"""A deleted run is gone with all that it logged; what others have stays."""

from __future__ import annotations

from contextlib import closing

from pluto_dist.server import LocalServer
from pluto_dist.server.db.blobs import BlobStore
from pluto_dist.server.db.database import Database
from recorded_runs import Recorder


def test_a_run_is_gone():
    """No row of it is left, nor bytes that no other run has, and its number is not used again."""
    with LocalServer() as server:
        recorder = Recorder(server)
        first, second = recorder.whole(number=1)["runId"], recorder.whole(number=2)["runId"]
        recorder.file(first, "own.bin", b"its own")
        recorder.create("digits", forkRunId=first, forkStep=0)
        answer = recorder.session.delete(f"{server.url}/api/runs/{first}", timeout=20)
        assert answer.json() == {"success": True}
        assert recorder.session.delete(f"{server.url}/api/runs/{first}", timeout=20).status_code == 404
        with closing(Database(server.db)) as database:
            tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            for name in tables:
                columns = {row[1] for row in database.execute(f"PRAGMA table_info({name})")}
                if "run_id" in columns:
                    runs = {row[0] for row in database.execute(f"SELECT run_id FROM {name}")}
                    assert first not in runs, name
            series = {row[0] for row in database.execute("SELECT series_id FROM points")}
            assert series == {row[0] for row in database.execute("SELECT id FROM series")}
            digests = {row[0] for row in database.execute("SELECT digest FROM files")}
            assert len(digests) == 1
            store = BlobStore(server.db)
            assert all(store.path(digest).exists() for digest in digests)
        stored = [path for path in server.db.with_name(server.db.name + ".blobs").rglob("*") if path.is_file()]
        assert len(stored) == 1
        assert recorder.create("digits", "job-1")["number"] == 4
        assert second


def test_only_ones_own():
    """The key of another organization deletes nothing."""
    with LocalServer() as server:
        run = Recorder(server).whole()["runId"]
        with closing(Database(server.db)) as database:
            database.add_key("mlps_other-organizations-key", organization="other-org")
        other = Recorder(server)
        other.session.headers["Authorization"] = "Bearer mlps_other-organizations-key"
        assert other.session.delete(f"{server.url}/api/runs/{run}", timeout=20).status_code == 404
        assert Recorder(server).session.get(f"{server.url}/api/runs/details/{run}", timeout=20).status_code == 200
