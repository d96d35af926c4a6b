"""The table of versions: what the project promises in pyproject.toml is what ./scripts/versions makes and runs."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("versions", ROOT / "scripts" / "versions.py")
assert SPEC is not None and SPEC.loader is not None
versions = sys.modules["versions"] = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(versions)

ROWS = versions.rows()
README = (ROOT / "tests" / "README.md").read_text(encoding="utf-8")


def test_every_promise_has_a_row():
    """Each Python of the classifiers, the lowest torch and the pinned one, and the lowest dependencies."""
    promised = re.findall(r"Python :: (3\.\d+)", " ".join(versions.project()["classifiers"]))
    assert {row.python for row in ROWS} == set(promised)
    assert versions.project()["requires-python"] == f">={promised[0]}"
    numbers = sorted({tuple(map(int, row.torch.split("."))) for row in ROWS})
    assert ".".join(map(str, numbers[0])) == versions.lower_bounds()["torch"]
    assert {"lowest", "newest"} == {row.dependencies for row in ROWS}


def test_every_bound_is_a_lower_one():
    """A version that nobody has tried is not refused: no dependency has an upper bound."""
    listed = [*versions.project()["dependencies"], *versions.project()["optional-dependencies"]["server"]]
    assert len(versions.lower_bounds()) == len(listed)
    lowest = next(row for row in ROWS if row.dependencies == "lowest")
    assert f"requests=={versions.lower_bounds()['requests']}" in versions.wanted(lowest)
    assert not any(each.startswith("torch==") for each in versions.wanted(lowest))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_runs_tests_that_are_there(row):
    """The paths of its list exist, and the README has its line, with numbers or the reason why there are none."""
    assert all((ROOT / path).exists() for path in row.paths)
    (line,) = [line for line in README.splitlines() if line.startswith(row.facts())]
    assert re.fullmatch(r"( \d+ \|){4}|[^|]*\w[^|]* \|( +\|)*", line.removeprefix(row.facts())), line


def test_the_rows_are_listed():
    """Without a name nothing is made."""
    done = subprocess.run([ROOT / "scripts" / "versions"], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == [row.facts() for row in ROWS]


def test_numbers_of_a_report(tmp_path):
    """Passed, skipped and failed tests, from pytest's XML."""
    report = tmp_path / "report.xml"
    report.write_text('<testsuites><testsuite tests="9" skipped="2" failures="1" errors="1"/></testsuites>')
    assert versions.counts(report) == {"passed": 5, "skipped": 2, "failed": 2}


def test_repeating(tmp_path):
    """./scripts/repeat counts the failures of each test, and its exit code says whether there were any."""
    (tmp_path / "test_it.py").write_text("def test_good(): pass\n\ndef test_bad(): assert False\n")
    command = [sys.executable, ROOT / "scripts" / "repeat.py", "--times=2", "--load=1", f"--output={tmp_path}"]
    done = subprocess.run(
        [*command, "-c", "/dev/null", "--rootdir", tmp_path, tmp_path / "test_it.py"],
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "2 of 2 failed: test_it::test_bad" in done.stdout
    assert done.stdout.splitlines()[-1] == "4 runs of 2 tests at load 1: 2 failed"
