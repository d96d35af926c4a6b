"""The mutants fit the package as it is, and the simulator finds them."""

from __future__ import annotations

import ast

import pytest

from simulation.mutants import MUTANTS
from simulation.mutants.mutant import PACKAGE, UNCHANGED, Mutant, copy_package
from simulation.mutants.running import python, simulate

BY_NAME = {mutant.name: mutant for mutant in MUTANTS}
SURE = ("no-grant-awaited", "one-nonce-for-all-attempts", "offline-run-has-no-end")


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_fits(mutant: Mutant):
    """What it replaces stands once in its file; the file that comes out is another program, and can be compiled."""
    source = (PACKAGE / mutant.file).read_text(encoding="utf-8")
    assert ast.dump(ast.parse(mutant.applied(source))) != ast.dump(ast.parse(source))


def test_each_has_a_name_and_a_guarantee():
    """No two have one name or make one change, and each says in a sentence what it breaks."""
    assert len(BY_NAME) == len({(mutant.file, mutant.before, mutant.after) for mutant in MUTANTS}) == len(MUTANTS)
    assert UNCHANGED.name not in BY_NAME
    for mutant in MUTANTS:
        assert mutant.breaks[:1].isupper() or mutant.breaks.startswith(("init()", "finish()")), mutant.name
        assert mutant.breaks.endswith("."), mutant.name


def test_text_that_is_not_there_is_an_error():
    """A mutant that the package has outgrown is no mutant that survives."""
    mutant = MUTANTS[0]
    for source in ("", mutant.before * 2):
        with pytest.raises(ValueError, match=mutant.name):
            mutant.applied(source)


def test_the_copy_is_what_runs(tmp_path):
    """A process of the simulator imports the package that has the fault; the tree stays as it is."""
    mutant = BY_NAME["offline-run-has-no-end"]
    before = (PACKAGE / mutant.file).read_text(encoding="utf-8")
    copy = copy_package(tmp_path, mutant)
    done = python(
        tmp_path, "-c", "from pluto_dist.lifecycle import supervision; print(supervision.__file__)", seconds=60
    )
    assert done.stdout.strip() == str(copy), done.stderr
    assert copy.read_text(encoding="utf-8") == mutant.applied(before)
    assert (PACKAGE / mutant.file).read_text(encoding="utf-8") == before


@pytest.mark.exhaustive
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", SURE)
def test_a_mutant_is_found(name):
    """The simulator finds it, under a seed under which the package as it is violates nothing."""
    result = simulate(BY_NAME[name], range(1000), ["scenes"])
    assert result.seed is not None, result.trouble
