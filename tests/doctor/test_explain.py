"""The explanation of an environment: the decisions that ``init()`` would make in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from doctor.states import assert_finding, ids
from environments.typical import EIGHT, NODES, SLURM_JOB, TORCHRUN
from pluto_dist import environments, identity
from pluto_dist.doctor.explain import Explanation, explain
from pluto_dist.errors import LauncherError

README = (Path(environments.__file__).parent / "README.md").read_text()


def as_row(name: str, explanation: Explanation) -> str:
    """One environment as a line of the table in the README of environments."""
    columns = explanation.meet, explanation.restart, explanation.requeue, explanation.second_launch
    return f"| {name} | `{explanation.external_id}` | {' | '.join(columns)} |"


SENTENCES = {
    "one process": ({}, {}, "This process will be in a new run; to continue it at the next start, set one PLUTO"),
    "torchrun": (TORCHRUN, {}, "All 8 ranks together will be in one new run; to continue it"),
    "scheduler": (
        TORCHRUN | {"SLURM_JOB_ID": "7", "SLURM_CLUSTER_NAME": "c", "SLURM_JOB_NODELIST": "n"}, {},
        "one new run; to continue it at the next start, set PLUTO_DIST_RESUME=1",
    ),
    "resumed": (
        TORCHRUN | {"SLURM_JOB_ID": "7", "SLURM_CLUSTER_NAME": "c"}, {"resume": True},
        "will continue the run that an earlier start of this job began, or begin it; for a new run",
    ),
    "named": (TORCHRUN | {"PLUTO_RUN_ID": "mine"}, {}, "will be in the run named 'mine': a new one the first time"),
    "numbered": (TORCHRUN | {"PLUTO_RUN_ID": "DIG-7"}, {}, "will continue the run DIG-7, which must exist"),
}  # fmt: skip


@pytest.mark.parametrize("case", SENTENCES)
def test_the_first_sentence(case):
    """It says in everyday words which run, new or continued, and what would change that."""
    environ, arguments, expected = SENTENCES[case]
    assert expected in explain(environ, **arguments).sentence


@pytest.mark.parametrize("name", EIGHT)
def test_the_readme_shows_the_explanations(name):
    """The table of typical environments in the README of environments is the output of explain for them."""
    row = as_row(name, explain(EIGHT[name]))
    assert row in README, row


@pytest.mark.parametrize("environ", EIGHT.values(), ids=EIGHT)
def test_it_decides_as_init_does(environ):
    """The id and its source are those of the decision that init() makes from the same environment."""
    explanation = explain(environ)
    chosen = environ.get("PLUTO_RUN_ID"), environ.get("PLUTO_DIST_RESUME") == "1"
    decision = identity.decide(environments.detect(environ), run_id=chosen[0], resume=chosen[1])
    assert (explanation.source, explanation.row) == (decision.source, decision.row)
    assert explanation.external_id.startswith(getattr(decision, "prefix", "") or decision.reference.value)


@pytest.mark.parametrize(
    ("environ", "arguments", "restart", "requeue", "second"),
    [
        (TORCHRUN, {}, "torchrun's store and", "PLUTO_RUN_ID", "a run of its own"),
        (TORCHRUN | {"TORCHELASTIC_USE_AGENT_STORE": "False"}, {}, "every node keeps", "PLUTO_RUN_ID", "own"),
        (TORCHRUN, {"run_id": "x"}, "torchrun's store and", "you named it", "you named it"),
        (TORCHRUN | NODES | {"TORCHELASTIC_RUN_ID": "123"}, {}, "", "PLUTO_DIST_RESUME=1", "own"),
        (TORCHRUN | SLURM_JOB, {}, "", "PLUTO_DIST_RESUME=1", "own"),
        (TORCHRUN | SLURM_JOB, {"resume": True}, "", "the same run", "an error while it lives"),
        ({}, {}, "nobody restarts", "PLUTO_RUN_ID", "own"),
    ],
)
def test_what_comes_after(environ, arguments, restart, requeue, second):
    """The run of a restart, of a requeue and of a second launch."""
    explanation = explain(environ, **arguments)
    assert restart in explanation.restart
    assert requeue in explanation.requeue
    assert second in explanation.second_launch


def test_the_requests_of_a_large_job():
    """1,024 ranks: as many create-run requests, over 23 s at most 50 per second, and one sender of heartbeats."""
    requests = explain(TORCHRUN | NODES | {"WORLD_SIZE": "1024"}).requests
    assert (requests.creates, requests.last_create_after, requests.heartbeats_a_minute, requests.others) == (
        1024,
        22.7,
        6.0,
        1,
    )


TABLE = [
    ("run", explain({"TORCHELASTIC_RUN_ID": "123", "RANK": "1", "WORLD_SIZE": "8"}), "ok", "torchrun-123-<token>"),
    ("run", LauncherError("RANK is set\nUnset it."), "problem", "init() would raise LauncherError: RANK is set"),
]


@pytest.mark.parametrize(("name", "facts", "verdict", "text"), TABLE, ids=ids(TABLE))
def test_findings(name, facts, verdict, text):
    """The check of the doctor in its good and bad state."""
    assert_finding(name, facts, verdict, text)
