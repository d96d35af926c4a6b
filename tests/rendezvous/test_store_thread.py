"""Nobody waits longer for the ranks' store than it may, and what was given up is not made later."""

from __future__ import annotations

import threading
import time

import pytest

from pluto_dist.errors import ExchangeError
from pluto_dist.rendezvous.store_thread import HURRIED_SECONDS, StoreThread, answers_within


class SilentStore:
    """A store that answers once it is told to; ``made`` counts the calls that it was asked."""

    def __init__(self) -> None:
        self.stop, self.answers, self.made = threading.Event(), threading.Event(), 0
        self.thread = StoreThread(self.stop)

    def ask(self) -> int:
        return self.thread.call(self._answer)

    def _answer(self) -> int:
        self.made += 1
        self.answers.wait(60)
        return self.made


@pytest.fixture
def store():
    made = SilentStore()
    yield made
    made.answers.set()
    made.thread.close()


def in_background(store: SilentStore) -> tuple[threading.Thread, list[object]]:
    """A thread of ours that waits for the store, and what it got."""
    got: list[object] = []

    def ask() -> None:
        try:
            got.append(store.ask())
        except ExchangeError as error:
            got.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    return thread, got


def test_a_silence_is_waited_for_once(store):
    """The first caller waits for its limit, the next ones do not; when the store answers again, so are they."""
    for longest in (1.0, 0.4, 0.4):
        began = time.monotonic()
        with pytest.raises(ExchangeError, match=r"has not answered for 0\.\d s"), answers_within(0.5):
            store.ask()
        assert time.monotonic() - began < longest
    store.answers.set()
    assert store.ask() == 2  # those that were given up before they began are not made


def test_a_block_in_a_block_has_the_shorter_limit(store):
    """The end of a run, which is in a hurry, calls what is not."""
    with answers_within(0.2), answers_within(60), pytest.raises(ExchangeError, match="for 0"):
        store.ask()
    thread, got = in_background(store)  # outside of a block it waits
    thread.join(0.5)
    assert not got
    store.answers.set()
    thread.join(10)
    assert got == [2]


@pytest.mark.parametrize("end", ["stop", "close"])
def test_a_thread_of_ours_waits_until_the_end(store, end):
    """Without a limit it waits as long as it takes; the end of its rank's part, or of the store, ends that."""
    thread, got = in_background(store)
    thread.join(HURRIED_SECONDS + 0.5)
    assert thread.is_alive()
    store.stop.set() if end == "stop" else store.thread.close()
    thread.join(10)
    assert isinstance(got[0], ExchangeError)


def test_without_a_thread_the_caller_calls(monkeypatch):
    """A system that gives no thread does not take the store away."""
    monkeypatch.setattr(threading.Thread, "start", _refuse)
    thread = StoreThread(threading.Event())
    monkeypatch.undo()
    assert thread.call(threading.get_ident) == threading.get_ident()


def _refuse(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")
