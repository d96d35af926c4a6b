"""What an outage keeps: whole files, private, in order, sent once; whatever else is in the folder."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluto_dist import private_files
from pluto_dist.client.offline import queue
from pluto_dist.client.offline.entry import Entry, in_order
from pluto_dist.client.offline.outbox import Outbox
from pluto_dist.client.offline.queue import RunQueue, foreign, runs
from pluto_dist.contract.run_ref import Reference, RunName
from pluto_dist.contract.run_requests import CreateRunRequest, UpdateConfigRequest, UpdateStatusRequest

NAME = RunName("http://tracker", "digits", Reference("external id", "job-7"))
REQUESTS: dict[str, Any] = {
    "create": CreateRunRequest("ddp", "digits", "job-7", tags=("a",), config='{"lr": 1}', fork_step=3),
    "config": UpdateConfigRequest(0, '{"b": 2}'),
    "status": UpdateStatusRequest.of(7, "FAILED", {"reason": "boom", "host": "a", "at": 5.0}),
}


def entry(kind: Any = "create", at: int = 1, launch: str = "k3", name: RunName = NAME) -> Entry:
    return Entry(name, launch, kind, at, REQUESTS[kind], "key", "DIG-1")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "state" / "spool"


def files(root: Path) -> list[Path]:
    return [file for file in root.rglob("*") if file.is_file() and not file.name.startswith(".")]


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_request_comes_back_as_it_was(root, kind):
    """Another process finds the same entry, in a file and folders that only this user can read."""
    assert RunQueue(root, NAME).enqueue(entry(kind))
    (found,) = runs(root)
    ((again, file),) = found.entries()
    assert (found.name, again) == (NAME, entry(kind))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in (root, file.parent)} == {0o700}


@given(
    st.lists(
        st.tuples(st.sampled_from(["create", "config", "status"]), st.integers(0, 50), st.sampled_from("abc")),
        max_size=12,
    )
)
def test_the_order(kept):
    """A launch's requests stay together, creates before changes before the end, each kind by time."""
    ordered = in_order([entry(kind, at, launch) for kind, at, launch in kept])
    assert sorted(map(repr, ordered)) == sorted(repr(entry(*each)) for each in kept)
    kinds = ("create", "config", "status")
    launches = [each.launch for each in ordered]
    assert launches == sorted(launches, key=launches.index)
    for launch in set(launches):
        of_launch = [(kinds.index(each.kind), each.at) for each in ordered if each.launch == launch]
        assert of_launch == sorted(of_launch)


def test_a_clock_that_is_set_back(root, monkeypatch):
    """The entries of one process keep their order."""
    outbox = Outbox(root, NAME, "k3")
    for now in (2_000_000_000, 1_000_000_000, 1_500_000_000):
        monkeypatch.setattr(time, "time_ns", lambda now=now: now * 1_000_000_000)
        outbox.enqueue(UpdateConfigRequest(0, json.dumps({"at": now})))
    (found,) = runs(root)
    assert [json.loads(each.request.config)["at"] for each, _ in found.entries()] == [
        2_000_000_000,
        1_000_000_000,
        1_500_000_000,
    ]


def test_times_are_those_of_the_moment(root):
    """A run that is sent a day later began, and ended, when it did."""
    outbox, before = Outbox(root, NAME, "k3"), time.time() * 1000
    outbox.enqueue(CreateRunRequest("r", "digits"))
    outbox.enqueue(UpdateStatusRequest(0, "COMPLETED"))
    outbox.enqueue(CreateRunRequest("r", "digits", created_at=5))
    (found,) = runs(root)
    given_time, created, ended = (each.request for each, _ in found.entries())
    if given_time.created_at != 5:
        given_time, created = created, given_time
    assert given_time.created_at == 5
    assert before - 1 <= created.created_at <= ended.status_updated <= time.time() * 1000 + 10


FOREIGN = {
    "empty": b"",
    "no JSON": b"{",
    "another format": b'{"format": 2}',
    "a list": b"[]",
    "deep": b"[" * 100_000,
    "no UTF-8": b"\xff\xfe",
    "of another run": json.dumps(entry(name=RunName("http://x", "p", Reference("number", "3"))).to_json()).encode(),
    "wrong types": json.dumps({**entry().to_json(), "at": "now"}).encode(),
    "unknown kind": json.dumps({**entry().to_json(), "kind": "delete"}).encode(),
    "no request": json.dumps({**entry().to_json(), "request": {}}).encode(),
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_what_is_no_request_is_set_aside(root, content):
    """One warning names the file and where it went; what is good beside it is found."""
    spooled = RunQueue(root, NAME)
    spooled.enqueue(entry())
    (good,) = files(root)
    bad = good.with_name("0-bad.json")
    bad.write_bytes(content)
    bad.chmod(0o600)
    (found,) = runs(root)
    assert [each for each, _ in found.entries()] == [entry()]
    assert len(found.warnings) == 1
    assert str(bad) in found.warnings[0]
    assert (good.parent / "set-aside" / bad.name).read_bytes() == content
    assert [each for each, _ in found.entries()] == [entry()]
    assert len(found.warnings) == 1


def test_a_file_that_others_can_write_is_not_believed(root):
    RunQueue(root, NAME).enqueue(entry())
    (file,) = files(root)
    file.chmod(0o666)
    assert [each for spooled in runs(root) for each in spooled.entries()] == []


def test_links_are_not_followed(root, tmp_path):
    """Neither a link in the place of a file, nor one in that of a run's folder, nor one in that of the lock."""
    RunQueue(root, NAME).enqueue(entry())
    (file,) = files(root)
    secret = tmp_path / "secret.json"
    secret.write_text(json.dumps(entry().to_json()))
    secret.chmod(0o600)
    (file.parent / "1-link.json").symlink_to(secret)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "2.json").write_text(secret.read_text())
    (root / "linked").symlink_to(elsewhere)
    assert foreign(root) == [root / "linked"]
    (found,) = runs(root)
    assert [path for _, path in found.entries()] == [file]
    assert secret.exists()
    assert (elsewhere / "2.json").exists()
    lock = file.parent / queue.LOCK
    lock.unlink(missing_ok=True)
    lock.symlink_to(tmp_path / "made by nobody")
    with found.locked(0.1) as mine:
        assert mine
    assert not (tmp_path / "made by nobody").exists()


def test_a_folder_of_somebody_else_is_not_used(tmp_path):
    """What others can write into is refused for keeping, and what is kept stays in memory."""
    root = tmp_path / "spool"
    root.mkdir()
    root.chmod(0o777)
    spooled = RunQueue(root, NAME)
    assert spooled.enqueue(entry()) is False
    assert "only this user writes" in spooled.warnings[0]
    assert [each for each, _ in spooled.entries()] == [entry()]
    assert files(root) == []


def test_the_limit(root, monkeypatch):
    """Beyond the limit changes stay in memory; creates and ends are kept on disk up to twice as much."""
    monkeypatch.setattr(queue, "SPOOL_LIMIT", 1000)
    spooled = RunQueue(root, NAME)
    kept = {kind: [spooled.enqueue(entry(kind, at)) for at in range(10)] for kind in ("config", "create")}
    assert True in kept["config"]
    assert kept["config"][-1] is False
    assert kept["create"][0] is True
    assert kept["create"][-1] is False
    assert "pluto-dist sync" in spooled.warnings[0]
    assert len(spooled.entries()) == 20


def test_a_disk_that_is_full(tmp_path):
    """Nothing half is left behind, and the request stays in memory."""
    if os.geteuid() != 0:
        pytest.skip("mounts a small disk: run it as root")
    root = tmp_path / "disk"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", str(root)], check=True)
    try:
        (root / "filler").write_bytes(b"x" * 60_000)
        spooled = RunQueue(root / "spool", NAME)
        large = Entry(NAME, "k3", "config", 1, UpdateConfigRequest(0, json.dumps("x" * 50_000)))
        assert spooled.enqueue(large) is False
        assert spooled.warnings == ["No space left on device"]
        assert [each for each, _ in spooled.entries()] == [large]
        assert list((root / "spool").rglob("*.json")) == []
        assert not any(file.name.startswith(private_files.DRAFT_PREFIX) for file in (root / "spool").rglob("*"))
    finally:
        subprocess.run(["umount", "-l", str(root)], check=True)


def _hold(root: Path, ready: Any, end: Any) -> None:
    with RunQueue(root, NAME).locked(5) as mine:
        ready.set() if mine else None
        end.wait(120)


def test_one_sender_at_a_time(root):
    """The lock is another process's until that ends, also by SIGKILL; an empty run leaves no folder behind."""
    spooled = RunQueue(root, NAME)
    spooled.enqueue(entry())
    context = multiprocessing.get_context("spawn")
    ready, end = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(root, ready, end))
    holder.start()
    assert ready.wait(120)
    with spooled.locked(0.2) as mine:
        assert mine is False
    os.kill(holder.pid, signal.SIGKILL)
    holder.join(10)
    with spooled.locked(5) as mine:
        assert mine is True
        for each, file in spooled.entries():
            spooled.remove(each, file)
    assert list(root.iterdir()) == []


WRITER = """
import sys, pathlib
from pluto_dist.identity import Reference
from pluto_dist.client.offline.outbox import Outbox
from pluto_dist.contract.run_ref import RunName
from pluto_dist.contract.run_requests import UpdateConfigRequest
outbox = Outbox(pathlib.Path(sys.argv[1]), RunName("http://tracker", "digits", Reference("external id", "job-7")), "k3")
for n in range(int(sys.argv[2])):
    outbox.enqueue(UpdateConfigRequest(0, '{"n": %d}' % n))
"""


def test_writers_and_a_sender_at_once(root):
    """A sender that empties the folder again and again takes every request once, while others write."""
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(root), "60"]) for _ in range(2)]
    taken: list[int] = []
    spooled = RunQueue(root, NAME)
    while any(writer.poll() is None for writer in writers) or not spooled.is_empty:
        with spooled.locked(5) as mine:
            assert mine
            for each, file in spooled.entries():
                taken.append(json.loads(each.request.config)["n"])
                spooled.remove(each, file)
    assert sorted(taken) == sorted([*range(60), *range(60)])
    assert spooled.warnings == []


@contextmanager
def no_descriptor() -> Iterator[None]:
    """No file can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_process_without_descriptors_leaves_what_is_kept(root):
    """Nothing is raised, and no request is set aside for what the process lacks."""
    kept = RunQueue(root, NAME)
    assert kept.enqueue(entry())
    ((_, file),) = kept.entries()
    with no_descriptor():
        assert kept.entries() == []
        assert not kept.enqueue(entry("config"))
        with kept.locked(0) as mine:
            assert not mine
    assert file.exists() and not any("set aside" in warning for warning in kept.warnings)
    assert [found.kind for found, _ in kept.entries()] == ["create", "config"]


def test_what_was_sent_and_cannot_be_removed_is_not_sent_again_by_this_process(root, monkeypatch):
    """On a disk that has become read-only it stays, for a later process, and is no longer listed."""
    kept = RunQueue(root, NAME)
    kept.enqueue(entry())
    ((found, file),) = kept.entries()

    def unlink(self: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    monkeypatch.setattr(Path, "unlink", unlink)
    kept.remove(found, file)
    assert kept.entries() == []
    assert [each for each, _ in RunQueue(root, NAME).entries()] == [entry()]
    (warning,) = kept.warnings
    assert "Read-only file system" in warning
