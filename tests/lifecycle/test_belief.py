"""The store is not believed: whatever stands in a key that is read, on a real store of torch and a real tracker.

A rank joins, changes its config and finishes. It gets its run, or a documented error, in time; nothing is printed that
a terminal would obey, and the run of somebody else stays as it was, to the last byte.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from pluto_dist import api
from pluto_dist.errors import PlutoDistError
from pluto_dist.lifecycle import participant
from pluto_dist.rendezvous.store import PREFIX, TorchStore
from pluto_dist.server import LocalServer
from pluto_dist.settings.arguments import Arguments

TOKEN, ESCAPE, EVIL = "a" * 20, "\x1b]0;gone\x07\x9b2J\r\u202e", "http://evil.example/x"
TIMEOUT = 4.0

# Every key that is read, as the code has it: numbers, nodes and tokens replaced. A key that is not here fails the test
# of all keys; one that is here is poisoned.
KEYS = {
    "attempt": "attempt", "N/node/N": "0/node/0", "N/nodes": "0/nodes", "N/nodes/N": "0/nodes/1", "token": "token",
    "failure": "failure", "began/T/N": f"began/{TOKEN}/1", "N/forgot": "0/forgot",
    "N/inventories": "0/inventories", "N/inventories/N": "0/inventories/1", "N/welcome/N": "0/welcome/1",
    "N/run/N/id": "0/run/1/id", "N/run/N/outcome": "0/run/1/outcome", "N/run/N/key": "0/run/1/key",
    "N/run/N/late": "0/run/1/late", "N/run/N/sign/N": "0/run/1/sign/0", "N/run/N/slower/N": "0/run/1/slower/0",
    "N/views/N": "0/views/0", "N/views/N/N": "0/views/0/1", "N/failure": "0/failure",
    **{f"N/run/N/claim/{role}": f"0/run/1/claim/{role}" for role in (
        "attach given up", "closed", "failure", "granted", "keeper", "leader", "reported", "sender after N",
        "taker N", "waits")},
    **{f"N/run/N/count/{event}": f"0/run/1/count/{event}" for event in (
        "attach again", "attach begun", "attach over", "beats", "heard", "joined", "left")},
}  # fmt: skip
ANY = {
    "bytes": b"\xff\xfe\x00\x01",
    "no JSON": b"<html>",
    "array": b"[]",
    "text": b'"x"',
    "null": b"null",
    "wrong types": b'{"kind": 5, "value": [], "node": {}, "run_id": "7", "answer": 3}',
    "huge": b'{"kind": "' + b"x" * (2 << 20) + b'"}',
    "deep": b"[" * 100_000,
    "deep object": b'{"a":' * 900 + b"1" + b"}" * 900,
    "escapes": ESCAPE.encode(),
    "negative": b"-1",
    "NaN": b"NaN",
    "large": b"999999999999999999",
    "larger": b"1" + b"0" * 5000,
    "empty": b"",
}


def answer(**changes: Any) -> dict[str, Any]:
    fields = {
        "runId": 1,
        "number": 1,
        "displayId": "OTH-1",
        "projectName": "other",
        "organizationSlug": "x",
        "url": EVIL,
    }
    return {**fields, "resumed": False, "forkedFromRunId": None, "forkStep": None, **changes}


def outcome(**changes: Any) -> bytes:
    fields = {"kind": "online", "answer": answer(), "resumed": False, "error": "", "message": "", "at": 0.0}
    return json.dumps({**fields, **changes}).encode()


WELL_MADE = {
    "0/run/1/outcome": {
        "another's run": outcome(),
        "escapes": outcome(answer=answer(displayId=ESCAPE, url=EVIL + ESCAPE, organizationSlug=ESCAPE)),
        "no run": outcome(answer=answer(runId=10**15)),
        "an error": outcome(kind="error", answer=None, error="RunInUseError", message=f"{EVIL}{ESCAPE}"),
        "an unknown error": outcome(kind="error", answer=None, error="SystemExit", message=ESCAPE),
        "offline": outcome(kind="offline", answer=None, message=ESCAPE),
        "NaN": outcome(at=float("nan")),
    },
    "0/run/1/late": {"another's run": outcome()},
    f"began/{TOKEN}/1": {"another's run": b"lived 1", "escapes": b"lived \x1b[2J", "large": b"lived " + b"9" * 30},
    "0/run/1/id": {
        "another's": json.dumps(
            {"kind": "external id", "value": "other", "source": ESCAPE, "variables": {ESCAPE: ESCAPE}, "rank": 0,
             "host": ESCAPE}
        ).encode(),
        "a number": json.dumps(
            {"kind": "number", "value": "1", "source": "", "variables": {}, "rank": 0, "host": ""}
        ).encode(),
    },
    "0/nodes/1": {"escapes": json.dumps({"node": ESCAPE, "host": ESCAPE}).encode()},
    "0/inventories/1": {
        "escapes": json.dumps({"node": "0", "rank": 0, "inventory": {"host": ESCAPE}}).encode(),
        "large": json.dumps({"node": "1", "rank": 2**53 - 1, "inventory": {}}).encode(),
    },
    "failure": {"escapes": json.dumps({"reason": ESCAPE, "host": ESCAPE, "rank": None}).encode()},
    "0/run/1/key": {"escapes": ESCAPE.encode(), "long": b"k" * 1000},
}  # fmt: skip
CASES = [(key, name, value) for key in KEYS.values() for name, value in {**ANY, **WELL_MADE.get(key, {})}.items()]
BY_DEFAULT = {
    (key, name)
    for key in ("0/run/1/outcome", f"began/{TOKEN}/1", "0/run/1/id")
    for name in WELL_MADE[key]
    if name in ("another's run", "escapes", "another's", "no run")
} | {("0/run/1/count/joined", "escapes"), ("0/nodes/1", "huge"), ("0/run/1/outcome", "deep")}


PARAMETERS = [
    pytest.param(key, value, id=f"{key}: {name}", marks=() if (key, name) in BY_DEFAULT else (pytest.mark.exhaustive,))
    for key, name, value in CASES
]


@dataclass
class Place:
    """A store of torch, a tracker with a run of somebody else, and what was read."""

    server: LocalServer
    store: Any
    other: dict[str, Any] = field(default_factory=dict)

    def environ(self, rank: int, world_size: int) -> dict[str, str]:
        return {
            **self.server.environ({}),
            "TORCHELASTIC_RUN_ID": "x", "TORCHELASTIC_USE_AGENT_STORE": "True",
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self.store.port),
            "RANK": str(rank), "GROUP_RANK": str(rank), "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1",
            "WORLD_SIZE": str(world_size), "GROUP_WORLD_SIZE": str(world_size),
            "PLUTO_DIST_TIMEOUT": str(TIMEOUT), "PLUTO_DIST_METADATA": "0",
        }  # fmt: skip

    def plant(self, key: str, value: bytes) -> None:
        from torch.distributed import PrefixStore

        PrefixStore(PREFIX, self.store).set(key, value)

    def details(self) -> dict[str, Any]:
        return asked(self.server, "GET", "/api/runs/details/1")


def wait_for(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.05)


def asked(server: LocalServer, method: str, path: str, body: Any = None) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {server.api_key}"}
    answer = requests.request(method, server.url + path, json=body, headers=headers, timeout=30)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer() as running:
        other = {"runName": "other", "projectName": "other", "externalId": "other", "config": "{}"}
        asked(running, "POST", "/api/runs/create", other)
        yield running


@pytest.fixture
def place(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    from torch.distributed import TCPStore

    monkeypatch.setattr(participant, "LINGER_SECONDS", 0.2)
    made = Place(server, TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False))
    made.plant("token", TOKEN.encode())
    made.other = made.details()
    yield made


def run_a_rank(place: Place, rank: int = 0, world_size: int = 1) -> PlutoDistError | None:
    """A rank's life; the error of ``init()``, if that raised one."""
    arguments = Arguments(project="mine", config={"mine": "config"})
    try:
        run = api.begin(arguments, api.ProcessState(), place.environ(rank, world_size))
    except PlutoDistError as error:
        return error
    run.update_config({"mine": "changed"})
    print(run, run.url, run.display_id, run.run_id_source, run.organization)
    run.finish()
    return None


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("key", "value"), PARAMETERS)
def test_a_poisoned_key(place: Place, key: str, value: bytes, capfd: pytest.CaptureFixture[str], caplog: Any):
    """Of one rank, which creates the run unless the store says that somebody has."""
    caplog.set_level(logging.DEBUG, "pluto_dist")
    if re.fullmatch(r"0/(nodes|inventories|views/0)/1", key):
        place.plant(key.rpartition("/")[0], b"1")
    place.plant(key, value)
    began = time.monotonic()
    error = run_a_rank(place)
    assert time.monotonic() - began < 6 * TIMEOUT
    assert place.details() == place.other, "somebody else's run"
    shown = [str(error), *capfd.readouterr(), *(logging.Formatter().format(record) for record in caplog.records)]
    assert not [text for text in shown if re.search(r"[^\S\n\t ]|[^ -~\n\tÀ-\U000e0000]", text)]
    assert error is not None or not [text for text in shown if "evil.example" in text]


RENDEZVOUS = Path(participant.__file__).parents[1] / "rendezvous"


def name_another_run(place: Place) -> None:
    """As if rank 0 had created somebody else's run."""
    there = answer(url=f"{place.server.url}/o/x")
    place.plant("0/run/1/outcome", outcome(answer=there))
    place.plant("0/welcome/1", b"1")


def test_an_attach_that_contradicts_the_store(place: Place, caplog: pytest.LogCaptureFixture):
    """The rank says so, has no run any more, and nothing of it goes to the run that the store named."""
    name_another_run(place)
    run = api.begin(Arguments(project="mine"), api.ProcessState(), place.environ(1, 2))
    wait_for(lambda: "this rank leaves the run" in caplog.text, "the error")
    assert (run.id, run.url, run.mode) == (None, None, "offline")
    run.finish(status="FAILED")
    assert place.details() == place.other


def test_a_failure_before_the_attach(place: Place, tmp_path: Path):
    """It goes by the run's name, never to the number that the store has."""
    name_another_run(place)
    slow = {"PLUTO_DIST_ATTACH_RATE": "0.01", "PLUTO_DIR": str(tmp_path)}
    run = api.begin(Arguments(project="mine"), api.ProcessState(), place.environ(1, 2) | slow)
    assert run.id == 1  # not contradicted yet
    run.finish(status="FAILED")
    assert place.details() == place.other


NAMED_BY_THE_CALLER = {"N/N", "N/N/N", "N/run/N/claim/N", "N/run/N/count/N"}


def keys_in_the_code() -> set[str]:
    """The keys in the source: what stands in calls of the store, roles and events with what is put into them as N."""
    found = {"N/run/N/id"}
    for name in ("membership", "run_channel"):
        source = (RENDEZVOUS / f"{name}.py").read_text()
        texts = re.findall(r'f"(\{(?:self\._scope|self\.attempt|attempt|self\.attempt - 1)\}/[^"]*)"', source)
        found |= {text.replace("{self._scope}", "N/run/N") for text in texts}
    for file in sorted(RENDEZVOUS.parent.rglob("*.py")):
        for kind, key in re.findall(r'\.(claim|claimed|count)\(f?"([a-z][a-z {}]+)"', file.read_text()):
            found.add(f"N/run/N/{kind.removesuffix('ed')}/{key}")
    return {re.sub(r"\{[^}]*\}", "N", key) for key in found} - NAMED_BY_THE_CALLER


def test_every_key_is_poisoned(place: Place, monkeypatch: pytest.MonkeyPatch):
    """The keys that stand in the code, and those that ranks were seen to read, are those above."""
    seen: set[str] = set()
    real = TorchStore._call

    def call(self: TorchStore, method: str, *arguments: Any) -> Any:
        keys = arguments[0] if isinstance(arguments[0], list) else [arguments[0]]
        if method != "set":
            seen.update(re.sub(r"(?<![a-z])\d+", "N", key.replace(TOKEN, "T")) for key in keys)
        return real(self, method, *arguments)

    monkeypatch.setattr(TorchStore, "_call", call)
    assert run_a_rank(place) is None
    assert len(seen) > 15
    assert (seen | keys_in_the_code()) - KEYS.keys() == set()
