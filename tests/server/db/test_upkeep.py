"""Size, backup while a server writes, and restore."""

from __future__ import annotations

import json
import threading
from contextlib import closing
from pathlib import Path

from cli.asked import ask, printed
from pluto_dist.query import Tracker
from pluto_dist.server import LocalServer
from pluto_dist.server.db import upkeep
from pluto_dist.server.db.database import Database
from recorded_runs import CONTENT, Recorder


def read_all(server: LocalServer, folder: Path) -> list[object]:
    """What a tracker has of its runs, files included."""
    found: list[object] = []
    with Tracker(environ=server.environ()) as tracker:
        for project in tracker.projects():
            for summary in tracker.runs(project.name):
                run = tracker.details(summary.id)
                found += [{**run.raw, "url": ""}, tracker.metrics(run, "train/loss"), list(tracker.console(run))]
                for file in tracker.files(run):
                    tracker.download(file, folder / "file")
                    found.append((folder / "file").read_bytes())
    return found


def test_backup_while_running_and_restore(tmp_path):
    """A backup is one state of a database to which runs are written meanwhile; restored, it is as it was."""
    with LocalServer(tmp_path / "t.db") as server:
        recorder = Recorder(server)
        recorder.whole(number=1)
        before = read_all(server, tmp_path)
        stop = threading.Event()
        other = Recorder(server)

        def write() -> None:
            while not stop.is_set():
                other.metric(other.create("busy")["runId"], "loss", 1.0, 2.0)

        thread = threading.Thread(target=write)
        thread.start()
        try:
            output = printed(None, "server", "backup", str(tmp_path / "copy.db"), "--db", str(tmp_path / "t.db"))
        finally:
            stop.set()
            thread.join(30)
    assert "with 1 uploaded file in" in output
    printed(None, "server", "restore", str(tmp_path / "copy.db"), "--db", str(tmp_path / "new" / "t.db"))
    with closing(Database(tmp_path / "new" / "t.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    with LocalServer(tmp_path / "new" / "t.db") as server:
        after = read_all(server, tmp_path)
    digits = [each for each in after if not isinstance(each, dict) or each["projectName"] == "digits"]
    assert all(each in digits for each in before)
    assert CONTENT in after


def test_what_is_refused(tmp_path):
    """Nothing is overwritten, and nothing is created where something was to be read."""
    (tmp_path / "taken.db").write_text("mine")
    with LocalServer(tmp_path / "t.db"):
        pass
    db = ("--db", str(tmp_path / "t.db"))
    for arguments, text in {
        ("backup", str(tmp_path / "taken.db"), *db): "exists already",
        ("restore", str(tmp_path / "t.db"), *db): "exists already",
        ("restore", str(tmp_path / "missing.db"), "--db", str(tmp_path / "x.db")): "there is no such file",
        ("restore", str(tmp_path / "taken.db"), "--db", str(tmp_path / "x.db")): "cannot be the tracker's database",
        ("status", "--db", str(tmp_path / "missing.db")): "there is no such file",
    }.items():
        done = ask(None, "server", *arguments)
        assert (done.exit_code, text in done.output) == (1, True), done.output
    assert (tmp_path / "taken.db").read_text() == "mine"
    assert not (tmp_path / "missing.db").exists()
    assert not (tmp_path / "x.db").exists()


def test_status(tmp_path):
    """Projects with what they have, and how many runs are old."""
    with LocalServer(tmp_path / "t.db") as server:
        recorder = Recorder(server)
        recorder.whole(number=1)
        recorder.create("busy", updatedAt=1_700_000_000_000)
    shown = printed(None, "server", "--db", str(tmp_path / "t.db"), "status")
    assert "runs: 1 for 30 days, 1 for 90 days, 1 for 365 days" in shown
    printed_json = json.loads(printed(None, "server", "status", "--db", str(tmp_path / "t.db"), "--json"))
    assert printed_json == upkeep.size(tmp_path / "t.db").to_json()
    digits, busy = printed_json["projects"]
    assert (digits["project"], digits["runs"], digits["points"], digits["console_lines"]) == ("digits", 1, 9, 3)
    assert (digits["files"], digits["file_bytes"]) == (1, len(CONTENT))
    assert (busy["running"], busy["newest"][:4]) == (1, "2023")
    assert printed_json["blob_bytes"] == len(CONTENT)
