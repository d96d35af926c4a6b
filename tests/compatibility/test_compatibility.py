"""The package works with the data that commit 11b8096 wrote, and writes data that commit 11b8096 can read.

A user may update while requests wait in the spool, while a database holds runs, and while some nodes of a job still run
the previous version. ``written_by_11b8096/`` contains the data of that version on disk, in the tracker and in the store
that the ranks share; ``record.py`` documents how it was recorded. These tests use only the public interface, processes,
files and torch's store, so they pass with that version too.
"""

from __future__ import annotations

import html
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from by_hand import COMMAND, SECONDS, Launch, SharedStore, Tracker, environment, wait_until
from record import KEY, MOMENTS, failed_job, identities, moment, offline_jobs, resumed_job, without_address

from pluto_dist.server import LocalServer

pytestmark = pytest.mark.multiprocess

WRITTEN = Path(__file__).parent / "written_by_11b8096"
STORE: dict[str, Any] = json.loads((WRITTEN / "store.json").read_text(encoding="utf-8"))
ANSWERS: dict[str, Any] = json.loads((WRITTEN / "answers.json").read_text(encoding="utf-8"))
DETAILS: dict[int, dict[str, Any]] = {
    answer["id"]: answer for path, answer in ANSWERS.items() if path.startswith("/api/runs/details/")
}


@dataclass(frozen=True)
class Opened:
    """A tracker of this version on a copy of the old database; ``variables`` configure a job to use it."""

    tracker: Tracker
    database: Path
    variables: dict[str, str]


@pytest.fixture(autouse=True)
def no_name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's store resolves the host name of each socket, which takes 5 s if no name server answers."""
    monkeypatch.setenv("RES_OPTIONS", "attempts:0")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A copy of the old database and of its uploaded files."""
    shutil.copyfile(WRITTEN / "tracker.db", tmp_path / "tracker.db")
    shutil.copytree(WRITTEN / "tracker.db.blobs", tmp_path / "tracker.db.blobs")
    return tmp_path / "tracker.db"


@pytest.fixture
def opened(database: Path) -> Iterator[Opened]:
    with LocalServer(db=database) as server, closing(Tracker(server.url, server.api_key)) as tracker:
        yield Opened(tracker, database, server.environ())


@pytest.fixture
def store() -> SharedStore:
    return SharedStore()


def private(folder: Path) -> Path:
    """``folder`` with the modes that it was recorded with, which git does not store."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return folder


def command(arguments: Sequence[str], environ: Mapping[str, str], folder: Path) -> str:
    """The standard output of ``pluto-dist ARGUMENTS``; any exit code but 0 is a failure."""
    done = subprocess.run(
        [*COMMAND, *arguments], env=environ, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def contains(actual: Any, expected: Any) -> bool:
    """Whether ``actual`` equals ``expected`` except for additional keys in its objects."""
    if isinstance(expected, dict):
        return isinstance(actual, dict) and all(
            name in actual and contains(actual[name], value) for name, value in expected.items()
        )
    if isinstance(expected, list):
        return isinstance(actual, list) and len(actual) == len(expected) and all(map(contains, actual, expected))
    return type(actual) is type(expected) and actual == expected


def iso(ms: int) -> str:
    """Milliseconds since 1970 in the format of the tracker's answers."""
    moment = datetime.fromtimestamp(ms // 1000, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{moment}.{ms % 1000:03d}Z"


def attempts(details: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The records of a run's attempts, in order of their numbers."""
    return sorted(details["config"]["pluto_dist"]["attempts"].values(), key=lambda record: record["number"])


def history(details: Mapping[str, Any]) -> list[str]:
    """The statuses of a run, oldest first."""
    return [change["to"] for change in details["statusHistory"]]


# The spool.


def entries_of(spool: Path) -> dict[str, list[dict[str, Any]]]:
    """The requests in a spool by folder, in the order of their file names."""
    return {
        folder.name: [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
        for folder in sorted(spool.iterdir())
    }


def run_of(entry: Mapping[str, Any], runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The one run that an entry refers to."""
    kind, value = entry["reference"]["kind"], entry["reference"]["value"]
    field = {"external id": "externalId", "display id": "displayId", "number": "id"}[kind]
    (found,) = [run for run in runs if str(run[field]) == value]
    return found


def test_sync_sends_the_old_spool(opened: Opened, tmp_path: Path):
    """`pluto-dist sync` delivers every run completely and once, with config, metadata, attempt, times and end."""
    spool = private(Path(shutil.copytree(WRITTEN / "spool", tmp_path / "spool")))
    kept = entries_of(spool)
    assert len(kept) == 6
    assert {entry["kind"] for entries in kept.values() for entry in entries} == {"create", "config", "status"}
    before = {run["id"]: run for run in opened.tracker.runs("digits")}
    environ = environment(tmp_path, opened.variables)

    command(["sync", str(spool), "--to", opened.tracker.url], environ, tmp_path)
    assert not list(spool.rglob("*.json"))
    runs = opened.tracker.runs("digits")
    command(["sync", str(spool), "--to", opened.tracker.url], environ, tmp_path)
    assert opened.tracker.runs("digits") == runs

    named = [run_of(entries[0], runs) for entries in kept.values()]
    assert len({run["id"] for run in named}) == len(kept)
    assert len(runs) == len(before) + sum(run["id"] not in before for run in named)
    assert sorted(run["number"] for run in runs) == list(range(1, len(runs) + 1))
    for run, entries in zip(named, kept.values(), strict=True):
        for entry in entries:
            request = entry["request"]
            if entry["kind"] == "create":
                check_created(run, entry, before)
            elif entry["kind"] == "config":
                assert contains(run["config"], json.loads(request["config"]))
            else:
                assert (run["status"], run["statusUpdated"]) == (request["status"], iso(request["statusUpdated"]))
                assert contains(run["statusMetadata"], json.loads(request.get("statusMetadata", "null")))


def check_created(run: dict[str, Any], entry: dict[str, Any], before: Mapping[int, dict[str, Any]]) -> None:
    """The run has everything that its create-run request contains."""
    request = entry["request"]
    config = json.loads(request["config"])
    ours = config.pop("pluto_dist")
    known = before.get(run["id"])
    assert contains(run["config"], config)
    (record,) = ours["attempts"].values()
    number = 1 if known is None else len(attempts(known)) + 1
    assert contains(run["config"]["pluto_dist"]["attempts"][entry["key"]], {**record, "number": number})
    if known is not None:  # a run that existed before keeps its name, tags, metadata and time
        assert [run[name] for name in ("name", "tags", "systemMetadata", "createdAt")] == [
            known[name] for name in ("name", "tags", "systemMetadata", "createdAt")
        ]
        return
    assert (run["name"], run["createdAt"]) == (request["runName"], iso(request["createdAt"]))
    assert run["systemMetadata"] == json.loads(request["systemMetadata"])
    assert run["loggerSettings"] == json.loads(request.get("loggerSettings", "null"))
    parent = next((each for each in before.values() if each["displayId"] == entry["fork_of"]), None)
    assert (run["forkedFromRunId"], run["forkStep"]) == (parent and parent["id"], request.get("forkStep"))
    assert run["tags"] == (parent["tags"] if parent else request.get("tags", []))


def test_the_spool_is_written_as_before(tmp_path: Path):
    """Entries of this version have the folders, file names, fields and types that the old version reads.

    A failure also has its launch, its attempt and the status with which it came, which the old version ignores, and its
    time, which that reads.
    """
    written, old = (shapes_of(spool) for spool in (offline_jobs(tmp_path, [sys.executable]), WRITTEN / "spool"))
    more, reason = '"reason": "str", "status": "str"', '"reason": "str"'
    time, attempt = '"at_ms": "int", "host"', '"attempt": "str", "host"'

    def without(fields: str) -> str:
        fields = fields.replace('"launch": "str", "rank": "int", "reason"', '"rank": "int", "reason"')
        return fields.replace(more, reason).replace(attempt, '"host"').replace(time, '"host"')

    assert {(*names, without(fields)) for *names, fields in written} <= old
    kinds = {(reference, kind) for reference, kind, *_ in written}
    assert kinds >= {("external id", "config"), ("display id", "create"), ("number", "status")}
    names = {"DIG-1", "2", "unreachable"}  # ids that are the same in every recording
    assert folders_of(tmp_path / "pluto-dist" / "spool", names) == folders_of(WRITTEN / "spool", names)


def shapes_of(spool: Path) -> set[tuple[str, str, str, str]]:
    """Kind of reference, kind of request, file name and shape of each entry."""
    found = set()
    for file in spool.rglob("*.json"):
        entry = json.loads(file.read_text())
        entry["request"] = {name: opened_document(name, value) for name, value in entry["request"].items()}
        name = re.sub(r"^\d{16}-[^-].*-\d+-[0-9a-f]{16}\.json$", "<entry>", file.name)
        found.add((entry["reference"]["kind"], entry["kind"], name, json.dumps(shape(entry), sort_keys=True)))
    return found


def opened_document(name: str, value: Any) -> Any:
    """A config or status metadata as JSON; system metadata depends on the machine and stays text."""
    return json.loads(value) if name in ("config", "statusMetadata") else value


def folders_of(spool: Path, names: set[str]) -> dict[str, str]:
    """The folders of the runs ``names``; versions that share a spool must use the same, each with its lock."""
    values = {entries[0]["reference"]["value"]: folder for folder, entries in entries_of(spool).items()}
    return {name: values[name] for name in names}


# The tracker's database.


def test_the_old_database_gives_the_old_answers(opened: Opened):
    """Runs, lists, metrics, console lines, data and files are the same as in the answers of the old version.

    A listed run has the hosted tracker's fields only; the old version had more.
    """
    more = {"externalId", "updatedAt", "config", "url"}
    for path, answer in ANSWERS.items():
        expected = answer
        if path.startswith("/api/runs/list"):
            runs = [{name: value for name, value in run.items() if name not in more} for run in answer["runs"]]
            expected = {**answer, "runs": runs}
        actual = without_address(opened.tracker.get(path), opened.tracker.url)
        assert contains(actual, expected), path
    (file,) = opened.tracker.get("/api/runs/files", projectName="digits", runId=1)["files"]
    assert opened.tracker.text(file["url"]).content == b"weight"


def test_every_run_of_the_old_database_has_its_page(opened: Opened):
    """The pages of a run and of its project are at the old addresses, and show the run's name and display id."""
    for run in DETAILS.values():
        address = run["url"].replace("{url}", opened.tracker.url)
        for page in (address, address.rpartition("/")[0]):
            text = html.unescape(opened.tracker.text(page).text)
            assert run["name"] in text, page
            assert run["displayId"] in text, page


def test_the_old_database_takes_new_data(opened: Opened):
    """The old key is accepted, a new run gets the next number of its project, an old run takes config and metrics."""
    with closing(Tracker(opened.tracker.url, KEY)) as tracker:
        before = {run["number"] for run in tracker.runs("digits")}
        made = tracker.post("/api/runs/create", {"runName": "new", "projectName": "digits"})
        assert (made["number"], made["displayId"]) == (max(before) + 1, f"DIG-{max(before) + 1}")
        assert made["runId"] > max(DETAILS)
        first = DETAILS[1]
        again = {"runName": "x", "projectName": "digits", "externalId": first["externalId"], "config": '{"new": 1}'}
        assert tracker.post("/api/runs/create", again)["runId"] == 1
        point = {"time": 1_790_000_000_100, "step": 100, "data": {"accuracy": 1.0}}
        tracker.post("/ingest/metrics", data=json.dumps(point).encode(), headers={"X-Run-Id": "1"})
        assert contains(tracker.details(1)["config"], first["config"] | {"new": 1})
        query = {"projectName": "digits", "runId": 1, "logName": "accuracy"}
        points = tracker.get("/api/runs/metrics", **query)["metrics"]
        assert [point["step"] for point in points] == [*range(8), 100]


def test_the_server_command_opens_the_old_database(database: Path, tmp_path: Path):
    """`pluto-dist server` serves the old database, and exits with code 0 on SIGTERM."""
    exports = tmp_path / "exports"
    arguments = ["server", "--port", "0", "--db", str(database), "--env-file", str(exports)]
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen([*COMMAND, *arguments], env=environment(tmp_path), stdout=log, stderr=log)
    try:
        wait_until(exports.exists, (tmp_path / "server.log").read_text)
        words = shlex.split(exports.read_text())
        variables = dict(word.split("=", 1) for word in words if "=" in word)
        with closing(Tracker(variables["PLUTO_URL_API"], variables["PLUTO_API_KEY"])) as tracker:
            assert [run["id"] for run in tracker.runs("by hand")] == [
                run["id"] for run in DETAILS.values() if run["projectName"] == "by hand"
            ]
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
    finally:
        process.kill()
        process.wait(SECONDS)


def test_nodes_shows_an_old_run(opened: Opened, tmp_path: Path):
    """`pluto-dist nodes` shows the nodes, GPUs and differing drivers of an old run."""
    run = STORE["job completed"]["run"]
    environ = environment(tmp_path, opened.variables)
    told = json.loads(command(["nodes", str(run["id"]), "--json"], environ, tmp_path))
    metadata = DETAILS[run["id"]]["systemMetadata"]
    parts = ("cluster", "hosts", "node_classes", "nodes")
    assert contains(told, {part: metadata[part] for part in parts})
    assert "gpu.driver" in {difference["field"] for difference in told["drift"]}
    shown = command(["nodes", run["display_id"], "--project", run["project"], "--all"], environ, tmp_path)
    gpus = [uuid for node in metadata["nodes"] for uuid in node["gpus"]]
    assert len(gpus) == 4
    for text in (*metadata["hosts"], *gpus, "gpu.driver"):
        assert text in shown


# The store that the ranks share.


def test_a_restart_after_an_update_goes_on_with_the_run(opened: Opened, store: SharedStore, tmp_path: Path):
    """After a failed attempt of the old version, with its store intact, both ranks resume the run as attempt 2."""
    old = STORE["attempt failed"]
    store.fill(old["values"])
    with Launch(tmp_path / "job", opened.variables, store.port) as launch:
        ranks = [launch.start(rank, attempt=1) for rank in (0, 1)]
        reports = [rank.report() for rank in ranks]
        launch.go(0, 1)
        assert [rank.wait() for rank in ranks] == [0, 0], ranks[0].output() + ranks[1].output()
    for rank, report in enumerate(reports):
        assert contains(report, {**old["run"], "resumed": True, "rank": rank})
    run = opened.tracker.details(old["run"]["id"])
    first, second = attempts(run)
    assert contains(first, attempts(DETAILS[run["id"]])[0])
    assert (second["number"], second["launch"], second["world_size"]) == (2, first["launch"], 2)
    assert second["left"] == first["hosts"] == ["node-a", "node-b"]
    assert second["after_failure"] == {"reason": "ValueError: boom", "rank": 1, "host": "node-b"}
    assert history(run) == ["RUNNING", "COMPLETED"]


def test_rank_1_is_updated_and_rank_0_is_not(opened: Opened, store: SharedStore, tmp_path: Path):
    """Rank 0 of the old version has created the run: rank 1 attaches to that run and creates no other.

    When rank 1 fails, its failure and its node's state have the keys, file names and fields that the old version reads.
    """
    old = STORE["rank 0 waits"]
    store.fill(old["values"])
    with Launch(tmp_path / "job", opened.variables, store.port) as launch:
        rank = launch.start(1, fails=True)
        assert contains(rank.report(), {**old["run"], "rank": 1})
        wait_until(lambda: opened.tracker.details(old["run"]["id"])["attachCount"] == 2, rank.output)
        launch.go(1)
        assert rank.wait() == 1, rank.output()
        kept = launch.agent_folder(1)
    assert opened.tracker.details(old["run"]["id"])["status"] == "RUNNING"
    assert len(opened.tracker.runs("by hand")) == sum(run["projectName"] == "by hand" for run in DETAILS.values())
    told = store.values()
    counted = {"0/nodes": "2", "0/inventories": "2", "0/run/1/count/joined": "2"}
    assert contains(told, {**old["values"], **counted})
    assert shape(json.loads(told["0/failure"])) == shape(json.loads(STORE["attempt failed"]["values"]["0/failure"]))
    assert as_before(notes_in(kept)) == notes_in(WRITTEN / "launch_folder" / "torchrun")


@pytest.mark.exhaustive
def test_rank_1_is_updated_and_rank_0_hosts_the_store(opened: Opened, store: SharedStore, tmp_path: Path):
    """Rank 0 of the old version hosts the store: rank 1 accepts it as the store of its launch, and attaches."""
    old = STORE["rank 0 hosts"]
    store.fill(old["values"])
    with Launch(tmp_path / "job", opened.variables, store.port, has_agent=False) as launch:
        rank = launch.start(1)
        assert contains(rank.report(), {**old["run"], "rank": 1})
        wait_until(lambda: opened.tracker.details(old["run"]["id"])["attachCount"] == 2, rank.output)
        launch.go(1)
        assert rank.wait() == 0, rank.output()
    told = store.values()
    assert told["launch"] == old["values"]["launch"]
    assert re.fullmatch("[0-9a-f]{16}", told["seat/1"])


@pytest.mark.exhaustive
def test_rank_0_is_updated_and_rank_1_is_not(opened: Opened, store: SharedStore, tmp_path: Path):
    """Rank 1 of the old version waits: rank 0 uses its token and id, reads its hardware, and publishes the run."""
    old = STORE["rank 1 waits"]["values"]
    store.fill(old)
    with Launch(tmp_path / "job", opened.variables, store.port) as launch:
        rank = launch.start(0)
        report = rank.report()
        outcome = json.loads(store.values()["0/run/1/outcome"])
        store.fill({"0/run/1/count/left": "1"})  # the old rank ends
        launch.go(0)
        assert rank.wait() == 0, rank.output()
    assert report["run_id"] == json.loads(old["0/run/1/id"])["value"]
    assert (report["mode"], report["resumed"]) == ("online", False)
    told = json.loads(STORE["job completed"]["values"]["0/run/1/outcome"])
    assert shape(outcome) == shape(told)
    assert outcome["answer"]["runId"] == report["id"]
    assert store.values()["0/welcome/1"] == "1"
    run = opened.tracker.details(report["id"])
    assert run["status"] == "COMPLETED"
    (record,) = attempts(run)
    assert (record["number"], record["launch"], record["hosts"][1]) == (1, old["token"], "node-b")
    theirs, recorded = (node_b(each["systemMetadata"]) for each in (run, DETAILS[STORE["job completed"]["run"]["id"]]))
    assert contains(theirs, recorded)


def node_b(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The second node in a run's metadata, without the fields that depend on the start."""
    node = metadata["nodes"][1]
    kind = metadata["node_classes"][node["class"]]
    return {"node": {**node, "class": 0}, "class": {k: v for k, v in kind.items() if k not in ("env", "n")}}


def test_the_store_holds_what_it_held_before(tmp_path: Path):
    """After a completed job of this version, the store has the old keys, and every value the old fields and types.

    The nodes' signs of life came later; an old owner does not read them. Who leads is named by a nonce since; old ranks
    ask only whether anybody does.
    """
    with LocalServer() as server, closing(Tracker(server.url, server.api_key)) as tracker:
        now = moment("job completed", tmp_path, tracker, server.environ())
        run = tracker.details(now["run"]["id"])
    old = STORE["job completed"]
    added = {f"0/run/1/sign/{node}": "off" for node in (0, 1)}
    assert contains(now["values"], added)
    kept = {key: value for key, value in now["values"].items() if key not in added} | {"0/run/1/claim/leader": "0"}
    assert keys_and_shapes(kept) == keys_and_shapes(old["values"])
    ours, theirs = (shape(each["config"]["pluto_dist"]) for each in (run, DETAILS[old["run"]["id"]]))
    theirs["attempts"]["<attempt>"].pop("gpus")  # depends on the machine
    assert contains(ours, theirs)
    assert set(STORE) == set(MOMENTS)


def keys_and_shapes(values: Mapping[str, str]) -> dict[str, Any]:
    """The keys and the shapes of their values, independent of the launch and of the machine."""
    return {normal(key, values["token"]): shape_of_text(value, values["token"]) for key, value in values.items()}


def normal(text: str, token: str) -> str:
    """``text`` with placeholders for the launch's token, nonces and attempt keys."""
    text = text.replace(token, "<token>")
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z [0-9a-f]{4,8}", "<attempt>", text)
    return re.sub(r"\b[0-9a-f]{16}\b", "<nonce>", text)


def shape_of_text(text: str, token: str) -> Any:
    """The shape of a JSON object; other text with placeholders for everything that depends on the launch."""
    if text.startswith("{"):
        value = json.loads(text)
        value.pop("is_first", None)  # the old version reads a failure without it
        if "at_ms" in value:  # the old version had seconds, as "at"; a reader needs neither
            value = {**{name: each for name, each in value.items() if name != "at_ms"}, "at": 0.0}
        return shape({**value, "inventory": {}} if "inventory" in value else value)
    return re.sub(r"\b\d+\b", "<n>", normal(text, token))


def shape(value: Any) -> Any:
    """The field names and types in a JSON value."""
    if isinstance(value, dict):
        return {normal(name, "\0"): shape(each) for name, each in value.items()}
    if isinstance(value, list):
        return [shape(each) for each in value[:1]]
    return type(value).__name__


# The state of a node, and the identity of a run.


def test_a_node_goes_on_when_the_store_is_lost(opened: Opened, store: SharedStore, tmp_path: Path):
    """With a new store and the old node folder, the launch keeps its token and its run, as the next attempt."""
    kept = WRITTEN / "launch_folder" / "torchrun"
    token = (kept / ".pluto_dist_token").read_text()
    (old,) = [run for run in DETAILS.values() if run["name"] == "restarted"]
    assert old["externalId"] == f"torchrun-restarted-{token}"
    variables = {**opened.variables, "PLUTO_PROJECT": "digits"}
    with Launch(tmp_path / "job", variables, store.port, "restarted") as launch:
        folder = launch.agent_folder(0)
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        private(folder)
        rank = launch.start(0, attempt=2, nodes=1)
        report = rank.report()
        launch.go(0)
        assert rank.wait() == 0, rank.output()
    assert contains(report, {"run_id": old["externalId"], "id": old["id"], "resumed": True})
    assert store.values()["token"] == token
    records = attempts(opened.tracker.details(old["id"]))
    assert [record["number"] for record in records] == [1, 2, 3]
    assert {record["launch"] for record in records} == {token}
    assert records[2]["after_failure"] == {"reason": "ValueError: boom", "rank": 0, "host": "node-a"}


def test_workers_write_the_old_notes_for_the_launcher(tmp_path: Path):
    """Under `pluto-dist run`, the run note and the failure note have the old file names, fields and types."""
    with LocalServer() as server:
        kept = failed_job(tmp_path, server.environ())
    assert as_before(notes_in(kept)) == notes_in(WRITTEN / "launch_folder" / "pluto-dist_run")


def notes_in(folder: Path) -> dict[str, Any]:
    """The names and the shapes of the files that a node keeps, which must be private."""
    token = (folder / ".pluto_dist_token").read_text()
    files = list(folder.rglob(".pluto_dist_*"))
    assert WRITTEN in folder.parents or all(file.stat().st_mode & 0o077 == 0 for file in files)
    names = [normal(unquote(str(file.relative_to(folder))), token) for file in files]
    return {name: shape_of_text(file.read_text(), token) for name, file in zip(names, files, strict=True)}


def as_before(notes: Mapping[str, Any]) -> dict[str, Any]:
    """Without what the old version does not look for: notes of a run that is not settled yet, and later fields."""
    later = {"owns", "is_settled", "url"}
    return {
        name: {field: kind for field, kind in shape.items() if field not in later} if isinstance(shape, dict) else shape
        for name, shape in notes.items()
        if not re.search(r" run 1 (keeper|key) |noted (owner|end|run) ", name)
    }


def test_resume_finds_the_run_of_an_old_launch(opened: Opened, tmp_path: Path):
    """A launch with resume and the old rendezvous id derives the old run id, and is attempt 2 of that run."""
    (old,) = [run for run in DETAILS.values() if str(run["externalId"]).startswith("torchrun-resumed-")]
    report = resumed_job(tmp_path / "job", opened.variables)
    assert contains(report, {"run_id": old["externalId"], "id": old["id"], "resumed": True})
    first, second = attempts(opened.tracker.details(old["id"]))
    assert (second["number"], second["left"]) == (2, first["hosts"])
    assert second["launch"] != first["launch"]


def test_every_environment_leads_to_the_same_run(tmp_path: Path):
    """Run id, launcher name, rank and store address are unchanged, with and without resume.

    With another id, resume would start a new run; with another launcher name or address, old and new nodes of a launch
    would not find each other.
    """
    assert identities(tmp_path) == json.loads((WRITTEN / "identities.json").read_text(encoding="utf-8"))
