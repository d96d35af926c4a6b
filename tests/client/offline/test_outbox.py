"""The requests of one process about one run go to the tracker one after the other."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from client.misbehaving import Exchange, Misbehaving, reply_json
from pluto_dist.client.offline.outbox import Outbox
from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract.run_ref import Reference, RunName
from pluto_dist.contract.run_requests import UpdateConfigRequest
from pluto_dist.contract.secret import Secret


def test_two_configs_are_not_sent_at_once(tmp_path: Path):
    """The hosted tracker loses keys of two configs that it merges at the same time."""
    now, most, lock = 0, 0, threading.Lock()

    def slow(exchange: Exchange) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.3)
        with lock:
            now -= 1
        reply_json({"success": True})(exchange)

    with Misbehaving(slow) as server:
        outbox = Outbox(tmp_path, RunName(server.url, "digits", Reference("external id", "x")), "launch")
        sent: list[bool] = []

        def send(n: int) -> None:
            client = TrackerClient(server.url, server.url, Secret("mlps_k"), user_agent="test")
            sent.append(outbox.send(client, UpdateConfigRequest(7, f'{{"key{n}": 1}}'), time.monotonic() + 30))
            client.close()

        threads = [threading.Thread(target=send, args=(n,)) for n in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert sent == [True] * 3
    assert most == 1
