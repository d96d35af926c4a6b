"""The store in a file in memory: real processes on one file. torch's own stores are tested with ``connect``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from pluto_dist.errors import ExchangeError
from pluto_dist.rendezvous.file_store import FileStore

WRITER = """
import sys
from pluto_dist.rendezvous.file_store import FileStore
store = FileStore.open(sys.argv[1])
first = store.compare_set("first", "", sys.argv[2])
for _ in range(200):
    store.add("count", 1)
    store.set("last", "x" * 1000)
print(first, store.get("from the parent", 30))
"""


def made() -> FileStore:
    store = FileStore.create()
    assert store is not None
    return store


def test_processes_on_one_store():
    """Of several processes one wins a compare_set, no addition is lost, and a waiting reader sees what is set."""
    store = made()
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, store.path, str(n)], stdout=subprocess.PIPE, text=True)
        for n in range(4)
    ]
    store.set("from the parent", "hello")
    told = [writer.communicate(timeout=60)[0].split() for writer in writers]
    assert store.add("count", 0) == 800
    assert {tuple(each) for each in told} == {(store.get("first"), "hello")}
    assert store.get_all(["last", "nothing"]) == ["x" * 1000, None]


def test_a_process_that_is_killed_while_it_writes():
    """Half a line is no message, and the next writer replaces it."""
    store = made()
    store.set("a", "1")
    with open(store.path, "r+b", buffering=0) as file:  # noqa: PTH123  # a descriptor's path
        file.seek(0, os.SEEK_END)
        file.write(b'["b", "half of a long va')
    other = FileStore.open(store.path)
    assert other.get_all(["a", "b"]) == ["1", None]
    other.set("b", "2")
    assert store.get("b") == "2"


def test_the_process_that_made_it_has_ended():
    """There is no run to join then."""
    child = [sys.executable, "-c", "from pluto_dist.rendezvous.file_store import *; print(FileStore.create().path)"]
    path = subprocess.run(child, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    with pytest.raises(ExchangeError, match="has ended"):
        FileStore.open(path)


def test_a_process_that_stops_while_it_holds_the_lock(monkeypatch):
    """Nobody waits for it longer than the limit: each goes on with what it knows."""
    monkeypatch.setattr("pluto_dist.rendezvous.file_store.LOCK_SECONDS", 0.2)
    store = made()
    store.set("a", "1")
    hold = "import fcntl, os, sys, time\nfcntl.flock(os.open(sys.argv[1], os.O_RDWR), 2)\nprint(1, flush=True)\n"
    hold += "time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", hold, store.path], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    holder.stdout.readline()
    holder.send_signal(signal.SIGSTOP)
    assert store.get("a") == "1"
    assert store.add("b", 2) == 2
    assert store.path == ""
    holder.kill()
    holder.communicate(timeout=30)


def test_a_script_that_closes_every_descriptor(tmp_path):
    """A file that the script opens under the same number is never written to."""
    store = made()
    store.set("a", "1")
    number = int(store.path.rpartition("/")[2])
    mine = tmp_path / "mine"
    mine.write_text("the script's own")
    opened = os.open(mine, os.O_RDWR)
    os.dup2(opened, number)
    os.close(opened)
    store.set("b", "2")
    assert store.get_all(["a", "b"]) == ["1", "2"]
    assert mine.read_text() == "the script's own"
    os.close(number)
