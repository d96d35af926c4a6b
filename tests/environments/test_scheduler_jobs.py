"""Names of jobs: the table, and the names in real environments that identify one run over all launches."""

from __future__ import annotations

import re
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from environments.recorded import NAMES, recorded
from pluto_dist.environments import detect, scheduler_jobs
from pluto_dist.environments.context import JobScope

TITLES = [row.title for row in scheduler_jobs.JOBS]
PER_RANK = re.compile(r"RANK(?!S)|PROCID|LOCALID|NODEID|COMPLETION_INDEX|NODE_INDEX|TASK_PID|GTIDS|PMI_FD")
SLURM = {"SLURM_CLUSTER_NAME": "lab", "SLURM_JOB_ID": "1042"}


def test_titles_tell_rows_apart():
    """No two rows have the same title."""
    assert len(TITLES) == len(set(TITLES))


@pytest.mark.parametrize("row", scheduler_jobs.JOBS, ids=TITLES)
def test_a_row_is_in_order(row):
    """A row's word can begin a run id, it has a source, and only a row that was measured is verified."""
    assert re.fullmatch(r"[a-z]+", row.scheduler)
    assert row.basis
    assert row.verified == row.basis.startswith("measured")
    read = (*row.names, *row.joined, *row.joined_unless, *row.beside)
    assert len(read) == len(set(read))
    assert not [name for name in (*row.names, *row.joined) if PER_RANK.search(name)]
    if not row.names:
        assert not row.names_every_launch
        assert not row.is_in(dict.fromkeys(read, "1"))
    assert row.shared == "yes" or not row.names_every_launch


def everything(row: scheduler_jobs.JobNaming) -> dict[str, str]:
    """An environment with every variable that the row reads."""
    return {name: f"{name.lower()}-7" for name in (*row.names, *row.joined, *row.beside)}


@pytest.mark.parametrize("row", [row for row in scheduler_jobs.JOBS if row.names], ids=lambda row: row.title)
def test_only_a_name_of_the_whole_job_is_a_scope(row):
    """A name counts if all ranks have it, no other job has it, and a requeue keeps it; unknown counts as no."""
    found = scheduler_jobs.scope(everything(row))
    assert row in scheduler_jobs.named(everything(row))
    if "yes" == row.shared == row.unique == row.stable:
        assert found is not None
        assert found.scheduler == row.scheduler
        assert [name for name, _ in found.variables] == [*row.names, *row.joined]
        assert found.value == ".".join(
            ["_".join(everything(row)[name] for name in row.names), *(everything(row)[name] for name in row.joined)]
        )
    else:
        assert found is None


@pytest.mark.parametrize("row", [row for row in scheduler_jobs.JOBS if row.names], ids=lambda row: row.title)
def test_half_a_name_is_none(row):
    """Without one of the variables that it needs, or with one of them empty, the row names nothing."""
    for name in (*row.names, *row.beside):
        assert row not in scheduler_jobs.named({**everything(row), name: ""})
        assert row not in scheduler_jobs.named({key: value for key, value in everything(row).items() if key != name})


SCOPES = {
    # recorded environment: (value, requeues)
    "slurm_one_node": ("lab_4.0", 0),
    "slurm_two_nodes": ("lab_5.0", 0),
    "slurm_batch_script": ("lab_10", 0),
    "slurm_batch_first_step": ("lab_10.0", 0),
    "slurm_batch_second_step": ("lab_10.1", 0),
    "slurm_array_script": ("lab_11_3", 0),
    "slurm_array_3": ("lab_11_3.0", 0),
    "slurm_array_4": ("lab_11_4.0", 0),
    "slurm_heterogeneous": ("lab_14.1", 0),
    "slurm_script_before_requeue": ("lab_13", 0),
    "slurm_script_after_requeue": ("lab_13", 1),
    "slurm_before_requeue": ("lab_13.0", 0),
    "slurm_after_requeue": ("lab_13.0", 1),
    "slurm_array_before_requeue": ("lab_26_7.0", 0),
    "slurm_array_after_requeue": ("lab_26_7.0", 1),
    "slurm_heterogeneous_before_requeue": ("lab_27.0", 0),
    "slurm_heterogeneous_after_requeue": ("lab_27.0", 1),
    "slurm_salloc_command": ("lab_17", 0),
    "slurm_salloc_shell": ("lab_16.4294967290", 0),
    "slurm_salloc_shell_step": ("lab_16.0", 0),
    "slurm_openmpi4_daemons": ("lab_19", 0),
    "slurm_openmpi4_beside": ("lab_20", 0),
    "slurm_mpich4": ("lab_19.2", 0),
    "slurm_intelmpi": ("lab_19.3", 0),
}


@pytest.mark.parametrize(("name", "expected"), SCOPES.items(), ids=SCOPES)
def test_jobs_of_a_real_slurm(name, expected):
    """Cluster, job or array task, and the step where srun started the ranks."""
    found = [scheduler_jobs.scope(environ) for environ in recorded(name)]
    assert {(scope.scheduler, scope.value, scope.requeues) for scope in found} == {("slurm", *expected)}


@pytest.mark.parametrize("name", NAMES)
def test_every_rank_of_a_real_launch_has_one_scope(name):
    """The scope is the same on all ranks of a launch, those that mpirun started beside itself included."""
    assert len({scheduler_jobs.scope(environ) for environ in recorded(name)}) == 1


@pytest.mark.parametrize("kind", ["slurm", "slurm_array", "slurm_heterogeneous", "slurm_script"])
def test_a_requeue_keeps_the_name(kind):
    """A requeued job has its earlier name; only its count of requeues differs."""
    before, after = (scheduler_jobs.scope(recorded(f"{kind}_{when}_requeue")[0]) for when in ("before", "after"))
    assert (before.value, before.variables) == (after.value, after.variables)
    assert (before.requeues, after.requeues) == (0, 1)


def test_different_jobs_have_different_names():
    """Different jobs, array tasks and steps of a real cluster have different names."""
    apart = [name for name in SCOPES if "after" not in name and "daemons" not in name]
    values = [scheduler_jobs.scope(recorded(name)[0]).value for name in apart]
    assert len(values) == len(set(values))


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("slurm")])
def test_an_mpi_names_no_job(name):
    """mpirun's variables are of one launch: none of them names a job."""
    assert {scheduler_jobs.scope(environ) for environ in recorded(name)} == {None}


TOGETHER = {
    "SkyPilot on Slurm": (SLURM | {"SKYPILOT_TASK_ID": "sky-managed-1"}, ("skypilot", "sky-managed-1")),
    "TorchX on Slurm": (SLURM | {"TORCHX_JOB_ID": "slurm://x/1042"}, ("slurm", "lab_1042")),
    "Flux in Slurm": (SLURM | {"FLUX_JOB_ID": "f23"}, ("slurm", "lab_1042")),
    "an array task has a job id too": (
        SLURM | {"SLURM_ARRAY_JOB_ID": "1040", "SLURM_ARRAY_TASK_ID": "2"},
        ("slurm", "lab_1040_2"),
    ),
    "an array without its task": (SLURM | {"SLURM_ARRAY_JOB_ID": "1040"}, ("slurm", "lab_1042")),
    "a component of a heterogeneous job": (SLURM | {"SLURM_JOB_ID_HET_GROUP_0": "1041"}, ("slurm", "lab_1041")),
    "a job of an unnamed cluster": ({"SLURM_JOB_ID": "1042"}, None),
    "Kubeflow PyTorchJob": ({"PET_RDZV_ID": "nightly"}, None),
    "an indexed Job": ({"JOB_COMPLETION_INDEX": "3"}, None),
    "AWS Batch": ({"AWS_BATCH_JOB_ID": "b5", "AWS_BATCH_JOB_ATTEMPT": "1"}, ("awsbatch", "b5")),
    "AWS Batch, several nodes": ({"AWS_BATCH_JOB_ID": "b5#1", "AWS_BATCH_JOB_NUM_NODES": "2"}, None),
    "a name that is anybody's": ({"TRAINING_JOB_NAME": "mine"}, None),
    "SageMaker": ({"TRAINING_JOB_NAME": "mine", "TRAINING_JOB_ARN": "arn:x"}, ("sagemaker", "mine")),
    "an LSF array": ({"LSB_JOBID": "7", "LSB_JOBINDEX": "3"}, ("lsf", "7.3")),
    "PBS": ({"PBS_JOBID": "123[4].server"}, ("pbs", "123[4].server")),
    "nothing": ({}, None),
}


@pytest.mark.parametrize(("environ", "expected"), TOGETHER.values(), ids=TOGETHER)
def test_which_name_goes_first(environ, expected):
    """A platform before the scheduler it submits to, the special kind of job before the plain one."""
    found = scheduler_jobs.scope(environ)
    assert (None if found is None else (found.scheduler, found.value)) == expected


def test_one_row_for_each_scheduler():
    """Of the rows that apply, each scheduler has the most special one, in the order of the table."""
    environ = SLURM | {"SLURM_ARRAY_JOB_ID": "1040", "SLURM_ARRAY_TASK_ID": "2", "TORCHX_JOB_ID": "slurm://x/1042"}
    assert [row.title for row in scheduler_jobs.named(environ)] == ["TorchX app", "Slurm array task"]


COUNTS = {None: 0, "": 0, "0": 0, "3": 3, "-1": 0, "x": 0, "1.5": 0, "\u0663": 0, "²": 0, " 1": 0, "9" * 5000: 0}


@pytest.mark.parametrize(("count", "requeues"), COUNTS.items(), ids=lambda value: str(value)[:8])
def test_the_count_of_requeues_is_read_leniently(count, requeues):
    """A value that is not a count counts as 0: nothing depends on it."""
    environ = SLURM if count is None else SLURM | {"SLURM_RESTART_COUNT": count}
    assert scheduler_jobs.scope(environ).requeues == requeues


@pytest.mark.parametrize(("attempt", "requeues"), [(None, 0), ("0", 0), ("1", 0), ("4", 3)])
def test_attempts_that_count_from_one(attempt, requeues):
    """AWS Batch calls the first attempt 1."""
    environ = {"AWS_BATCH_JOB_ID": "b5"} | ({} if attempt is None else {"AWS_BATCH_JOB_ATTEMPT": attempt})
    assert scheduler_jobs.scope(environ).requeues == requeues


READ = {
    name
    for row in scheduler_jobs.JOBS
    for name in (*row.names, *row.joined, *row.joined_unless, *row.beside, row.requeues)
}
OTHERS = sorted({name for launch in NAMES for environ in recorded(launch) for name in environ} - READ)


@given(
    environ=st.sampled_from(NAMES).map(lambda name: recorded(name)[-1]),
    changes=st.dictionaries(st.sampled_from(OTHERS), st.text()),
)
def test_nothing_else_is_read(environ, changes):
    """Rank, node, layout and the rest never enter a scope."""
    assert scheduler_jobs.scope({**environ, **changes}) == scheduler_jobs.scope(environ)


@given(environ=st.dictionaries(st.sampled_from(sorted(name for name in READ if name)), st.text(max_size=4)))
def test_any_environment_has_a_scope_or_none(environ):
    """Whatever the variables hold, a scope is made of them alone, and contains their values."""
    found = scheduler_jobs.scope(MappingProxyType(environ))
    assert found == scheduler_jobs.scope(environ)
    if found is not None:
        assert isinstance(found, JobScope)
        assert all(environ[name] == value and value in found.value for name, value in found.variables)
        assert found.scheduler in {row.scheduler for row in scheduler_jobs.named(environ)}


def test_the_launch_carries_its_job():
    """Whatever launcher started the ranks, the scheduler's job around them is part of the launch."""
    torchrun = {"TORCHELASTIC_RUN_ID": "none", "RANK": "0", "WORLD_SIZE": "2"}
    assert detect(SLURM | torchrun).scope == JobScope("slurm", "lab_1042", tuple(SLURM.items()))
    assert detect(recorded("slurm_openmpi4_beside")[0]).scope.value == "lab_20"
    assert detect(torchrun).scope is None
