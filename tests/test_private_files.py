"""Locks and files of this user's alone: who holds a lock after a fork, and what is read."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pluto_dist import private_files
from pluto_dist.private_files import NotPrivateError

# A child that a process forks while it holds the lock, as a DataLoader's worker does.
HOLDER = r"""
import os, sys, time
from pathlib import Path
from pluto_dist import private_files

file = Path(sys.argv[1])
descriptor = private_files.lock(file, time.monotonic())
child = os.fork()
if child == 0:
    if sys.argv[2] == "the child unlocks":
        private_files.unlock(descriptor)
    os.write(1, b"forked\n")  # one write: print() under PYTHONUNBUFFERED makes two, which mix with the parent's
    time.sleep(30)
    os._exit(0)
if sys.argv[2] == "the parent unlocks":
    private_files.unlock(descriptor)
    os.write(1, b"unlocked\n")
if sys.argv[2] == "the parent ends":
    time.sleep(0.5)
    os._exit(0)
time.sleep(30)
"""


@pytest.mark.parametrize(
    ("case", "is_free"), [("the parent unlocks", True), ("the parent ends", True), ("the child unlocks", False)]
)
def test_a_lock_belongs_to_the_process_that_took_it(tmp_path: Path, case: str, is_free: bool):
    """A forked child neither keeps its parent's lock nor gives it away, whichever of them ends first."""
    file = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(file), case], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as holder:
        try:
            assert holder.stdout is not None
            told = {holder.stdout.readline().strip()}
            if case == "the parent unlocks":
                told.add(holder.stdout.readline().strip())
                assert told == {"forked", "unlocked"}
            if case == "the parent ends":
                holder.wait(30)
            descriptor = private_files.lock(file, time.monotonic() + 0.3)
            assert (descriptor is not None) == is_free
            if descriptor is not None:
                private_files.unlock(descriptor)
        finally:
            os.killpg(holder.pid, 9)


def test_a_lock_is_free_again_in_the_same_process(tmp_path: Path):
    """Taken, refused while it is held, released, taken again; a folder that is gone has none."""
    file = tmp_path / "lock"
    first = private_files.lock(file, time.monotonic())
    assert first is not None
    assert private_files.lock(file, time.monotonic()) is None
    private_files.unlock(first)
    private_files.unlock(first)  # nothing the second time
    again = private_files.lock(file, time.monotonic())
    assert again is not None
    private_files.unlock(again)
    assert private_files.lock(tmp_path / "gone" / "lock", time.monotonic()) is None


def test_only_one_of_two_creates(tmp_path: Path):
    """The first content stays; no draft is left behind."""
    file = tmp_path / "token"
    assert [private_files.create(file, text) for text in (b"a", b"b")] == [True, False]
    assert private_files.read(file, 10) == b"a"
    private_files.write(file, b"c", durable=True)
    assert private_files.read(file, 10) == b"c"
    assert [each.name for each in tmp_path.iterdir()] == ["token"]


def test_what_another_user_could_have_written_is_not_read(tmp_path: Path):
    """A file that others can write, a link and a device are refused; a file beyond the limit is too long."""
    file = tmp_path / "token"
    private_files.write(file, b"abc")
    with pytest.raises(ValueError, match="3 bytes"):
        private_files.read(file, 2)
    (tmp_path / "link").symlink_to(file)
    with pytest.raises(OSError, match=r"symbolic link|Too many levels"):
        private_files.read(tmp_path / "link", 10)
    with pytest.raises(NotPrivateError):
        private_files.read(Path("/dev/null"), 10)
    file.chmod(0o622)
    with pytest.raises(NotPrivateError):
        private_files.read(file, 10)
