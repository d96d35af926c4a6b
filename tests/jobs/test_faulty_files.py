"""No file call of this package may hurt a training: each fails in turn, with each errno, in a small real job."""

from __future__ import annotations

import pytest
from failing import ERRNOS
from forked import Table, shown

pytestmark = pytest.mark.multiprocess

SCENARIOS = {
    "launcher": "a tracker that answers, one worker under `pluto-dist run`",
    "worker": "the same under torchrun, with the folder of its launch",
    "online": "the same without a launcher",
    "offline": "no tracker; what is kept is sent by `pluto-dist sync` afterwards",
    "outage": "a tracker that comes back during the job",
}
PROBES = "inventory/"  # these read what a machine has; a value that cannot be read is not recorded


def cases_of_files(table: Table) -> list[dict[str, str]]:
    """Every site of the file layer, each with one errno."""
    cases: dict[str, dict[str, str]] = {}
    for scenario in SCENARIOS:
        for number, site in enumerate(table.sites(scenario)):
            if not site.startswith(PROBES):
                error = ERRNOS[number % len(ERRNOS)]
                cases.setdefault(site, {"scenario": scenario, "site": site, "error": error})
    return list(cases.values())


def test_a_file_call_that_fails(table: Table):
    """One call of each function that has some, with one errno: the job ends as it should, and its run is somewhere."""
    cases = {case["site"].partition(" ")[0]: case for case in reversed(cases_of_files(table))}
    results = table.run_all(list(cases.values()))
    print(shown(results))
    assert all(result.is_good for result in results)


@pytest.mark.exhaustive
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_file_call_with_every_errno(table: Table, scenario: str, capsys: pytest.CaptureFixture[str]):
    """The whole table, call site by errno, the probes of the machine included."""
    results = table.run_all(
        [{"scenario": scenario, "site": site, "error": name} for site in table.sites(scenario) for name in ERRNOS]
    )
    with capsys.disabled():
        print(f"\n{shown(results)}")
    assert all(result.is_good for result in results)
