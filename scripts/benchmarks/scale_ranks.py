"""The processes of the benchmark ``scale``: the store, rank 0, and crowds of hundreds of ranks each.

    python scale_ranks.py CROWDS

One process loads torch, collects this machine's inventory and forks the others. Every rank has a client of the
store of its own and does what ``lifecycle`` has a rank do, by the package's own functions, but for two things,
because one process cannot give each of hundreds of ranks a thread that polls: one thread looks for one rank after
the other whether the outcome is there, and of a node only the first rank to sign in, which may have to wait
for the other nodes, has a thread for that.
"""

from __future__ import annotations

import dataclasses
import gc
import os
import resource
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch.distributed as dist
from ranks import Task, serve

from pluto_dist import environments, identity
from pluto_dist.client import rate_limit
from pluto_dist.client.offline.outbox import Outbox
from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract.run_requests import CreateRunRequest, CreateRunResponse
from pluto_dist.inventory.probes.collect import collect
from pluto_dist.inventory.records import Gpu, GpuReport, NodeInventory, Process
from pluto_dist.lifecycle.agreement import agree
from pluto_dist.lifecycle.attach import attach
from pluto_dist.lifecycle.context import RankContext
from pluto_dist.lifecycle.election import create_as_owner, elect
from pluto_dist.lifecycle.inventory_gather import GATHER_SECONDS, gather
from pluto_dist.lifecycle.participant import TOKEN_SECONDS
from pluto_dist.lifecycle.plan import Plan
from pluto_dist.rendezvous import store
from pluto_dist.rendezvous.membership import Membership
from pluto_dist.rendezvous.messages import Member, Outcome, load
from pluto_dist.rendezvous.node_state import NodeState
from pluto_dist.settings.arguments import Arguments, resolve

HOST = "127.0.0.1"
LIMIT = 90.0  # seconds, of everything that waits
WARM_UP = 0.4  # seconds that the ranks already look when the bare store's key is set
SAMPLE = 8  # ranks that wait as the package has them wait


class Ledger:
    """What went to the store: requests by name, and under each key the bytes of key and value that it was left with."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.kept: dict[str, int] = {}
        self.published = 0.0  # when the outcome was sent
        self._lock = threading.Lock()

    def note(self, method: str, arguments: tuple[Any, ...], value: Any) -> None:
        with self._lock:
            self.requests[method] += 1
            if method == "set":
                self._keep(arguments[0], arguments[1])
            elif method == "add":
                self._keep(arguments[0], str(value))
            elif method == "compare_set" and value == arguments[2].encode():
                self._keep(arguments[0], arguments[2])

    def _keep(self, key: str, value: str) -> None:
        self.kept[key] = len("pluto_dist/") + len(key) + len(value)


class CountingStore(store.TorchStore):
    """The package's store, which writes each of its requests into a ledger."""

    def __init__(self, client: dist.Store, world_size: int, ledger: Ledger) -> None:
        super().__init__(client, world_size)
        self._ledger = ledger

    def _call(self, method: str, *arguments: Any) -> Any:
        if method == "compare_set" and arguments[0].endswith("/outcome"):
            self._ledger.published = time.monotonic()
        value = super()._call(method, *arguments)
        self._ledger.note(method, arguments, value)
        return value


class TimedClient(TrackerClient):
    """The package's client, which notes when its create-run call began and ended."""

    began = ended = 0.0
    metadata = 0

    def create(self, request: CreateRunRequest, *, deadline: float, retry: bool = True) -> CreateRunResponse:
        self.metadata = len(request.system_metadata or "")
        self.began = time.monotonic()
        answer = super().create(request, deadline=deadline, retry=retry)
        self.ended = time.monotonic()
        return answer


class Attach(NamedTuple):
    """One rank's attach: when its queue began, when its ticket was due, when it was sent, whether it was answered."""

    began: float
    due: float
    sent: float
    answered: bool


@dataclass
class Rank:
    """One simulated rank, and how far it has come in this round's launch."""

    client: dist.Store
    plan: Plan
    member: Member
    inventory: dict[str, Any] | None
    folder: NodeState = dataclasses.field(default_factory=lambda: NodeState(None))
    context: RankContext | None = None
    text: str | None = None
    outcome: Outcome | None = None

    @property
    def number(self) -> int:
        return self.member.rank

    def join(self, shared: store.Store) -> None:
        """Register and agree, as ``Participant`` does; the inventory is there as soon as the id is agreed."""
        patience = min(TOKEN_SECONDS, self.plan.settings.timeout / 4)
        plan = self.plan = dataclasses.replace(self.plan, started=time.monotonic())
        membership = Membership(shared, self.member, self.folder)
        token = membership.agree_on_token(plan.topology.node_count, patience)
        channel = membership.run(plan.nth)
        agreed = agree(plan, channel, token)
        outbox = Outbox(None, plan.run_name(agreed.reference), token)
        self.context = RankContext(plan, membership, channel, agreed, None, outbox, threading.Event())
        channel.count("joined")
        if membership.is_node_leader and self.inventory is not None:
            membership.views()  # torchrun's workers have published none
            membership.publish_inventory(self.inventory)

    def has_answer(self, key: str) -> bool:
        """Look once whether the run's outcome is there, without reading it."""
        self.text = self.context.membership.store.get(key)
        return self.text is not None

    def read(self) -> float:
        """Read the answer and remember it; the CPU seconds it took."""
        began = time.thread_time()
        self.outcome = load(self.text or "", Outcome.from_json, "the outcome")
        self.context.channel.remember(self.outcome, in_store=False)
        return time.thread_time() - began


class Crowd:
    """One process full of ranks."""

    def __init__(self, name: str, inventory: NodeInventory) -> None:
        self.name = name
        self.ranks: list[Rank] = []
        self._template = inventory
        self._ledger: Ledger | None = None
        self._stop = threading.Event()
        self._attaching: list[threading.Thread] = []
        self._attaches: list[Attach] = []

    def tasks(self) -> dict[str, Task]:
        return {
            "connect": self.connect,
            "renew": self.renew,
            "sign_in": self.sign_in,
            "answer": self.answer,
            "read": self.read,
            "bare": self.bare,
            "wait": self.wait,
            "attached": self.attached,
        }

    def connect(self, message: dict[str, Any]) -> dict[str, Any]:
        """Open a client for each of this process's ranks."""
        for number in self.numbers(message):
            client = dist.TCPStore(HOST, message["port"], None, False, timedelta(seconds=LIMIT), wait_for_workers=False)
            self.ranks.append(self._rank(number, client, message))
        gc.freeze()  # what hundreds of ranks hold is hundreds of processes' to look through, not one's
        return {"ended": time.monotonic()}

    def numbers(self, message: dict[str, Any]) -> list[int]:
        """This process's ranks: all of its nodes, but for rank 0."""
        firsts = (node * message["per_node"] for node in message["nodes"][self.name])
        numbers = (n for first in firsts for n in range(first, min(first + message["per_node"], message["size"])))
        return [number for number in numbers if number]

    def _rank(self, number: int, client: dist.Store, message: dict[str, Any]) -> Rank:
        node, local = divmod(number, message["per_node"])
        variables = _torchrun(number, message)
        resolved = resolve(Arguments(project="bench-scale", config=message["config"]), message["variables"])
        context = environments.detect(variables)
        decision = identity.decide(context)
        host = f"gpu-node-{node:04}"
        plan = Plan(resolved.settings, context, decision, resolved.request, resolved.config.value, 1, host, 0.0)
        inventory = _inventory_of(node, host, self._template).to_json() if local == 0 else None
        return Rank(client, plan, Member(number, str(node), f"{node:016x}", host), inventory)

    def renew(self, message: dict[str, Any]) -> dict[str, Any]:
        """Begin another launch: under a prefix of its own, in folders where nothing is remembered yet."""
        store.PREFIX = message["prefix"]
        self._ledger = Ledger() if message["counting"] else None
        self._stop.clear()
        for rank in self.ranks:
            path = Path(message["folder"], rank.member.node)
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            rank.folder = NodeState(path)
            rank.context = rank.text = rank.outcome = None
        return {}

    def sign_in(self, _: dict[str, Any]) -> dict[str, Any]:
        """All ranks sign in and agree; of each node first the one that the other nodes wait for."""
        began = time.monotonic()
        firsts = [rank for rank in self.ranks if rank.inventory is not None]
        with ThreadPoolExecutor(max(1, len(firsts))) as pool:
            list(pool.map(self._sign_in, firsts))
        for rank in self.ranks:
            if rank.inventory is None:
                self._sign_in(rank)
        return {"began": began, "ended": time.monotonic()}

    def _sign_in(self, rank: Rank) -> None:
        rank.join(self._store(rank))

    def _store(self, rank: Rank) -> store.TorchStore:
        world_size = rank.plan.topology.world_size
        if self._ledger is None:
            return store.TorchStore(rank.client, world_size)
        return CountingStore(rank.client, world_size, self._ledger)

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        """Look for the outcome until every rank has it; those below ``attaching`` then set out to attach."""

        clients = {r.number: _client(TimedClient, r) for r in self.ranks if r.number < message["attaching"]}

        def look(rank: Rank) -> bool:
            found = rank.has_answer(message["key"])
            if found and rank.number in clients:
                self._set_out(rank, clients[rank.number])
            return found

        return {**_look_until_all(self.ranks, look), **self._counted()}

    def read(self, _: dict[str, Any]) -> dict[str, Any]:
        """All ranks read the answer and remember it, one after the other: the longest that one took.

        A job's ranks do so at once, each on its own CPU and each node on its own disk. Among the looks it would
        hold up those of ranks that are elsewhere.
        """
        longest = max(rank.read() for rank in self.ranks)
        runs = {rank.outcome.answer and rank.outcome.answer.run_id for rank in self.ranks}
        return {"longest": longest, "runs": sorted(runs, key=str)}

    def bare(self, message: dict[str, Any]) -> dict[str, Any]:
        """Look for a key in the same way, by bare calls of the same clients."""
        key = message["key"]
        return _look_until_all(self.ranks, lambda rank: rank.client.check([key]) and bool(rank.client.get(key)))

    def _counted(self) -> dict[str, Any]:
        return {} if self._ledger is None else {"requests": self._ledger.requests, "kept": self._ledger.kept}

    def wait(self, message: dict[str, Any]) -> dict[str, Any]:
        """How many requests a second a rank makes while rank 0 is silent, by the package's own waiting."""
        ledger, some = Ledger(), self.ranks[:SAMPLE]
        for rank in some:
            rank.context.membership.store = CountingStore(rank.client, rank.plan.topology.world_size, ledger)
        # Nobody else is in the attempt's second run.
        contexts = [dataclasses.replace(rank.context, channel=rank.context.membership.run(2)) for rank in some]
        with ThreadPoolExecutor(SAMPLE) as pool:
            ended = [pool.submit(elect, context, _no_taking_over) for context in contexts]
            time.sleep(1)  # the first looks are closer together
            before = ledger.requests.total()
            time.sleep(message["watched"])
            asked = ledger.requests.total() - before
            contexts[0].channel.publish_outcome(Outcome("offline"))
            [future.result(LIMIT) for future in ended]
        return {"requests": asked / message["watched"] / SAMPLE}

    def _set_out(self, rank: Rank, client: TimedClient) -> None:
        thread = threading.Thread(target=self._attach, args=(rank, client), daemon=True)
        self._attaching.append(thread)
        thread.start()

    def _attach(self, rank: Rank, client: TimedClient) -> None:
        try:
            rank.read()
            began = time.monotonic() - (time.time() - rank.outcome.at)  # the queue's start, as attach() has it
            due = began + rate_limit.due(rank.number, rank.plan.settings.attach_rate)
            answer = attach(dataclasses.replace(rank.context, stop=self._stop), rank.outcome, client)
            self._attaches.append(Attach(began, due, client.began, answer is not None))
        finally:
            client.close()

    def attached(self, message: dict[str, Any]) -> dict[str, Any]:
        """Wait until all who set out have attached or, told to ``stop``, given up."""
        if message["stop"]:
            self._stop.set()
        until = time.monotonic() + message["within"]
        for thread in self._attaching:
            thread.join(max(0.0, until - time.monotonic()))
        told = {"attaches": self._attaches, "left": sum(thread.is_alive() for thread in self._attaching)}
        self._attaching, self._attaches = [], []
        return told


class RankZero(Crowd):
    """The process of rank 0, which it has for itself."""

    def tasks(self) -> dict[str, Task]:
        return {**super().tasks(), "close": self.close}

    def numbers(self, message: dict[str, Any]) -> list[int]:  # noqa: ARG002  # it needs no nodes
        return [0]

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002  # a rank that does not attach
        """Gather, create, tell: when each of it was over."""
        rank, began = self.ranks[0], time.monotonic()
        ledger = Ledger()
        membership = rank.context.membership
        membership.store = CountingStore(rank.client, rank.plan.topology.world_size, ledger)
        client = _client(TimedClient, rank)
        context = dataclasses.replace(rank.context, channel=membership.run(rank.plan.nth), client=client)
        context.channel.claim("leader")
        nodes = gather(context, began + GATHER_SECONDS)
        gathered = time.monotonic()
        try:
            rank.outcome = create_as_owner(context, nodes).outcome
        finally:
            client.close()
        if rank.outcome.answer is None:
            raise RuntimeError(f"rank 0 has no run: {rank.outcome.message}")
        if self._ledger is not None:
            self._ledger.requests += ledger.requests
            self._ledger.kept |= ledger.kept
        moments = {"began": began, "gathered": gathered, "creating": client.began, "created": client.ended}
        moments |= {"published": ledger.published, "over": time.monotonic()}
        found = {"nodes": len(nodes), "metadata": client.metadata, "run": rank.outcome.answer.run_id}
        return {**moments, **found, **self._counted()}

    def bare(self, message: dict[str, Any]) -> dict[str, Any]:
        """Set the key that all others look for."""
        time.sleep(WARM_UP)
        began = time.monotonic()
        self.ranks[0].client.set(message["key"], message["value"])
        return {"set": began}

    def close(self, _: dict[str, Any]) -> dict[str, Any]:
        """From here on nobody attaches."""
        channel = self.ranks[0].context.channel
        return {"slowdowns": channel.slowdowns(), "closed": channel.claim("closed")}


def _look_until_all(ranks: list[Rank], look: Callable[[Rank], bool]) -> dict[str, Any]:
    """When the last of ``ranks`` had what it looks for, and how many looks a second there were before the first had."""
    began, looks, rate, waiting = time.monotonic(), 0, 0.0, ranks
    while waiting:
        left = [rank for rank in waiting if not look(rank)]
        if len(left) == len(ranks):
            looks += len(ranks)
            rate = looks / (time.monotonic() - began)
        if time.monotonic() > began + LIMIT:
            raise TimeoutError(f"{len(left)} of {len(ranks)} ranks have nothing after {LIMIT:.0f} s")
        waiting = left
    return {"last": time.monotonic(), "looks": rate}


def _no_taking_over() -> Process:
    raise RuntimeError("a rank stood in for rank 0, which was not silent for so long")


def _client(kind: type[TrackerClient], rank: Rank) -> Any:
    chosen = rank.plan.settings
    agent = f"pluto-dist/benchmark (rank {rank.number}; {rank.plan.host})"
    return kind(chosen.url_api, chosen.url_py, chosen.api_key, user_agent=agent)


def _torchrun(number: int, message: Mapping[str, Any]) -> dict[str, str]:
    """What torchrun's agent tells the worker of this number."""
    per_node, size = message["per_node"], message["size"]
    facts = {
        "RANK": number,
        "WORLD_SIZE": size,
        "LOCAL_RANK": number % per_node,
        "LOCAL_WORLD_SIZE": per_node,
        "GROUP_RANK": number // per_node,
        "GROUP_WORLD_SIZE": -(-size // per_node),
        "MASTER_ADDR": HOST,
        "MASTER_PORT": message["port"],
        "TORCHELASTIC_RUN_ID": "bench-scale",
        "TORCHELASTIC_USE_AGENT_STORE": True,
        "TORCHELASTIC_RESTART_COUNT": 0,
        "TORCHELASTIC_MAX_RESTARTS": 3,
    }
    return {name: str(value) for name, value in facts.items()}


def _inventory_of(node: int, host: str, found: NodeInventory) -> NodeInventory:
    """This machine's inventory as that of another node: its own name, and GPUs of its own."""
    devices = tuple(
        dataclasses.replace(gpu, uuid=f"GPU-{node:08x}-86f3-7a43-b711-{gpu.index:012x}") for gpu in found.gpus.devices
    )
    return dataclasses.replace(found, hostname=host, gpus=dataclasses.replace(found.gpus, devices=devices))


def _collect() -> NodeInventory:
    """This machine's inventory; where it has no GPUs, with those of a node that trains."""
    found = collect()
    if found.gpus.count:
        return found
    devices = tuple(
        Gpu(
            index=index,
            name="NVIDIA H100 80GB HBM3",
            memory=85520809984,
            compute_capability="9.0",
            pci_bus_id=f"00000000:{16 * index + 11:02X}:00.0",
            temperature=31,
            power_limit_w=700,
            mig=False,
        )
        for index in range(8)
    )
    return dataclasses.replace(
        found, gpus=GpuReport(driver="550.54.15", cuda_driver="12.4", devices=devices, count=8, init_ms=120)
    )


def _host() -> dict[str, Task]:
    """The tasks of the store's process."""
    server = dist.TCPStore(HOST, 0, None, True, timedelta(seconds=LIMIT), wait_for_workers=False)
    return {"where": lambda _: {"port": server.port}, "keys": lambda _: {"keys": server.num_keys()}}


def _fork(name: str, tasks: Callable[[], dict[str, Task]]) -> int:
    if pid := os.fork():
        return pid
    code = 1
    try:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        serve(name, tasks())
        code = 0
    except BaseException:  # noqa: BLE001  # a forked child must not return into its parent's code
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(code)  # thousands of clients are closed by the kernel


def main() -> None:
    inventory = _collect()
    children = [_fork("store", _host), _fork("rank 0", RankZero("rank 0", inventory).tasks)]
    for name in (f"crowd {n}" for n in range(int(sys.argv[1]))):
        children.append(_fork(name, Crowd(name, inventory).tasks))
    for pid in children:
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
