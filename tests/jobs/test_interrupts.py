"""Ctrl-C and SIGTERM end a rank at once, whatever ``init()`` or ``finish()`` is waiting for."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta

import pytest
from test_ways_to_start import free_port

pytestmark = [pytest.mark.multiprocess, pytest.mark.both_trackers]

RANK = """
import os, sys
import torch.distributed
import pluto_dist, pluto_dist.api
print("ready", flush=True)
run = pluto_dist.init(project="interrupted", timeout=60)
print("joined", flush=True)
run.finish()
print("finished", flush=True)
"""
HANDLED = """
import os, threading, time
import torch.distributed
import pluto_dist, pluto_dist.api
print("ready", flush=True)
try:
    run = pluto_dist.init(project="interrupted", timeout=60)
except KeyboardInterrupt:
    began = time.monotonic()
while any(thread.name.startswith("pluto_dist") for thread in threading.enumerate()):
    time.sleep(0.05)
print(f"alone after {time.monotonic() - began:.1f} s", flush=True)
run = pluto_dist.init(project="interrupted", timeout=2)
run.finish()
print("finished", flush=True)
"""
WORKER = {
    "TORCHELASTIC_RUN_ID": "none",
    "TORCHELASTIC_RESTART_COUNT": "0",
    "WORLD_SIZE": "2",
    "LOCAL_WORLD_SIZE": "1",
    "MASTER_ADDR": "127.0.0.1",
}


@contextmanager
def agents_store() -> Iterator[dict[str, str]]:
    """A store as torchrun's agent hosts it."""
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, None, True, timedelta(seconds=60), wait_for_workers=False)
    yield WORKER | {"TORCHELASTIC_USE_AGENT_STORE": "True", "MASTER_PORT": str(store.port), "GROUP_WORLD_SIZE": "1"}
    del store


@contextmanager
def deaf(backlog: int) -> Iterator[int]:
    """A port that accepts connections and never speaks, or (with a full backlog) does not even accept."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(backlog)
        if backlog == 0:
            for _ in range(4):
                filler = stack.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@contextmanager
def rank_0_that_never_hosts() -> Iterator[dict[str, str]]:
    yield {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}


@contextmanager
def store_that_does_not_accept() -> Iterator[dict[str, str]]:
    with deaf(0) as port:
        yield WORKER | {"TORCHELASTIC_USE_AGENT_STORE": "True", "RANK": "1", "MASTER_PORT": str(port)}


@contextmanager
def store_that_never_speaks() -> Iterator[dict[str, str]]:
    with deaf(8) as port:
        yield WORKER | {"TORCHELASTIC_USE_AGENT_STORE": "True", "RANK": "1", "MASTER_PORT": str(port)}


@contextmanager
def other_node_that_never_calls() -> Iterator[dict[str, str]]:
    with agents_store() as environ:
        yield environ | {"RANK": "1", "GROUP_RANK": "1", "GROUP_WORLD_SIZE": "2"}


@contextmanager
def leader_that_is_silent() -> Iterator[dict[str, str]]:
    with agents_store() as environ:
        yield environ | {"RANK": "1", "GROUP_RANK": "0"}


@contextmanager
def tracker_that_never_answers() -> Iterator[dict[str, str]]:
    with agents_store() as environ, deaf(8) as port:
        yield environ | {"RANK": "0", "GROUP_RANK": "0", "PLUTO_URL_API": f"http://127.0.0.1:{port}"}


WAITS: dict[str, Callable[[], object]] = {
    "rank 0 hosts no store": rank_0_that_never_hosts,
    "the store does not accept": store_that_does_not_accept,
    "the store never speaks": store_that_never_speaks,
    "the other node never calls": other_node_that_never_calls,
    "the leader is silent": leader_that_is_silent,
    "the tracker never answers": tracker_that_never_answers,
}


def interrupted(
    environ: dict[str, str], number: signal.Signals, after: str, script: str = RANK
) -> tuple[float, int, str]:
    """A rank that waits after it said ``after``: seconds from the signal to its end, exit code, output."""
    base = {name: value for name, value in os.environ.items() if not name.startswith("PLUTO_")}
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env=base | {"RES_OPTIONS": "attempts:0", "PLUTO_API_KEY": "k", "PLUTO_URL_API": "http://127.0.0.1:9"} | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        while after not in (line := process.stdout.readline()):
            assert line, "it ended before"
        time.sleep(1.5)
        assert process.poll() is None, "it does not wait"
        began = time.monotonic()
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
        return time.monotonic() - began, process.returncode, output
    finally:
        process.kill()
        process.communicate(timeout=60)


ALWAYS = ("the store never speaks", "the tracker never answers")


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize(
    "wait",
    [pytest.param(WAITS[name], id=name, marks=() if name in ALWAYS else pytest.mark.exhaustive) for name in WAITS],
)
def test_a_signal_ends_init(wait, number):
    """Within 5 s, by the signal, with nothing but Python's own traceback."""
    with wait() as environ:
        seconds, code, output = interrupted(environ, number, after="ready")
    assert seconds < 5, output
    assert code == -number
    assert "joined" not in output
    assert ("KeyboardInterrupt" in output) == (number == signal.SIGINT)


def test_an_interrupted_init_leaves_nobody_behind(tracker):
    """A script that handles ctrl-C in init() goes on without a thread of that, and its next run is another one.

    The thread waits for the other node, and would create the run after some seconds.
    """
    with agents_store() as environ:
        place = environ | tracker.environ() | {"RANK": "0", "GROUP_RANK": "0", "GROUP_WORLD_SIZE": "2"}
        _, code, output = interrupted(place, signal.SIGINT, after="ready", script=HANDLED)
    assert code == 0, output
    assert float(output.partition("alone after ")[2].split()[0]) < 3, output
    assert [run["status"] for run in tracker.runs("interrupted")] == ["TERMINATED", "COMPLETED"]


def test_a_signal_ends_finish(tracker):
    """A leader that waits for a rank which never comes is ended by ctrl-C."""
    with agents_store() as environ:
        place = environ | tracker.environ() | {"RANK": "0", "GROUP_RANK": "0"}
        seconds, code, output = interrupted(place, signal.SIGINT, after="joined")
    assert seconds < 5, output
    assert code == -signal.SIGINT
    assert "finished" not in output
    assert [run["status"] for run in tracker.runs("interrupted")] == ["TERMINATED"]
