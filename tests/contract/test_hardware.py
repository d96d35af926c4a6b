"""The hardware of each attempt: what is stored restores it, and what is no such record is ignored."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from pluto_dist.contract.hardware import (
    FIELD,
    AttemptHardware,
    Silence,
    difference,
    last_sign,
    of_attempt,
    restored,
    silences,
    without_hardware,
)

FIRST: dict[str, Any] = {
    "gpu": {"nvidia": {"count": 8}},
    "cluster": {"nodes": 3, "nodes_reported": 2, "drift": 1},
    "hosts": ["a", "b", "(missing)"],
    "node_classes": [{"n": 2, "gpu": {"driver": "550"}}],
    "nodes": [
        {"node": 0, "host": "a", "class": 0, "gpus": ["1"]},
        {"node": 1, "host": "b", "class": 0, "gpus": ["2"]},
        {"node": 2, "missing": True},
    ],
    "drift": [{"field": "node"}],
}


def changed(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy({name: part for name, part in FIRST.items() if name != "gpu"}), **changes}


NODES = FIRST["nodes"]
OTHER_CLASS = [{"n": 2, "gpu": {"driver": "535"}}]
LATER = {
    "the same": changed(),
    "another host": changed(nodes=[NODES[0], {"node": 1, "host": "c", "gpus": ["9"]}, NODES[2]], hosts=["a", "c"]),
    "another driver on all": changed(node_classes=OTHER_CLASS),
    "fewer nodes": changed(cluster={"nodes": 1}, nodes=NODES[:1]),
    "more nodes": changed(cluster={"nodes": 4}, nodes=[*NODES, {"node": 3, "host": "d"}]),
    "nothing differs any more": {name: part for name, part in changed().items() if name != "drift"},
}


@pytest.mark.parametrize("document", LATER.values(), ids=LATER)
@pytest.mark.parametrize("first", [FIRST, None, {}, {"gpu": {}, "nodes": "x"}], ids=["ours", "none", "empty", "other"])
def test_what_differs_restores_the_whole(first, document):
    """Whatever the creator's document is, cluster, kinds, nodes and drift of the later one come back."""
    hardware = difference(first, document)
    back = restored(first, hardware)
    assert {name: back[name] for name in ("cluster", "nodes", "node_classes")} == {
        name: document[name] for name in ("cluster", "nodes", "node_classes")
    }
    assert back["drift"] == document.get("drift", [])


def test_a_node_that_did_not_change_is_not_stored_again():
    assert difference(FIRST, LATER["the same"]) == {"cluster": FIRST["cluster"], "nodes": []}
    assert [node["node"] for node in difference(FIRST, LATER["another host"])["nodes"]] == [1]


def test_a_document_that_was_too_large_for_its_nodes():
    """It shows no nodes, instead of the creator's."""
    assert restored(FIRST, {"cluster": {"nodes": 3, "truncated": 4}})["nodes"] == []


def config(**records: Any) -> dict[str, Any]:
    return {"lr": 0.1, "pluto_dist": {"attempts": records}}


SECOND = {"number": 2, "start": "2026-01-01T00:00:00Z", FIELD: [difference(FIRST, LATER["another host"])]}


def number_and_hosts(found: AttemptHardware | None) -> tuple[int | None, list[Any], bool] | None:
    if found is None:
        return None
    return found.number, [node.get("host") for node in found.document["nodes"]], found.is_own


def test_the_newest_attempt_unless_one_is_asked_for():
    records = config(x={"number": 1}, y=SECOND)
    assert number_and_hosts(of_attempt(FIRST, records)) == (2, ["a", "c", None], True)
    assert number_and_hosts(of_attempt(FIRST, records, 1)) == (1, ["a", "b", None], True)
    assert of_attempt(FIRST, records, 3) is None


def test_a_run_of_an_earlier_version():
    """An attempt without hardware of its own shows the creator's, and says so; so does a run without attempts."""
    assert number_and_hosts(of_attempt(FIRST, config(x={"number": 1}, y={"number": 2}))) == (2, ["a", "b", None], False)
    assert number_and_hosts(of_attempt(FIRST, None)) == (None, ["a", "b", None], True)


@pytest.mark.parametrize("stored", [None, [], [1], {"nodes": []}, [{"nodes": [1, {"node": "0"}], "cluster": []}], "x"])
def test_hardware_of_another_shape(stored):
    found = of_attempt(FIRST, config(y={"number": 2, FIELD: stored}))
    assert found is not None
    assert found.number == 2


def test_silent_nodes():
    """By number if the launcher numbers nodes, else by host; entries of another shape are ignored."""
    stored = [{"node": "1", "host": "a", "since": "t"}, {"node": "c", "host": "c", "since": "t", "back": "u"}]
    found = silences({"silent": [*stored, 5, {"node": 1, "host": "a", "since": "t"}, {"node": "1"}]})
    assert [each.to_json() for each in found] == stored
    assert [each.node for each in found if each.is_of({"node": 1, "host": "z"})] == ["1"]
    assert [each.node for each in found if each.is_of({"node": 0, "host": "c"})] == ["c"]
    assert [str(each) for each in found] == ["silent since t", "t, and again since u"]
    assert str(Silence("1", "a", "t")) == "silent since t"


def test_the_sign_of_a_run():
    """Its last heartbeat while it runs, if the tracker shows it; its end afterwards."""
    times = {"updatedAt": "2026-01-01T00:00:00.000Z", "statusUpdated": "2026-01-02T00:00:00.000Z"}
    details = {"status": "RUNNING", **times}
    assert last_sign(details)[0] == "2026-01-01T00:00:00Z"
    assert last_sign({**details, "status": "FAILED"}) == ("2026-01-02T00:00:00Z", "its end")
    assert last_sign({"status": 5, "updatedAt": 7}) == ("", "")


def test_a_config_without_its_hardware():
    kept = without_hardware(config(x={"number": 1}, y=SECOND, z=None))
    assert kept == config(x={"number": 1}, y={"number": 2, "start": SECOND["start"]})
    assert without_hardware([1]) == [1]
