"""A process's session: a store that another one replaces is closed, and its thread ends."""

from __future__ import annotations

import threading
import time

from pluto_dist.environments.context import LaunchContext
from pluto_dist.environments.topology import Topology
from pluto_dist.rendezvous.session import Session


def threads() -> int:
    return sum(thread.name == "pluto_dist store" for thread in threading.enumerate())


def test_a_process_that_registers_again_has_one_store():
    """However often it does, one connection and one thread are left; after the end, none."""
    from torch.distributed import TCPStore

    server = TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
    context = LaunchContext("torchrun", Topology(0, 2), store_address=("127.0.0.1", server.port))
    before, session = threads(), Session()
    for _ in range(3):
        membership = session.connect(context, "host", deadline=time.monotonic() + 30, stop=threading.Event())
    until = time.monotonic() + 30
    while threads() > before + 1 and time.monotonic() < until:
        time.sleep(0.02)
    assert threads() == before + 1
    assert membership.store.get("attempt") == "0"
    membership.store.close()
    while threads() > before and time.monotonic() < until:
        time.sleep(0.02)
    assert threads() == before
