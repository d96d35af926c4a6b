"""One check for each row: requests to the tracker, and what the hosted one does with them.

A check fails if its row is switched off; ``test_rows.py`` runs both ways.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import requests

from hosted.rows.liveness import Times
from hosted.tracker import HostedTracker
from server.contract.target import RESUME, Target, new_project

FAST = Times(never=1.0, beaten=1.0, every=0.1, coalesced=0.2)


@dataclass(frozen=True)
class Asked:
    """A running tracker and its two services.

    Attributes:
        patience: how many seconds, or rounds, to wait for what must come.
    """

    server: HostedTracker
    patience: int

    @property
    def web(self) -> Target:
        return Target(self.server.url, self.server.api_key)

    @property
    def py(self) -> Target:
        return Target(self.server.py_url, self.server.api_key)

    def run(self, external_id: str | None = None, **fields: Any) -> int:
        """A new run, in a new project."""
        return int(self.web.create_run(new_project(), external_id, **fields)["runId"])

    def heartbeat(self, run: int) -> str:
        return str(self.py.send("/api/runs/trigger", {"runId": run}).json()["status"])

    def config_update(self, run: int, config: Any) -> requests.Response:
        return self.web.send("/api/runs/config/update", {"runId": run, "config": config})

    def history(self, run: int) -> requests.Response:
        return self.web.send("/api/runs/status/history", method="GET", params={"runId": run})

    def events(self, run: int) -> list[tuple[str | None, str]]:
        """The changes of status in the database, whatever the API shows."""
        return self.server.status_changes(run)

    def wait_until(self, is_so: Callable[[], bool]) -> bool:
        """Whether it becomes so in time."""
        deadline = time.monotonic() + self.patience
        while not is_so():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def in_a_round(self, happens: Callable[[], bool]) -> bool:
        """Whether it happens in one of several rounds of a race."""
        return any(happens() for _ in range(self.patience))


Check = Callable[[Asked], None]
CHECKS: dict[str, Check] = {}
TIMES: dict[str, Times] = {}


def of(row: str, times: Times | None = None) -> Callable[[Check], Check]:
    """Registers the check of a row; ``times`` are those of the monitor."""

    def register(check: Check) -> Check:
        CHECKS[row] = check
        if times is not None:
            TIMES[row] = times
        return check

    return register


def ms(iso: str) -> int:
    return round(datetime.fromisoformat(iso.replace("Z", "+00:00")).timestamp() * 1000)


def is_500(response: requests.Response) -> bool:
    return (response.status_code, response.text) == (500, '{"error":"Internal Server Error"}')


@of("trigger at PLUTO_URL_PY alone")
def trigger_at_py(asked: Asked) -> None:
    body = {"runId": asked.run()}
    answers = [service.send("/api/runs/trigger", body) for service in (asked.web, asked.py)]
    assert [a.text for a in answers] == ["404 Not Found", '{"status":"RUNNING","triggers":null}']
    assert asked.py.send("/api/runs/trigger", {"runId": 999}).text == '{"detail":"Run not found"}'
    assert asked.py.send("/api/runs/trigger", body, key="").text == '{"detail":"Unauthorized"}'
    assert asked.py.send("/api/runs/create", body).text == '{"detail":"Not Found"}'
    assert asked.server.environ()["PLUTO_URL_PY"] != asked.server.environ()["PLUTO_URL_API"]


@of("no endpoints of the embedded tracker")
def no_embedded_endpoints(asked: Asked) -> None:
    assert asked.web.send(f"/api/runs/{asked.run()}/attempts", method="GET").text == "404 Not Found"
    assert asked.web.send("/api/runs/data", method="GET").json().keys() == {"runId"}


@of("500 without a JSON Content-Type")
def bodies_without_type(asked: Asked) -> None:
    assert is_500(asked.web.send(RESUME, {"runId": asked.run()}, headers={"Content-Type": "text/plain"}))


@of("shapes of /resume")
def resume_shapes(asked: Asked) -> None:
    run = asked.web.create_run(new_project())
    null = asked.web.send(RESUME, {"runId": None, "displayId": run["displayId"], "projectName": run["projectName"]})
    assert (null.status_code, null.json()["error"]["issues"][0]["path"]) == (400, ["runId"])
    empty = asked.web.send(RESUME, {"externalId": "", "projectName": run["projectName"]})
    assert (empty.status_code, empty.json()) == (404, {"error": "Run not found"})


@of("500 for numbers out of range")
def numbers_out_of_range(asked: Asked) -> None:
    for ids in (
        {"displayId": "JOB-20261128093000"},
        {"displayId": "JOB-20261128093000123456789"},
        {"runId": 10**22},
        {"runId": 1e30},
    ):
        assert is_500(asked.web.send(RESUME, ids)), ids


@of("500 in the race for a new project")
def project_race(asked: Asked) -> None:
    def race() -> bool:
        project = new_project()
        answers = asked.web.concurrently(8, lambda n: asked.web.create(project, f"job {n}"))
        assert all(a.status_code == 200 or is_500(a) for a in answers)
        return any(map(is_500, answers))

    assert asked.in_a_round(race)


@of("burned run numbers")
def burned_numbers(asked: Asked) -> None:
    def race() -> bool:
        project = new_project()
        first = asked.web.create_run(project)["number"]
        answers = asked.web.concurrently(16, lambda n: asked.web.create(project, "job"))
        assert {(a.status_code, a.json()["number"]) for a in answers} == {(200, first + 1)}
        return bool(asked.web.create_run(project)["number"] > first + 2)

    assert asked.in_a_round(race)


@of("organization at limit")
def at_limit(asked: Asked) -> None:
    project = new_project()
    asked.web.create_run(project, "job")
    asked.server.at_limit = True
    refused = asked.web.create(project, "another")
    assert (refused.status_code, refused.json()) == (400, {"error": "Organization is at limit"})
    assert asked.web.create_run(project, "job")["resumed"]


@of("500 for a run that cannot be stored")
def unstorable_create(asked: Asked) -> None:
    project = new_project()
    asked.web.create_run(project, "job")
    for config in ('{"a": "\\u0000"}', '{"a": "\\ud800"}', "[" * 124 + "]" * 124):
        refused = asked.web.create(project, config=config)
        assert (refused.status_code, refused.json()) == (500, {"error": "Failed to create run"})
        assert asked.web.create_run(project, "job", config=config)["resumed"]
    assert asked.web.create_run(project)["number"] == 5


@of("500 for what JSONB cannot hold")
def unstorable_status(asked: Asked) -> None:
    run = asked.run()
    for name in ("statusMetadata", "loggerSettings"):
        for text in ('{"a": "\\u0000"}', '{"\\ud800": 1}', '{"a":' * 124 + "1" + "}" * 124):
            assert is_500(asked.web.status(run, "FAILED", **{name: text})), (name, text)
    assert is_500(asked.web.status(run, "FAILED", statusUpdated=253402300800000)), "the year 10000"
    assert asked.web.details(run)["status"] == "RUNNING"
    assert asked.web.status(run, "FAILED", statusMetadata='{"a":' * 123 + "1" + "}" * 123).status_code == 200
    assert asked.web.status(run, "COMPLETED", statusMetadata='"\\u0000"').status_code == 200  # ignored, so not written


@of("display ids are ASCII")
def display_ids_are_ascii(asked: Asked) -> None:
    run = asked.web.create_run("日本語")
    answer = asked.web.send(RESUME, {"displayId": run["displayId"]})
    assert (run["displayId"], answer.status_code) == ("日本語-1", 400)
    assert answer.json()["error"].startswith("Invalid displayId format")


@of("500 for texts that cannot be stored")
def unstorable_texts(asked: Asked) -> None:
    run = asked.run()
    for text in ("\x00", "\ud800"):
        assert is_500(asked.web.send(RESUME, {"externalId": text, "projectName": "p"}))
        assert is_500(asked.web.send("/api/runs/notes/update", {"runId": run, "notes": text}))


@of("500 for a config that cannot be stored")
def unstorable_config(asked: Asked) -> None:
    run = asked.run(config='{"a": 1}')
    assert is_500(asked.config_update(run, '{"a": "\\u0000"}'))
    assert asked.web.details(run)["config"] == {"a": 1}


@of("config keys lost in concurrent merges")
def lost_config_keys(asked: Asked) -> None:
    def race() -> bool:
        project = new_project()
        run = asked.web.create_run(project, "job")["runId"]
        answers = asked.web.concurrently(
            16, lambda n: asked.web.create(project, "job", config=json.dumps({f"k{n}": n}))
        )
        assert {a.status_code for a in answers} == {200}
        return len(asked.web.details(run)["config"]) < 16

    assert asked.in_a_round(race)
    run = asked.run(config='{"a": 1}')
    for n in range(5):
        asked.config_update(run, json.dumps({"b": n}))
    assert asked.web.details(run)["config"] == {"a": 1, "b": 4}


@of("updatedAt after statusUpdated")
def updated_after_status(asked: Asked) -> None:
    run = asked.run()
    for _ in range(8):
        asked.web.status(run, "COMPLETED")
        asked.web.send(RESUME, {"runId": run})
        details = asked.web.details(run)
        assert details["status"] == "RUNNING"
        assert ms(details["updatedAt"]) > ms(details["statusUpdated"])


@of("RUNNING again refreshes statusUpdated")
def refreshes(asked: Asked) -> None:
    run = asked.run()
    asked.web.status(run, "RUNNING")
    first = asked.web.details(run)["statusUpdated"]
    assert first is not None
    time.sleep(0.05)
    asked.web.status(run, "RUNNING")
    assert ms(asked.web.details(run)["statusUpdated"]) > ms(first)
    asked.web.status(run, "COMPLETED")
    ended = asked.web.details(run)
    time.sleep(0.05)
    asked.web.status(run, "COMPLETED", statusMetadata='{"again": true}')
    again = asked.web.details(run)
    assert (again["statusUpdated"], again["statusMetadata"]) == (ended["statusUpdated"], {"again": True})
    assert ms(again["updatedAt"]) > ms(ended["updatedAt"])
    assert asked.events(run) == [(None, "RUNNING"), ("RUNNING", "COMPLETED")]


@of("resume wakes")
def resume_wakes(asked: Asked) -> None:
    run = asked.run()
    asked.web.status(run, "COMPLETED")
    asked.web.send(RESUME, {"runId": run})
    assert asked.web.details(run)["status"] == "RUNNING"
    assert asked.events(run)[-1] == ("COMPLETED", "RUNNING")


@of("create wakes")
def create_wakes(asked: Asked) -> None:
    project = new_project()
    run = asked.web.create_run(project, "job")["runId"]
    asked.web.status(run, "FAILED")
    assert asked.web.create_run(project, "job")["resumed"]
    assert asked.web.details(run)["status"] == "RUNNING"
    assert asked.events(run)[-1] == ("FAILED", "RUNNING")


@of("precedence of ends")
def precedence(asked: Asked) -> None:
    run = asked.run()
    asked.web.status(run, "FAILED")
    assert asked.web.status(run, "COMPLETED").json() == {"success": True}
    assert asked.web.details(run)["status"] == "FAILED"


@of("null clears statusMetadata")
def null_clears(asked: Asked) -> None:
    for sent, stored in (({}, {"a": 1}), ({"statusMetadata": ""}, {"a": 1}), ({"statusMetadata": None}, None)):
        run = asked.run()
        asked.web.status(run, "FAILED", statusMetadata='{"a": 1}')
        asked.web.status(run, "RUNNING", **sent)
        assert asked.web.details(run)["statusMetadata"] == stored, sent
    asked.web.status(run, "FAILED", statusMetadata='{"a": 1}')
    asked.web.status(run, "COMPLETED", statusMetadata=None)
    assert asked.web.details(run)["statusMetadata"] == {"a": 1}, "an end that is ignored clears nothing"


@of("loggerSettings are merged")
def logger_settings_merged(asked: Asked) -> None:
    run = asked.run(loggerSettings='{"a": {"b": 1}}')
    asked.web.status(run, "RUNNING", loggerSettings='{"a": {"c": 2}}')
    assert asked.web.details(run)["loggerSettings"] == {"a": {"b": 1, "c": 2}}


@of("statusUpdated dates the event")
def dates_events(asked: Asked) -> None:
    run = asked.run(createdAt=1_700_000_000_000)
    asked.web.status(run, "COMPLETED", statusUpdated=1_700_000_060_000)
    event = asked.history(run).json()["events"][-1]
    assert (event["toStatus"], event["createdAt"]) == ("COMPLETED", "2023-11-14T22:14:20.000Z")
    assert asked.web.details(run)["statusUpdated"] == "2023-11-14T22:14:20.000Z"


@of("createdAt dates the first event")
def first_event(asked: Asked) -> None:
    run = asked.run(createdAt=1_700_000_060_000)
    assert asked.history(run).json()["events"][0]["createdAt"] == "2023-11-14T22:14:20.000Z"


@of("updatedAt is overwritten")
def updated_at_overwritten(asked: Asked) -> None:
    run = asked.run(createdAt=1_700_000_000_000, updatedAt=1_700_000_060_000)
    assert asked.web.details(run)["updatedAt"] == "2023-11-14T22:14:20.000Z"
    asked.web.status(run, "COMPLETED", statusUpdated=1_700_000_060_000)
    assert ms(asked.web.details(run)["updatedAt"]) > 1_700_000_060_000


@of("systemMetadata of the creator alone")
def creators_metadata(asked: Asked) -> None:
    project = new_project()
    run = asked.web.create_run(project, "job", systemMetadata='{"host": "a"}')["runId"]
    asked.web.create_run(project, "job", systemMetadata='{"host": "b"}')
    assert asked.web.details(run)["systemMetadata"] == {"host": "a"}


@of("a cancel stays")
def cancel_stays(asked: Asked) -> None:
    run = asked.run()
    asked.server.cancel(run)
    assert asked.web.details(run)["status"] == "RUNNING", "a cancel takes effect with a heartbeat"
    for _ in range(2):
        assert asked.heartbeat(run) == "CANCELLED"
        assert asked.web.details(run)["status"] == "CANCELLED"
        asked.web.send(RESUME, {"runId": run})
        assert asked.web.details(run)["status"] == "RUNNING"
    assert {after for _, after in asked.events(run)} == {"RUNNING"}, "no event of a cancel"


@of("coalesced heartbeats", times=Times(coalesced=60))
def coalesced(asked: Asked) -> None:
    run = asked.run()
    asked.heartbeat(run)
    first = asked.server.heartbeat_at(run)
    time.sleep(0.05)
    asked.heartbeat(run)
    assert asked.server.heartbeat_at(run) == first is not None


@of("monitor of silent runs", times=FAST)
def monitor(asked: Asked) -> None:
    silent, beaten = asked.run(), asked.run()
    asked.heartbeat(beaten)
    for run, reason in ((silent, "stale"), (beaten, "heartbeat-timeout")):
        assert asked.wait_until(lambda run=run: asked.web.details(run)["status"] == "FAILED")
        assert asked.web.details(run)["statusMetadata"]["reason"] == reason
        assert asked.web.status(run, "COMPLETED").json() == {"success": True}
        assert asked.web.details(run)["status"] == "FAILED"


@of("numbers have 16 digits")
def sixteen_digits(asked: Asked) -> None:
    run = asked.run(config='{"at": 1795902944.2841234, "big": 9223372036854775807, "n": 7.0}')
    numbers = asked.web.details(run)["config"]
    assert numbers == {"at": 1795902944.284123, "big": 9223372036854776000, "n": 7}
    assert isinstance(numbers["n"], int)


@of("details without heartbeats")
def details(asked: Asked) -> None:
    run = asked.run()
    asked.heartbeat(run)
    assert not {"heartbeatAt", "attaches", "statusHistory", "url"} & asked.web.details(run).keys()


@of("short items of /list")
def list_items(asked: Asked) -> None:
    project = new_project()
    asked.web.create_run(project, "job", config='{"a": 1}')
    (item,) = asked.web.send("/api/runs/list", method="GET", params={"projectName": project}).json()["runs"]
    assert item.keys() == {"id", "name", "number", "displayId", "projectName", "status", "tags", "createdAt"}
    assert item["projectName"] == project


@of("status/history")
def history(asked: Asked) -> None:
    run = asked.run()
    asked.web.status(run, "FAILED", statusMetadata='{"why": "x"}')
    asked.web.send(RESUME, {"runId": run})
    answer = asked.history(run)
    assert answer.status_code == 200, answer.text
    events = [(e["fromStatus"], e["toStatus"], e["source"], e["metadata"]) for e in answer.json()["events"]]
    assert events == [
        (None, "RUNNING", "api", None),
        ("RUNNING", "FAILED", "api", {"why": "x"}),
        ("FAILED", "RUNNING", "resume", None),
    ]
    assert asked.history(10**6).status_code == 404


@of("notes/update")
def notes(asked: Asked) -> None:
    run = asked.run()
    answers = [
        asked.web.send("/api/runs/notes/update", {"runId": run, "notes": text}).status_code
        for text in ("text", None, "x" * 1000, "x" * 1001, 5)
    ]
    assert answers == [200, 200, 200, 400, 400]
    assert asked.web.send("/api/runs/notes/update", {"runId": 10**6, "notes": ""}).status_code == 404
