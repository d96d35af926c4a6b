"""No thread, no file descriptor, no memory to be had: a warning and less service, and the training goes on."""

from __future__ import annotations

from typing import Any

import pytest
from forked import Table, shown

pytestmark = pytest.mark.multiprocess

MOMENTS = ("before init()", "after init()", "after update_config()", "after finish()")
SCENARIOS = ("worker", "launcher", "online", "offline")
NO_BORDER = ("background.py", "log.py")  # what reports the exception, and stands below every other frame of a thread


def mostly_exhaustive(always: str, *others: str) -> list[Any]:
    return [always, *(pytest.param(other, marks=pytest.mark.exhaustive) for other in others)]


def cases_of_threads(table: Table, scenario: str) -> list[dict[str, str]]:
    """Each thread of the package in turn, and all of them."""
    sites = [*table.sites(scenario, "thread"), "all"]
    return [{"scenario": scenario, "site": site, "fails": "thread"} for site in sites]


@pytest.mark.parametrize("scenario", mostly_exhaustive("worker", "launcher", "online"))
def test_a_thread_that_cannot_be_started(table: Table, scenario: str):
    """init(), update_config() and finish() raise nothing."""
    results = table.run_all(cases_of_threads(table, scenario))
    print(shown(results))
    assert all(result.is_good for result in results)
    assert all("RuntimeError" in result.output for result in results)  # a warning says what is lost


def cases_of_descriptors(table: Table, scenario: str) -> list[dict[str, str]]:
    """No file and no socket can be opened from some moment on."""
    table.sites(scenario)
    table.usual[scenario] += 2  # SIGTERM, the other ranks, the disk
    return [{"scenario": scenario, "site": "-", "error": "EMFILE", "moment": moment} for moment in MOMENTS]


@pytest.mark.parametrize("scenario", mostly_exhaustive("launcher", "worker", "online", "offline"))
def test_no_file_descriptor_from_some_moment_on(table: Table, scenario: str):
    """A warning for each service that is lost, and the run's end if it is lost."""
    results = table.run_all(cases_of_descriptors(table, scenario))
    print(shown(results))
    assert all(result.is_good for result in results)


def in_background(table: Table, scenario: str) -> list[str]:
    """The package's functions that ran in a thread of its own."""
    split = [(site, *site.split(" | ")) for site in table.sites(scenario, "memory")]
    return [site for site, thread, where in split if thread != "MainThread" and not where.startswith(NO_BORDER)]


def cases_of_memory(table: Table) -> list[dict[str, str]]:
    """One function of each module, in each thread."""
    chosen: dict[str, str] = {}
    for site in in_background(table, "worker"):
        if "inventory/" not in site:
            chosen.setdefault(site.rpartition(":")[0], site)
    return [{"scenario": "worker", "site": site, "fails": "memory"} for site in chosen.values()]


def test_memory_that_runs_out_in_the_background(table: Table):
    """The training goes on, and the run is somewhere."""
    results = table.run_all(cases_of_memory(table))
    print(shown(results))
    assert all(result.is_good for result in results)


@pytest.mark.exhaustive
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_memory_that_runs_out_in_any_function(table: Table, scenario: str):
    """The same in every function that runs in a thread of the package."""
    sites = in_background(table, scenario)
    results = table.run_all([{"scenario": scenario, "site": site, "fails": "memory"} for site in sites])
    print(shown(results))
    assert all(result.is_good for result in results)
