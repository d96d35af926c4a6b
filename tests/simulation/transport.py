"""Transports of the simulated processes: HTTP to the tracker, and the store that the ranks of a launch share.

What a request meets is decided when it is sent, by :class:`Weather`. A request that was sent may be executed although
its sender has died or has given up.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import BaseAdapter
from urllib3 import HTTPResponse

from pluto_dist.client.tracker_client import HEARTBEAT_PATH
from pluto_dist.contract.secret import Secret
from pluto_dist.errors import ExchangeError, NoSharedRunError
from pluto_dist.rendezvous.connect import CONNECT_SECONDS
from pluto_dist.rendezvous.store import LocalStore
from pluto_dist.rendezvous.store_thread import StoreSilentError, patience
from simulation.kernel import EPOCH, Process, World
from simulation.tracker import PY_PORT, WEB_PORT, Reply, Tracker

GIVE_UP_EVERY = 0.1  # seconds between two looks whether a call of a store is to be given up
GARBAGE = Reply(200, (("Content-Type", "text/html"),), b"<html>Welcome to the captive portal</html>")


@dataclass
class Weather:
    """What requests to the tracker meet, and when.

    Attributes:
        spells: (from, to, what, which part of the requests); see :meth:`Network.send` for what there is.
    """

    spells: list[tuple[float, float, str, float]] = field(default_factory=list)

    def at(self, world: World, *, is_heartbeat: bool) -> tuple[str, float]:
        """What a request meets that is sent now, and when that is over."""
        in_order = sorted(
            self.spells, key=lambda spell: spell[2] != "late"
        )  # while a tracker stalls, nothing overtakes
        for begin, end, what, part in in_order:
            if what == "no heartbeats":
                if begin <= world.now < end and is_heartbeat:
                    return "refuse", end
            elif begin <= world.now < end and (what == "late" or world.random.random() < part):
                return what, end
        return "fair", 0.0


class Network:
    """HTTP between the hosts and the tracker."""

    def __init__(self, world: World, tracker: Tracker, weather: Weather) -> None:
        self.world, self.tracker, self.weather = world, tracker, weather
        self.cut_hosts: list[tuple[float, float, str]] = []  # hosts that do not reach the tracker: from, to, name

    def _latency(self) -> float:
        chance = self.world.random
        return 0.001 + chance.expovariate(200.0) + (chance.uniform(0, 0.5) if chance.random() < 0.02 else 0.0)

    def _too_many(self) -> Reply:
        after = self.world.random.choice(("", "", "1", "7"))
        return Reply(429, (("Retry-After", after),) if after else (), b'{"error": "Too many requests"}')

    def send(self, method: str, url: str, headers: dict[str, str], body: bytes, seconds: float) -> Reply:
        """The answer to a request.

        Raises:
            requests.RequestException: there is none.
        """
        world = self.world
        assert world.task is not None
        process = world.task.process
        world.operation("http")
        parts = urlsplit(url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        port = PY_PORT if parts.port == PY_PORT else WEB_PORT
        what, over = self.weather.at(world, is_heartbeat=parts.path == HEARTBEAT_PATH)
        if any(begin <= world.now < end and name == process.host.name for begin, end, name in self.cut_hosts):
            what = "unreachable"
        if what != "fair":
            world.tell(process.name, f"{method} {target[:60]}: {what}")
        wake, sent = world.waker(), world.now

        def execute(answered: Callable[[Reply], None]) -> None:
            self.tracker.handle(method, target, port, headers, body, answered, process.name, sent)

        def answer_with(found: Reply) -> None:
            world.tell(process.name, f"{method} {target[:60]} {_shown(body)} -> {found.status}")
            reply(found)

        def reply(found: Reply) -> None:
            world.after(self._latency(), lambda: wake(found))

        # "late": a tracker that stalls executes what has come, in that order, once it does so no more.
        # "twice": a proxy repeats it. "stall" and "unreachable": nothing happens.
        effects: dict[str, Callable[[], None]] = {
            "fair": lambda: execute(answer_with),
            "twice": lambda: execute(lambda _: execute(answer_with)),
            "refuse": lambda: wake("refused"),
            "429": lambda: reply(self._too_many()),
            "500": lambda: reply(Reply(500, (), b'{"error": "Internal Server Error"}')),
            "500 after": lambda: execute(lambda _: reply(Reply(500, (), b'{"error": "oops"}'))),
            "garbage": lambda: reply(GARBAGE),
            "cut": lambda: execute(lambda _: wake("cut")),
        }
        if what == "late":
            world.at_once(over, effects["fair"])
        elif what in effects:
            world.after(self._latency(), effects[what])
        answer = world.block(seconds)
        if isinstance(answer, Reply):
            return answer
        if answer == "refused":
            raise requests.ConnectionError("Connection refused")
        if answer == "cut":
            raise requests.exceptions.ChunkedEncodingError("Connection broken: IncompleteRead")
        raise requests.ReadTimeout("Read timed out")


def _shown(body: bytes) -> str:
    return body.decode(errors="replace")[:100] if body else ""


class Adapter(BaseAdapter):
    """The adapter of a client's session, in place of ``client.deadline.DeadlineAdapter``."""

    network: Network

    def __init__(self, key: Secret) -> None:
        super().__init__()
        self._key = key

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        until = time.monotonic() + seconds
        yield
        if time.monotonic() > until:
            raise TimeoutError(f"no whole answer within {seconds:.1f} s")

    def send(self, request: requests.PreparedRequest, *args: Any, timeout: Any = None, **kwargs: Any) -> Any:
        body = request.body or b""
        body = body.encode() if isinstance(body, str) else body
        headers = {**request.headers, "Authorization": f"Bearer {self._key.reveal()}"}
        found = self.network.send(request.method or "", request.url or "", headers, body, timeout)
        response = requests.Response()
        response.status_code, response.url, response.request = found.status, request.url or "", request
        response.headers.update(found.headers)
        world = self.network.world
        response.headers["Date"] = formatdate(EPOCH + world.tracker_clock(world.now), usegmt=True)
        response.raw = HTTPResponse(io.BytesIO(found.content), preload_content=False, decode_content=False)
        return response

    def close(self) -> None:
        """There is no connection."""


# The store.


class StoreServer:
    """The server of one store: its keys, which end with its process."""

    def __init__(self, world: World, owner: Process | None) -> None:
        self.world, self.owner = world, owner
        self.values: dict[str, str] = {}
        self._waiting: dict[str, list[Callable[[], None]]] = {}

    @property
    def is_up(self) -> bool:
        return self.owner is None or self.owner.is_alive

    def when_served(self, action: Callable[[], None]) -> None:
        """Do ``action`` once the server runs; while it is stopped, it waits."""
        frozen = 0.0 if self.owner is None else self.owner.frozen_until
        self.world.at(frozen, action) if frozen > self.world.now else action()

    def changed(self, key: str) -> None:
        for wake in self._waiting.pop(key, ()):
            wake()

    def await_key(self, key: str, action: Callable[[], None]) -> None:
        self._waiting.setdefault(key, []).append(action)


class StoreClient:
    """A rank's client of a store, in place of ``rendezvous.store.TorchStore``."""

    def __init__(
        self,
        world: World,
        server: StoreServer,
        partition: Callable[[], tuple[float, str] | None],
        stop: threading.Event,
    ) -> None:
        self._world, self._server, self._partition = world, server, partition
        self._stop = stop
        self._is_closed = False
        self._in_progress: list[float] = []  # when the calls began that have no answer yet

    def compare_set(self, key: str, expected: str, desired: str) -> str:
        def apply(values: dict[str, str]) -> str:
            if values.get(key, "") == expected:
                values[key] = desired
                self._server.changed(key)
            return values.get(key, "")

        return str(self._call(apply))

    def set(self, key: str, value: str) -> None:
        def apply(values: dict[str, str]) -> None:
            values[key] = value
            self._server.changed(key)

        self._call(apply)

    def get(self, key: str, seconds: float = 0.0) -> str | None:
        world = self._world
        until = world.now + seconds
        while True:
            found: str | None = self._call(lambda values: values.get(key))
            left = until - world.now
            if found is not None or left <= 0:
                return found
            self._server.await_key(key, world.waker())
            world.block(min(left, 2.0))

    def get_all(self, keys: Sequence[str]) -> list[str | None]:
        found: list[str | None] = self._call(lambda values: [values.get(key) for key in keys])
        return found

    def add(self, key: str, amount: int) -> int:
        def apply(values: dict[str, str]) -> int | None:
            try:
                total = int(values.get(key, "0")) + amount
            except ValueError:
                return None
            if amount:
                values[key] = str(total)
                self._server.changed(key)
            return total

        total = self._call(apply)
        if total is None:
            raise ExchangeError("the store that the ranks share is gone: Broken pipe")
        return int(total)

    def close(self) -> None:
        self._is_closed = True

    def _call(self, apply: Callable[[dict[str, str]], Any]) -> Any:
        if self._is_closed:
            raise ExchangeError("this rank has left the store that the ranks share")
        world, server = self._world, self._server
        world.operation("store")
        answers: list[Any] = []
        wakers = [world.waker()]

        def wake(answer: Any) -> None:
            answers.append(answer)
            wakers[-1]()

        chance = world.random
        latency = 0.0002 + chance.expovariate(3000.0) + (chance.uniform(0, 0.2) if chance.random() < 0.01 else 0.0)

        def arrive() -> None:
            if partition := self._partition():
                over, how = partition
                world.at(over, arrive) if how == "drop" else wake(None)
                return

            def serve() -> None:
                if server.is_up:
                    found = apply(server.values)
                    world.after(latency / 2, lambda: wake((found,)))
                else:
                    wake(None)

            server.when_served(serve)

        world.after(latency / 2, arrive)
        answer = self._await(answers, wakers)
        if answer is None:
            raise ExchangeError("the store that the ranks share is gone: Connection reset by peer")
        return answer[0]

    def _await(self, answers: list[Any], wakers: list[Callable[..., None]]) -> Any:
        """The answer; as ``rendezvous.store_thread.StoreThread`` gives up a store that is silent."""
        world = self._world
        self._in_progress.append(world.now)
        began = world.now
        try:
            while True:
                world.block(GIVE_UP_EVERY)
                if answers:
                    return answers[0]
                if self._is_closed or world.now - min(self._in_progress) > patience(self._stop):
                    raise StoreSilentError("the store that the ranks share has not answered")
                wakers.append(world.waker())
        finally:
            self._in_progress.remove(began)


class Stores:
    """The stores that can be reached, by address.

    Attributes:
        partitions: (from, to, name of the host, "drop" or "reset").
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.servers: dict[tuple[str, int], StoreServer] = {}
        self.partitions: list[tuple[float, float, str, str]] = []

    def _partition(self, one: str, other: str) -> tuple[float, str] | None:
        """Until when two hosts do not reach each other, and how that shows; ``None`` if they do."""
        for begin, end, name, how in self.partitions:
            if begin <= self.world.now < end and one != other and name in (one, other):
                return end, how
        return None

    def connect(self, context: Any, folder: Any, slot: str, *, deadline: float, stop: Any = None) -> Any:
        """``rendezvous.connect.connect``, by the addresses that the launch gives."""
        world, topology = self.world, context.topology
        assert world.task is not None
        process = world.task.process
        address = context.store_address or context.hosted_address
        if context.store_address is None and topology.world_size == 1:
            return LocalStore()
        if address is None:
            raise NoSharedRunError("the ranks have no store in common")
        if context.store_address is None and topology.is_rank_zero:
            held = self.servers.get(address)
            if held is None or not held.is_up:
                self.servers[address] = StoreServer(world, process)
            process.state["hosts a store"] = True
        while True:
            world.operation("connect")
            server = self.servers.get(address)
            partition = self._partition(process.host.name, address[0])
            if partition and partition[1] == "drop" and context.store_address is not None:
                self.world.sleep(max(1.0, min(CONNECT_SECONDS, deadline - time.monotonic())))
                raise ExchangeError(f"the ranks' shared store did not answer at {address}: timed out")
            if server is not None and server.is_up and not partition:
                reach = partial(self._partition, process.host.name, address[0])
                client = StoreClient(world, server, reach, stop or threading.Event())
                if context.store_address is not None or self._has_seat(client, context, slot):
                    return client
            elif context.store_address is not None:
                raise ExchangeError(f"the ranks' shared store did not answer at {address}: Connection refused")
            if time.monotonic() + 0.2 >= deadline or (stop is not None and stop.wait(0.2)):
                raise ExchangeError(f"rank 0 did not host {address} in time")

    def _has_seat(self, client: StoreClient, context: Any, slot: str) -> bool:
        return client.compare_set(f"seat/{context.topology.rank}", "", slot) == slot

    def hosts_a_store(self) -> bool:
        task = self.world.task
        return task is not None and bool(task.process.state.get("hosts a store"))
