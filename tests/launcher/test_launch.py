"""The pure parts of `pluto-dist run`: what it starts, what a job died of, and what the kernel counted."""

from __future__ import annotations

import shlex
import signal
from pathlib import Path

import pytest
from click.testing import CliRunner
from torch.distributed.run import get_args_parser
from torch.distributed.run import parse_args as torchruns_own

from pluto_dist.cli import main
from pluto_dist.cli.run import run as run_command
from pluto_dist.client.offline.replay import earlier
from pluto_dist.launcher.command import parse, why_not_wrapped, wrapped
from pluto_dist.launcher.oom import OomKillCounts, count_oom_kills
from pluto_dist.launcher.root_cause import Ending, Failed, ended
from pluto_dist.rendezvous.node_state import NodeState
from pluto_dist.rendezvous.worker_reports import (
    FailureNote,
    RunReport,
    note_failure,
    note_run,
    noted_failure,
    noted_run,
)

# Every option of this torch's torchrun, as its parser has it.
OPTIONS = {
    action.option_strings[-1]: action
    for action in get_args_parser()._actions
    if action.option_strings and action.dest != "help"
}
VALUES = {"--nnodes": "1:2", "--rdzv-conf": "timeout=3", "--nproc-per-node": "2", "--redirects": "3", "--tee": "3"}


def with_value(option: str) -> list[str]:
    """The option as a user would type it."""
    action = OPTIONS[option]
    if action.nargs == 0:
        return [option]
    known = next((VALUES[name] for name in action.option_strings if name in VALUES), None)
    choices = list(action.choices or ())
    return [option, known or (str(choices[0]) if choices else "3")]


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_of_torchrun_passes_through(option):
    """What torchrun makes of its option is what we start; only the script is another, and the script's own arguments
    go with it."""
    typed = [*with_value(option), "train.py", "--project", "x", option]
    asked = parse(typed)
    assert vars(asked) == vars(torchruns_own(typed))
    if why_not_wrapped(asked):
        assert wrapped(asked, ["--offline"]) is asked
        return
    started = vars(wrapped(asked, ["--offline"]))
    changed = {name: value for name, value in started.items() if value != vars(asked)[name]}
    script = ["-m", "train.py"] if asked.module else ["--", "train.py"]
    expected = {"training_script_args": ["--offline", *script, "--project", "x", option]}
    assert changed.pop("training_script") == "pluto_dist"
    assert changed.pop("module", True) is True
    assert changed == expected


@pytest.mark.parametrize("option", OPTIONS)
def test_our_command_line_hands_torchruns_options_on(option):
    """After our own options, torchrun's go on as they were typed, `--opt value` and `--opt=value` alike."""
    typed = with_value(option)
    for form in (typed, ["=".join(typed)]):
        if option.startswith("--") or len(form) == 2 or len(typed) == 1:
            done = CliRunner().invoke(main, ["run", "--dry-run", "--project=p", *form, "train.py", "--name", "n"])
            assert done.exit_code == 0, done.output
            assert shlex.join([*form, "train.py", "--name", "n"]) in done.output


def test_our_options_are_none_of_torchruns():
    """No option of ours takes one of torchrun's away."""
    ours = {name for parameter in run_command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    theirs = {name for action in get_args_parser()._actions for name in action.option_strings}
    assert ours & theirs <= {"-h", "--help"}


@pytest.mark.parametrize(
    ("typed", "told"), [(["--no-python", "sh"], "python -m pluto_dist"), (["--run-path", "x.py"], "--run-path")]
)
def test_what_cannot_be_wrapped_is_said(typed, told):
    """What starts no Python script of its own is left as it is, and the user hears how to do it."""
    done = CliRunner().invoke(main, ["run", "--dry-run", *typed])
    assert done.exit_code == 0
    assert told in done.output


@pytest.mark.parametrize(
    ("typed", "told"),
    [([], "name a script"), (["--config", "x", "s.py"], "--config takes"), (["--project", "", "s.py"], "project")],
)
def test_a_wrong_command_line_starts_nothing(typed, told):
    """Usage errors are told before anything runs, with exit code 2."""
    done = CliRunner().invoke(main, ["run", *typed])
    assert done.exit_code == 2
    assert told in done.output


# Verdicts.


def died(rank: int, exitcode: int, at: float, message: str = "") -> Ending:
    return Ending(rank, exitcode, at, message, "trace" if message else "")


@pytest.mark.parametrize(
    ("endings", "rank", "reason"),
    [
        ([died(1, -9, 5.0)], 1, "killed by SIGKILL"),
        ([died(0, -15, 5.0), died(1, -11, 5.0)], 1, "killed by SIGSEGV"),
        ([died(0, 1, 7.0, "RuntimeError: peer"), died(3, 1, 6.5, "ValueError: boom")], 3, "ValueError: boom"),
        ([died(2, 3, 5.0)], 2, "exit code 3"),
        ([died(0, -15, 5.0)], 0, "killed by SIGTERM"),
        ([died(0, -64, 5.0)], 0, f"killed by {signal.Signals(64).name}"),
        ([died(0, -200, 5.0)], 0, "killed by signal 200"),
    ],
)
def test_the_first_to_die_of_its_own_is_the_cause(endings, rank, reason):
    """The earliest failure, but for ranks that the agent ended with SIGTERM because another had failed."""
    cause = ended(Failed(tuple(endings), "a"))
    assert (cause.rank, cause.reason, cause.host) == (rank, reason, "a")


def test_memory_is_named_for_sigkill_alone():
    """A SIGKILL while the kernel counted a kill for memory is probably that; an exception is itself."""
    memory = "its cgroup reached its memory limit"
    assert "out-of-memory killer" in ended(Failed((died(1, -9, 5.0),), "a"), memory=memory).reason
    assert ended(Failed((died(1, 1, 5.0, "ValueError: x"),), "a"), memory=memory).reason == "ValueError: x"


def test_a_ranks_own_words_go_before_its_exit_code():
    """What the rank said of itself is the reason; what another rank said later is not."""
    note = FailureNote(4.9, 1, "a", "ValueError: boom", "trace")
    told = ended(Failed((died(0, -15, 5.0), died(1, 1, 5.0)), "a"), note=note)
    assert (told.reason, told.rank, told.exitcode, told.traceback) == ("ValueError: boom", 1, 1, "trace")
    late = FailureNote(6.0, 0, "a", "RuntimeError: peer", "trace")
    assert ended(Failed((died(0, 1, 6.0), died(1, -9, 5.0)), "a"), note=late).reason == "killed by SIGKILL"


@pytest.mark.parametrize(
    ("recorded", "is_earlier"),
    [({"at": 4}, True), ({"at": 5.0}, True), ({"at": 6.5}, False), ({}, False), (None, False), ({"at": True}, False)],
)
def test_which_of_two_causes_stays(recorded, is_earlier):
    """The earlier failure stays on record; what is no record gives way."""
    assert earlier(recorded, 5.0) == is_earlier


# Notes.


def test_notes_arrive(tmp_path):
    """What workers leave is what the launcher reads; of an attempt's failures the first."""
    folder = NodeState(tmp_path)
    assert (noted_run(folder), noted_failure(folder, "n")) == (None, None)
    run = RunReport(7, "DIG-7", 1, "n", 0, "http://t", "digits", "external id", "job-7", "launch")
    note_run(folder, run)
    first = FailureNote(1.5, 3, "a", 'ValueError: "作"\n\x00', "Traceback\n" * 1000)
    note_failure(folder, "n", first)
    note_failure(folder, "n", FailureNote(2.0, 4, "a", "later", ""))
    assert noted_run(folder) == run
    read = noted_failure(folder, "n")
    assert read is not None
    assert (read.rank, read.reason) == (3, first.reason)
    assert read.traceback.endswith("Traceback\n")
    assert noted_failure(folder, "another attempt") is None


@pytest.mark.parametrize("text", ["", "x", "[]", "{}", '{"run_id": "7"}', '{"run_id": true}'])
def test_a_garbled_note_is_none(tmp_path, text):
    """What is no note is no note."""
    folder = NodeState(tmp_path)
    folder.set("noted run", text)
    assert noted_run(folder) is None


# The kernel's counters.

VERSION_1 = {
    "proc/self/cgroup": "9:name=systemd:/\n4:memory:/job/7\n0::/\n",
    "sys/fs/cgroup/memory/job/7/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    "proc/vmstat": "nr_free_pages 5\noom_kill 9\n",
}
VERSION_2 = {
    "proc/self/cgroup": "0::/user.slice/job\n",
    "sys/fs/cgroup/user.slice/job/memory.events": "low 0\nhigh 0\nmax 3\noom 1\noom_kill 4\noom_group_kill 0\n",
}
IN_A_CONTAINER = {
    "proc/self/cgroup": "4:memory:/docker/abc\n",
    "sys/fs/cgroup/memory/memory.oom_control": "oom_kill 1\n",
}


@pytest.mark.parametrize(
    ("tree", "counts"),
    [
        (VERSION_1, OomKillCounts(2, 9)),
        (VERSION_2, OomKillCounts(4, None)),
        (IN_A_CONTAINER, OomKillCounts(1, None)),
        ({"proc/self/cgroup": "garbage\n::\n", "proc/vmstat": "oom_kill many\n"}, OomKillCounts(None, None)),
        ({}, OomKillCounts(None, None)),
    ],
    ids=["version 1", "version 2", "a container", "garbage", "nothing"],
)
def test_the_kernels_counters(tmp_path: Path, tree, counts):
    """Both versions of cgroups, a container's view, and machines that show nothing."""
    for name, text in tree.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert count_oom_kills(tmp_path) == counts


def test_this_machines_counters():
    """The real tree is read without an error."""
    assert isinstance(count_oom_kills(), OomKillCounts)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (OomKillCounts(1, 1), OomKillCounts(2, 2), "cgroup"),
        (OomKillCounts(1, 1), OomKillCounts(1, 2), "machine"),
        (OomKillCounts(1, 1), OomKillCounts(1, 1), None),
        (OomKillCounts(None, None), OomKillCounts(None, None), None),
        (OomKillCounts(None, 3), OomKillCounts(None, 4), "machine"),
    ],
)
def test_whose_memory_ran_out(before, after, told):
    """The counter that rose says whose memory it was."""
    said = after.since(before)
    assert said is None if told is None else told in (said or "")
