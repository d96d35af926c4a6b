"""The laws of the identity over generated launches of every launcher: the environments of a job's ranks, by attempt.

A launch has variables that its ranks share and others that differ by rank. Whatever the launcher, all ranks must make
one decision (or get one error), keep it over restarts, and never make that of another launch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from pluto_dist.contract.run_ref import Reference, reference
from pluto_dist.environments import ProcessFacts, detect
from pluto_dist.environments.topology import Topology
from pluto_dist.errors import LaunchError
from pluto_dist.identity import TOKEN, Named, NeedsLaunchToken, decide

WORDS = st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S", "Z")), min_size=1, max_size=20)
NUMBERS = st.integers(1, 10**7).map(str)
TOKENS = st.from_regex(TOKEN, fullmatch=True)


@dataclass(frozen=True)
class Launch:
    """One launch as its ranks see it.

    Attributes:
        launcher: for the message of a failing case.
        attempts: for each attempt the environments of its ranks, in order.
        group: whether the ranks have a process group that gives their places.
    """

    launcher: str
    attempts: tuple[tuple[dict[str, str], ...], ...]
    group: bool = False

    def decisions(self, **asked: Any) -> list[object]:
        """The decision of each rank of each attempt, or its error."""
        found: list[object] = []
        for ranks in self.attempts:
            for rank, environ in enumerate(ranks):
                facts = ProcessFacts(group=Topology(rank, len(ranks)) if self.group else None, spawned=self.group)
                try:
                    found.append(decide(detect(environ, facts), **asked))
                except LaunchError as error:
                    found.append((type(error), str(error)))
        return found


SCHEDULERS = st.one_of(
    st.just({}),
    st.builds(lambda job, cluster: {"SLURM_JOB_ID": job, "SLURM_CLUSTER_NAME": cluster}, NUMBERS, WORDS),
    st.builds(
        lambda job, array, task: {
            "SLURM_JOB_ID": job,
            "SLURM_CLUSTER_NAME": "hpc",
            "SLURM_ARRAY_JOB_ID": array,
            "SLURM_ARRAY_TASK_ID": task,
        },
        NUMBERS,
        NUMBERS,
        NUMBERS,
    ),
    st.builds(lambda job: {"PBS_JOBID": job}, WORDS),
    st.builds(lambda job, index: {"LSB_JOBID": job, "LSB_JOBINDEX": index}, NUMBERS, NUMBERS),
    st.builds(lambda job: {"FLUX_JOB_ID": job}, WORDS),
    st.builds(lambda job: {"SKYPILOT_TASK_ID": job}, WORDS),
)
RANK_AND_SIZE = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("FLUX_TASK_RANK", "FLUX_JOB_SIZE"),
)
RENDEZVOUS = st.one_of(
    st.sampled_from(["none", "", "0", "123", "MMP-12", "a/b c", "作業", "x" * 300]),
    WORDS,
    st.uuids(version=4).map(str),
    st.uuids(version=4).map(lambda u: str(u.int)),
)


@st.composite
def torchrun(draw: st.DrawFn) -> Launch:
    """Agents of up to four nodes, in shared and in private stores; every attempt has its own size, port and counts."""
    shared = {**draw(SCHEDULERS), "TORCHELASTIC_RUN_ID": draw(RENDEZVOUS), "TORCHELASTIC_MAX_RESTARTS": "3"}
    shared["TORCHELASTIC_USE_AGENT_STORE"] = draw(st.sampled_from(["True", "False"]))
    nodes_at_start = draw(st.integers(1, 4))
    attempts = []
    for _ in range(draw(st.integers(1, 3))):
        nodes, local = (nodes_at_start if nodes_at_start == 1 else draw(st.integers(2, 4))), draw(st.integers(1, 4))
        place = {"MASTER_ADDR": draw(st.sampled_from(["node-a", "node-b"])), "MASTER_PORT": draw(NUMBERS)[:4]}
        counts = [str(draw(st.integers(0, 3))) for _ in range(nodes)]  # an agent's own
        virtual = draw(st.booleans())
        attempts.append(
            tuple(
                {
                    **shared,
                    **place,
                    "RANK": str(node * local + n),
                    "WORLD_SIZE": str(nodes * local),
                    "LOCAL_RANK": "0" if virtual else str(n),
                    "LOCAL_WORLD_SIZE": str(local),
                    "GROUP_RANK": str(node),
                    "GROUP_WORLD_SIZE": str(nodes),
                    "TORCHELASTIC_RESTART_COUNT": counts[node],
                    "TORCHELASTIC_ERROR_FILE": f"/tmp/{node}/attempt_{counts[node]}/{n}/error.json",
                }
                for node in range(nodes)
                for n in range(local)
            )
        )
    return Launch("torchrun", tuple(attempts))


@st.composite
def srun(draw: st.DrawFn) -> Launch:
    """Tasks of one step, block by block on its nodes."""
    layout = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    assume(sum(layout) > 1)
    shared = {
        "SLURM_JOB_ID": draw(NUMBERS),
        "SLURM_CLUSTER_NAME": "hpc",
        "SLURM_STEP_ID": str(draw(st.integers(0, 50))),
        "SLURM_STEP_NUM_TASKS": str(sum(layout)),
        "SLURM_NTASKS": str(draw(st.integers(1, 64))),
        "SLURM_STEP_NUM_NODES": str(len(layout)),
        "SLURM_STEP_TASKS_PER_NODE": ",".join(map(str, layout)),
        "SLURM_STEP_NODELIST": f"node[1-{len(layout)}]" if len(layout) > 1 else "node1",
    }
    own = [(node, n) for node, tasks in enumerate(layout) for n in range(tasks)]
    ranks = (
        {**shared, "SLURM_PROCID": str(rank), "SLURM_NODEID": str(node), "SLURM_LOCALID": str(n)}
        for rank, (node, n) in enumerate(own)
    )
    return Launch("srun", (tuple(ranks),))


@st.composite
def mpirun(draw: st.DrawFn) -> Launch:
    """Ranks of Open MPI, hydra and Flux, inside a scheduler's job or not."""
    size, shared = draw(st.integers(2, 8)), draw(SCHEDULERS)
    rank_name, size_name = draw(st.sampled_from(RANK_AND_SIZE))
    return Launch(rank_name, (tuple({**shared, rank_name: str(n), size_name: str(size)} for n in range(size)),))


@st.composite
def bare(draw: st.DrawFn) -> Launch:
    """RANK and WORLD_SIZE by hand, with or without MASTER_ADDR and MASTER_PORT."""
    size, shared = draw(st.integers(1, 8)), dict(draw(SCHEDULERS))
    if draw(st.booleans()):
        shared |= {"MASTER_ADDR": "node-a", "MASTER_PORT": "29500"}
    return Launch("environment", (tuple({**shared, "RANK": str(n), "WORLD_SIZE": str(size)} for n in range(size)),))


@st.composite
def spawned(draw: st.DrawFn) -> Launch:
    """Processes that multiprocessing started in a process group, with a parent's variables in their environment."""
    size, parent = draw(st.integers(1, 8)), draw(torchrun()).attempts[0][0] if draw(st.booleans()) else {}
    return Launch("spawned", (tuple(dict(parent) for _ in range(size)),), group=True)


LAUNCHES = st.one_of(torchrun(), srun(), mpirun(), bare(), spawned())


@given(launch=LAUNCHES, resume=st.sampled_from([None, True, False]), run_id=st.none() | WORDS)
def test_law_1_and_2_all_ranks_of_all_attempts_decide_alike(launch, resume, run_id):
    """Every rank of a launch has the same decision, or the same error; restarts and other sizes do not change it."""
    assert len({repr(decision) for decision in launch.decisions(resume=resume, run_id=run_id)}) == 1


@given(launch=LAUNCHES, tokens=st.lists(TOKENS, min_size=2, max_size=2, unique=True))
def test_law_3_two_launches_alike_in_everything_are_two_runs(launch, tokens):
    """Without run_id and resume the same launch, started twice, has two ids: nothing that it was given is enough."""
    decision = launch.decisions()[0]
    assert isinstance(decision, NeedsLaunchToken)
    assert len({decision.external_id(token) for token in tokens}) == 2


@given(one=LAUNCHES, other=LAUNCHES)
def test_law_3_resume_joins_only_what_names_one_job(one, other):
    """Under resume two launches share a run only if everything that names their jobs is the same."""
    first, second = one.decisions(resume=True)[0], other.decisions(resume=True)[0]
    assume(isinstance(first, Named) and isinstance(second, Named))

    def names(launch: Launch) -> tuple[object, ...]:
        facts = ProcessFacts(group=Topology(0, 1) if launch.group else None, spawned=launch.group)
        context = detect(launch.attempts[0][0], facts)
        scope = None if context.scope is None else (context.scope.scheduler, context.scope.value)
        chosen = context.chosen_id or (None if context.rendezvous_is_random else context.rendezvous_id)
        return (scope, chosen, None if scope else context.launcher)

    assert (first.reference_of(1) == second.reference_of(1)) == (names(one) == names(other))


@given(launch=LAUNCHES, resume=st.sampled_from([None, True]), token=TOKENS, nth=st.integers(1, 99))
def test_law_4_generated_ids_look_like_no_other(launch, resume, token, nth):
    """An id that this package makes starts with a lower-case word, is short, printable, and no number or display id."""
    decision = launch.decisions(resume=resume)[0]
    assume(isinstance(decision, Named | NeedsLaunchToken))
    made = decision.reference_of(nth).value if isinstance(decision, Named) else decision.external_id(token, nth)
    assert re.match(r"[a-z]+-", made), made
    assert made.isascii()
    assert made.isprintable()
    assert len(made) <= 255
    assert reference(made) == Reference("external id", made)
    assert decision.source.isprintable()
