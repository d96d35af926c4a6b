"""Threads that a process can do without."""

from __future__ import annotations

import threading

import pytest

from pluto_dist.background import start_thread, started
from pluto_dist.client.deadline import DeadlineAdapter
from pluto_dist.settings.keychain import stored_key


@pytest.fixture
def no_thread(monkeypatch: pytest.MonkeyPatch):
    """The next thread cannot be started: its stack is larger than what can be mapped."""
    before = threading.stack_size(1 << 47)
    yield
    threading.stack_size(before)


def test_a_thread():
    """It is started, and a daemon."""
    done: list[int] = []
    thread = start_thread(done.append, "pluto_dist test", 7)
    assert thread is not None and thread.daemon
    thread.join(30)
    assert done == [7]


@pytest.mark.usefixtures("no_thread")
def test_no_thread_to_be_had():
    """Nothing is raised; what needs a thread does without it."""
    assert start_thread(print, "pluto_dist test") is None
    assert not started(threading.Timer(1, print))
    with DeadlineAdapter().within(5):
        pass
    assert stored_key() is None
