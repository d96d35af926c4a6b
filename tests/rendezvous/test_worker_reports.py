"""What the workers of a node report to the launcher above them, in the folder that they share."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import pytest

from pluto_dist.contract.failure import Failure
from pluto_dist.rendezvous.node_state import NodeState
from pluto_dist.rendezvous.worker_reports import (
    RunReport,
    read_end,
    read_failure,
    read_run,
    report_end,
    report_failure,
    report_owner,
    report_run,
)


def test_reports_arrive(tmp_path):
    """The launcher reads what workers wrote; of an attempt's failures the first."""
    folder = NodeState(tmp_path)
    assert (read_run(folder), read_failure(folder, "n")) == (None, None)
    run = RunReport(7, "DIG-7", 1, "n", 0, "http://t", "digits", "external id", "job-7", "launch")
    report_run(folder, run)
    first = Failure('ValueError: "作"\n\x00', "a", 3, 1500, traceback="Traceback\n" * 1000)
    report_failure(folder, "n", first)
    report_failure(folder, "n", Failure("later", "a", 4, 2000))
    assert read_run(folder) == run
    read = read_failure(folder, "n")
    assert read is not None
    assert (read.rank, read.reason) == (3, first.reason)
    assert read.traceback.endswith("Traceback\n")
    assert read_failure(folder, "another attempt") is None


def test_who_owns_the_run_is_each_ranks_own_report(tmp_path):
    """A rank that knew less when it began to write does not take the owner's word back."""
    folder = NodeState(tmp_path)
    run = RunReport(7, "DIG-7", 1, "n", 0, "http://t", "digits", "external id", "job-7", "launch")
    for rank, owns in ((1, True), (0, False)):
        report_owner(folder, replace(run, owns=owns), rank)
        report_run(folder, replace(run, owns=owns))
    assert read_run(folder) == replace(run, owns=True)
    report_run(folder, replace(run, nonce="next"))
    assert read_run(folder) == replace(run, nonce="next"), "it owned the run in another attempt"
    report_run(folder, run)
    report_owner(folder, run, 1)
    assert read_run(folder) == run


@pytest.mark.parametrize("text", ["", "x", "[]", "{}", '{"run_id": "7"}', '{"run_id": true}', "[" * 8192])
def test_a_report_that_cannot_be_read_is_none(tmp_path, text):
    """Text that is not a report is none."""
    folder = NodeState(tmp_path)
    folder.set("noted run", text)
    folder.set("noted failure n", text)
    assert (read_run(folder), read_failure(folder, "n")) == (None, None)


def test_each_run_of_a_script_has_its_own_end(tmp_path):
    """A script may end one run as failed, and go on with the next one; what earlier runs were is still known."""
    folder = NodeState(tmp_path)
    first = RunReport(7, "DIG-7", 1, "n", 0, "http://t", "digits", "external id", "job-7", "launch")
    second = dataclasses.replace(first, run_id=8, nth=2)
    report_run(folder, first)
    report_end(folder, "n", 1, "TERMINATED", Failure("by hand", "a", 0, 1500))
    report_run(folder, second)
    assert (read_run(folder), read_run(folder, 1), read_run(folder, 3)) == (second, first, None)
    ended = read_end(folder, first)
    assert ended is not None
    assert (ended[0], ended[1].reason) == ("TERMINATED", "by hand")
    assert read_end(folder, second) is None
