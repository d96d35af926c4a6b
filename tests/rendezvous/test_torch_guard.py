"""The end of a process while a thread of ours is busy in torch: quiet, and with its own exit code."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

# Python finalises for half a second, as a big program does, while the thread would go in and out of torch.
PROGRAM = """
    import sys, threading, time
    from contextlib import suppress
    from torch.distributed import TCPStore
    import pluto_dist.lifecycle.exit_hooks
    from pluto_dist.errors import ExchangeError
    from pluto_dist.rendezvous.node_state import NodeState
    from pluto_dist.environments import LaunchContext
    from pluto_dist.rendezvous.connect import connect
    from pluto_dist.environments.topology import Topology

    server = TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
    launch = LaunchContext("torchrun", Topology(0, 2), store_address=("127.0.0.1", server.port))

    def join():
        return connect(launch, NodeState(None), "slot", deadline=time.monotonic() + 60)

    def look(store=join()):
        store.get("missing")

    def for_ever(act):
        with suppress(ExchangeError):  # what ends a rank's thread
            while True:
                act()
                busy.set()

    class SlowToGo:
        def __del__(self, sleep=time.sleep):
            sleep(0.5)

    last, busy = SlowToGo(), threading.Event()
    threading.Thread(target=for_ever, args=({act},), daemon=True).start()
    busy.wait(60)
    sys.exit(7)
"""


@pytest.mark.parametrize("act", ["look", "join"])
def test_a_busy_thread_does_not_abort_the_process(act):
    """A look at the store, or a new connection, has come back before Python finalises, and no other begins."""
    program = textwrap.dedent(PROGRAM).replace("{act}", act)
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 7, ended.stderr
    assert ended.stderr == ""


def test_a_forked_child_is_not_held_up():
    """A child forked while a thread is inside ends at once, and may call torch itself."""
    program = textwrap.dedent("""
        import os, threading, time
        from pluto_dist.rendezvous import torch_guard

        def stay():
            with torch_guard.torch_call():
                inside.set()
                time.sleep(120)

        inside = threading.Event()
        threading.Thread(target=stay, daemon=True).start()
        inside.wait(60)
        if os.fork() == 0:
            os._exit(0 if torch_guard.close(0) else 1)
        _, status = os.wait()
        print("child", os.waitstatus_to_exitcode(status), "parent", torch_guard.close(0.1))
    """)
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert ended.stdout == "child 0 parent False\n", ended.stderr
