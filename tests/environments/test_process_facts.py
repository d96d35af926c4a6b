"""Whether multiprocessing started this process with its parent's launcher variables: asked in real child processes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pluto_dist.environments.process_facts import is_spawned

# The child's environment at its start is `handed`; `set_later` is what torch's elastic agent sets in the worker itself.
SCRIPT = """
import multiprocessing, os, sys
from pluto_dist.environments.process_facts import is_spawned


def child(set_later):
    os.environ.update(set_later)
    print(is_spawned(dict(os.environ)), flush=True)


if __name__ == "__main__":
    print(is_spawned(dict(os.environ)), flush=True)
    process = multiprocessing.get_context(sys.argv[1]).Process(target=child, args=(eval(sys.argv[2]),))
    process.start()
    process.join()
"""
CASES = {
    "no launcher": ({}, {}, True),
    "a worker's variables, inherited": ({"TORCHELASTIC_RUN_ID": "x", "RANK": "1"}, {}, True),
    "variables of the agent's own making": ({}, {"TORCHELASTIC_RUN_ID": "x", "RANK": "1"}, False),
    "another rank than the parent": ({"TORCHELASTIC_RUN_ID": "x", "RANK": "1"}, {"RANK": "2"}, False),
    "another launcher's variables": ({"FLUX_TASK_RANK": "1", "FLUX_JOB_SIZE": "4"}, {}, True),
}


@pytest.mark.parametrize(("handed", "set_later", "spawned"), CASES.values(), ids=CASES)
def test_a_child_of_multiprocessing(tmp_path, handed, set_later, spawned):
    """A child is spawned if it has its parent's variables; a worker of an elastic agent has its own."""
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py", "spawn", repr(set_later)],
        env={"PATH": "/usr/bin:/bin", **handed},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == ["False", str(spawned)]


def test_a_process_that_was_not_spawned():
    """Without a parent of multiprocessing the answer is no, whatever the environment holds."""
    assert not is_spawned({})
    assert not is_spawned({"RANK": "1", "TORCHELASTIC_RUN_ID": "x"})
