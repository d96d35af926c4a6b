"""Groups of checks in parallel: whatever blocks or fails, and whatever contains a secret."""

from __future__ import annotations

import threading

from doctor.states import CHECKS
from doctor.test_disk import TABLE as DISK
from doctor.test_explain import TABLE as EXPLAIN
from doctor.test_gpu_health import TABLE as GPU_HEALTH
from doctor.test_gpus import TABLE as GPUS
from doctor.test_memory import TABLE as MEMORY
from doctor.test_network import TABLE as NETWORK
from doctor.test_tracker import TABLE as TRACKER
from pluto_dist.doctor import Finding, Machine, examine
from pluto_dist.doctor.finding import CheckGroup, ok, problem

KEY = "mlps_hidden_key"
TABLE = [*EXPLAIN, *TRACKER, *NETWORK, *GPUS, *GPU_HEALTH, *MEMORY, *DISK]


def test_every_check_is_tested_in_good_and_bad_states():
    """The tables of the test modules have an ok, and a warning or problem, for each check."""
    assert {name for name, _, verdict, _ in TABLE if verdict == "ok"} == set(CHECKS)
    assert {name for name, _, verdict, _ in TABLE if verdict in ("warning", "problem")} == set(CHECKS)


def test_failures_affect_no_other_check():
    """A probe that blocks, a probe that raises and a check that raises are findings; all other checks are made."""
    never = threading.Event()

    def broken(_: object) -> Finding:
        raise ZeroDivisionError("a mistake")

    groups = [
        CheckGroup(lambda _: never.wait(60), (("hangs", lambda _: ok("")), ("also", lambda _: ok(""))), "Wait."),
        CheckGroup(lambda _: [].pop(), (("raises", lambda _: ok("")),)),
        CheckGroup(lambda _: 7, (("fails", broken), ("works", lambda facts: ok(f"saw {facts}")))),
    ]
    found = dict(examine(Machine({}, timeout=0.3), groups).findings)
    never.set()
    assert found["hangs"] == problem("cannot be checked: no answer within 0.3 s", "Wait.")
    assert found["also"].saw == "see hangs"
    assert "pop from empty list" in found["raises"].saw
    assert "ZeroDivisionError" in found["fails"].saw
    assert found["works"].saw == "saw 7"


def test_no_secret_in_any_finding():
    """The API key and passwords in URLs are removed from the text of a check."""
    leak = CheckGroup(lambda machine: machine, (("leak", lambda m: ok(f"{m.environ} http://u:pass@host https://a@b")),))
    (_, found), *_ = examine(Machine({"MLOP_API_TOKEN": f" {KEY}\n"}), (leak,)).findings
    assert KEY not in found.saw and "pass" not in found.saw and "http://***@host" in found.saw
