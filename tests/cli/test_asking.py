"""The commands that ask a tracker, on both trackers: their output is that of the files in ``output/``.

PLUTO_DIST_WRITE_SNAPSHOTS=1 writes them there. Addresses, times and folders are replaced by words.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.asked import ask, printed
from hosted import columns
from pluto_dist.cli import asking
from pluto_dist.query import Tracker
from pluto_dist.server import LocalServer
from recorded_runs import Recorder

FOLDER = Path(__file__).with_name("output")
pytestmark = pytest.mark.both_trackers

# Name of the file: the command, its exit code on the embedded tracker.
READING = {
    "runs": "runs digits",
    "runs-json": "runs digits --limit 2 --json",
    "runs-all-projects": "runs",
    "runs-none": "runs digits --status terminated",
    "show": "show DIG-1",
    "show-json": "show DIG-1 --json",
    "logs": "logs DIG-1",
    "logs-json": "logs DIG-1 --rank 1 --json",
    "logs-tail": "logs 1 --tail 1",
    "logs-none": "logs DIG-3",
    "open": "open DIG-2 --print",
    "not-there": "show DIG-99",
    "cancel-ended": "cancel DIG-2 --yes",
    "cancel-unasked": "cancel DIG-3",
    "rm-running": "rm DIG-3 --yes",
    "rm-unasked": "rm DIG-1",
}


@pytest.fixture
def recorder(tracker_class: columns.TrackerClass) -> Iterator[Recorder]:
    with tracker_class() as server:
        yield Recorder(server)


@pytest.fixture
def three_runs(recorder: Recorder) -> Recorder:
    """A run that failed, one that succeeded and one that is running, in one project."""
    recorder.whole()
    recorder.whole(number=2, status="COMPLETED")
    recorder.create("digits", "job-3")
    return recorder


def plain(text: str, folder: Path | None = None) -> str:
    """``text`` without what is another in each test run."""
    text = text if folder is None else text.replace(str(folder), "FOLDER")
    text = re.sub(r"http://127\.0\.0\.1:\d+", "http://TRACKER", text)
    text = re.sub(r"2026[-\dT:.]+Z|20[3-9]\d-[-\dT:.]+Z|202[7-9]-[-\dT:.]+Z", "NOW", text)
    return re.sub(r"\b(\d+ (s|min|h|days) ago) *", "AGO  ", text)


def compare(name: str, text: str) -> None:
    """``text`` is that of the file."""
    file = FOLDER / f"{name}.txt"
    if os.environ.get("PLUTO_DIST_WRITE_SNAPSHOTS"):
        FOLDER.mkdir(exist_ok=True)
        file.write_text(text)
    assert file.read_text() == text


@pytest.mark.both_trackers(by_default=True)
def test_the_output_of_reading(three_runs):
    """Lists, details, console lines, addresses and refusals are the same words on both trackers."""
    for name, command in READING.items():
        done = ask(three_runs.server, *command.split())
        compare(name, plain(f"$ pluto-dist {command}\n{done.output}exit code {done.exit_code}\n"))
        assert "mlps_" not in done.output
    for name in READING:
        if name.endswith("-json") and name != "logs-json":
            json.loads((FOLDER / f"{name}.txt").read_text().partition("\n")[2].rpartition("exit code")[0])


@pytest.mark.both_trackers(by_default=True)
def test_cancel_and_delete(three_runs, request):
    """A running run is cancelled, and then deleted; the hosted tracker says where to delete."""
    compare("cancel-json", plain(printed(three_runs.server, "cancel", "DIG-3", "--yes", "--json")))
    done = ask(three_runs.server, "rm", "DIG-3", "--yes")
    is_hosted = not isinstance(three_runs.server, LocalServer)
    compare(f"rm-{'hosted' if is_hosted else 'embedded'}", plain(done.output))
    assert done.exit_code == int(is_hosted)
    assert ("DIG-3" in printed(three_runs.server, "runs")) is is_hosted
    if not is_hosted:
        compare("rm-json", printed(three_runs.server, "rm", "DIG-1", "-y", "--json"))


@pytest.mark.both_trackers(by_default=True)
def test_export_and_import(three_runs, tmp_path):
    """What a tracker exports, an embedded tracker takes; repeated, neither does it again."""
    to = ("--to", str(tmp_path / "e"))
    compare("export", plain(printed(three_runs.server, "export", "digits", *to), tmp_path))
    compare("export-json", plain(printed(three_runs.server, "export", "DIG-1", *to, "--json"), tmp_path))
    with LocalServer() as other:
        compare("import", plain(printed(other, "import", to[1])))
        compare("import-json", plain(printed(other, "import", to[1], "--json")))
    with LocalServer() as other:
        Recorder(other).create("digits", "job-2")
        done = ask(other, "import", to[1])
    assert done.exit_code == 1
    assert "is another run" in done.output


def test_a_folder_that_is_no_export(recorder, tmp_path):
    """Neither command writes to or reads from a folder of something else."""
    (tmp_path / "notes.txt").write_text("mine")
    recorder.create()
    for command in (("export", "digits", "--to", str(tmp_path)), ("import", str(tmp_path))):
        done = ask(recorder.server, *command)
        assert done.exit_code == 1
        assert "is no folder that `pluto-dist export` wrote" in done.output
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_export_of_another_tracker(recorder, tmp_path):
    """Two trackers do not mix in one folder."""
    recorder.whole()
    printed(recorder.server, "export", "digits", "--to", str(tmp_path / "e"))
    with LocalServer() as other:
        Recorder(other).whole()
        done = ask(other, "export", "digits", "--to", str(tmp_path / "e"))
    assert done.exit_code == 1
    assert "name another folder" in done.output


def test_following_a_run(recorder, monkeypatch):
    """New lines appear until the run has ended, each once, also one that is older than those shown."""
    made = recorder.create()
    run = made["runId"]
    recorder.print(run, "[rank0] one", "[rank1] two")
    asked = 0
    details = Tracker.details

    def details_and_more(self: Tracker, number: int) -> object:
        nonlocal asked
        asked += 1
        if asked == 2:
            recorder.print(run, "[rank0] three", first=9)
        elif asked == 3:
            recorder.print(run, "[rank1] late", first=5)
            recorder.status(run, "COMPLETED")
        return details(self, number)

    monkeypatch.setattr(Tracker, "details", details_and_more)
    monkeypatch.setattr("pluto_dist.cli.logs.FOLLOW_SECONDS", 0.01)
    shown = printed(recorder.server, "logs", str(run), "--follow").splitlines()
    assert shown == ["[rank0] one", "[rank1] two", "[rank0] three", "[rank1] late"]


def test_a_display_id_of_two_projects(recorder):
    """Where nobody can be asked, the error names the projects and the option."""
    recorder.create("digits")
    recorder.create("digs")
    done = ask(recorder.server, "show", "DIG-1")
    assert done.exit_code == 1
    assert "several projects: dig" in done.output
    assert "--project" in done.output
    assert "digs" in printed(recorder.server, "show", "DIG-1", "--project", "digs")


def test_without_a_key():
    """The message says what to set; no traceback."""
    done = ask(None, "runs")
    assert done.exit_code == 1
    assert "set PLUTO_API_KEY" in done.output


def test_a_tracker_that_does_not_answer(monkeypatch):
    """The message names the address."""
    monkeypatch.setattr(Tracker, "deadline", property(lambda self: 0.0))
    monkeypatch.setenv("PLUTO_API_KEY", "mlps_some-key-12345")
    monkeypatch.setenv("PLUTO_URL_API", "http://127.0.0.1:9")
    done = ask(None, "show", "1")
    assert done.exit_code == 1
    assert "http://127.0.0.1:9 cannot be reached" in done.output


def test_names_are_data(recorder):
    """A name that moves the cursor does not."""
    recorder.create("digits", runName="evil\x1b[2J\r\nrun")
    assert "\x1b" not in printed(recorder.server, "runs", "digits") + printed(recorder.server, "show", "DIG-1")


def test_a_run_that_was_restarted(recorder):
    """Attempts, what each came after, and nodes are shown; what this package keeps in the config is not."""
    after = {"reason": "killed by SIGKILL", "host": "node-b", "rank": 9}
    records = {
        "x": {"number": 1, "launch": "a", "start": "2026-01-01T00:00:00.000Z", "world_size": 16, "hosts": ["a", "b"]},
        "y": {"number": 2, "launch": "a", "start": "2026-01-01T01:00:00.000Z", "world_size": 16, "hosts": ["a", "c"],
              "joined": ["c"], "left": ["b"], "after_failure": after},
    }  # fmt: skip
    recorder.create("digits", config=json.dumps({"pluto_dist": {"attempts": records}}))
    shown = printed(recorder.server, "show", "DIG-1")
    assert "  2  2026-01-01T01:00:00.000Z  16     +c -b  killed by SIGKILL" in shown.splitlines()
    assert "config" not in shown


def test_a_narrow_terminal():
    """A line fits: the column of names is cut, the others are whole."""
    rows = [("DIG-1", "RUNNING", "a name that is much longer than the terminal is wide")]
    lines = asking.table(("run", "status", "name"), rows, limit=40)
    assert max(map(len, lines)) == 40
    assert lines[1].startswith("DIG-1  RUNNING  a name")


def test_wide_letters():
    """A name of letters that take two columns is cut and aligned as a terminal shows it."""
    rows = [("名前" * 10, "a"), ("e\u0301", "b")]
    first, second = asking.table(("name", "tag"), rows, limit=20, cut=0)[1:]
    assert asking.columns(first) == asking.columns(second) == 18  # the column of tags has two spaces more
    assert first.startswith("名前") and "…" in first


def test_a_project_that_is_not_there(recorder, tmp_path):
    """`runs` and `export` name the project that is nearly called so; a script still reads an empty list."""
    recorder.create("digits")
    done = ask(recorder.server, "runs", "digts", "--json")
    assert (done.exit_code, json.loads(done.stdout)) == (0, {"runs": []})
    assert re.fullmatch(r"no project 'digts' in http://\S+ Did you mean 'digits'\?\n", done.stderr)
    done = ask(recorder.server, "export", "digts", "--to", str(tmp_path / "e"))
    assert done.exit_code == 1
    assert "Did you mean 'digits'?" in done.stderr


def test_a_request_that_is_refused(recorder):
    """The message is about the command; advice on init() is for init()."""
    recorder.create("digits")
    done = ask(recorder.server, "runs", "digits", "--sort", "bogus")
    assert done.exit_code == 1
    assert "unknown field: bogus" in done.stderr or "sort" in done.stderr
    assert "init()" not in done.output


def test_colours(monkeypatch):
    """At a terminal a status has a colour; with NO_COLOR and in a pipe it has none."""
    assert asking.status("FAILED") == "FAILED"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert asking.status("FAILED") == "\x1b[31mFAILED\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert asking.status("FAILED") == "FAILED"
