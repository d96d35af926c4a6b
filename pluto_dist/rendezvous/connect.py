"""Connects to the store that the ranks of a launch share: the first of these that they have in common.

1. The store that torchrun's agent hosts.
2. That of the default process group.
3. One that rank 0 hosts at MASTER_ADDR:MASTER_PORT, where torch will look for its own.
4. For a launch on one node, one that rank 0 hosts on any port, which it writes to the node's state.

A process without a launcher keeps its own in a file, which ranks that it starts itself later (Lightning) open.

torch is imported only when :func:`connect` is called.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from pluto_dist.environments.context import LaunchContext
from pluto_dist.environments.topology import Topology
from pluto_dist.errors import ExchangeError, NoSharedRunError
from pluto_dist.log import lacking
from pluto_dist.rendezvous.file_store import FileStore
from pluto_dist.rendezvous.node_state import NodeState
from pluto_dist.rendezvous.store import LocalStore, Store, TorchStore
from pluto_dist.rendezvous.store_thread import StoreThread
from pluto_dist.rendezvous.torch_guard import torch_call
from pluto_dist.serialization.text import parse_digits

if TYPE_CHECKING:
    import torch.distributed

CONNECT_SECONDS = 10.0  # torch's timeout; it may take three times as long


def process_group() -> Topology | None:
    """This process in torch.distributed's default process group; ``None`` if there is none.

    Does not import torch: a script that has a process group has imported it.
    """
    dist = sys.modules.get("torch.distributed")
    if dist is None or not dist.is_available() or not dist.is_initialized():
        return None
    return Topology(rank=dist.get_rank(), world_size=dist.get_world_size())


def connect(
    context: LaunchContext, folder: NodeState, slot: str, *, deadline: float, stop: threading.Event | None = None
) -> Store:
    """The store that the ranks of ``context`` share.

    Args:
        context: the launch.
        folder: the state of this node, where rank 0 of a launch on one node publishes its store's port.
        slot: a random word of this process, the same in its later calls: no other process may register as its rank.
        deadline: on the monotonic clock. Torch may overshoot it by 20 s (2.13, a refused port), so the caller
            keeps a bound of its own.
        stop: ends the wait for rank 0.

    Raises:
        ExchangeError: the store does not answer, or another job uses its port.
        NoSharedRunError: several ranks, and no store that they share.
    """
    topology, stop = context.topology, stop or threading.Event()
    if context.parent_store is not None:
        return FileStore.open(context.parent_store)
    if context.store_address is not None:
        return TorchStore(_client(*context.store_address, deadline), topology.world_size, StoreThread(stop))
    if topology.world_size == 1:
        return (FileStore.create() if context.launcher == "single" else None) or LocalStore()
    is_torchs = process_group() is not None and context.hosted_address not in _hosted
    if is_torchs and (store := _default_store()) is not None:
        return TorchStore(_beside(store, deadline), topology.world_size, StoreThread(stop))
    if context.hosted_address is not None:
        return _connect_to_rank_zero(lambda: context.hosted_address, context, slot, deadline, stop)
    if context.is_on_one_node and folder.is_persistent:
        if topology.is_rank_zero:
            folder.set("port", str(_host("127.0.0.1", 0, deadline).port))
        return _connect_to_rank_zero(lambda: _published_port(folder), context, slot, deadline, stop)
    raise NoSharedRunError(_no_store(context))


_hosted: dict[
    tuple[str, int] | None, torch.distributed.TCPStore
] = {}  # kept until the process ends, and with it the other ranks' store


def _host(host: str, port: int, deadline: float) -> torch.distributed.TCPStore:
    """Host a store in this process; torch's own store on the same port shares its server."""
    if (address := (host, port)) not in _hosted:
        try:
            _hosted[address] = _tcp_store(host, port, _patience(deadline), hosts=True)
        except RuntimeError as error:
            raise ExchangeError(
                f"rank 0 cannot host the ranks' shared store at {host}:{port}: {_first_line(error)}\n"
                "Set MASTER_PORT to a free port and MASTER_ADDR to a name of rank 0's node, on all ranks alike."
            ) from error
    return _hosted[address]


def hosts_a_store() -> bool:
    """Whether other ranks lose their store with this process."""
    return bool(_hosted)


def _connect_to_rank_zero(
    address: Callable[[], tuple[str, int] | None],
    context: LaunchContext,
    slot: str,
    deadline: float,
    stop: threading.Event,
) -> TorchStore:
    """The store that rank 0 hosts, once it does; not another launch's, nor one where this rank's slot is taken."""
    with torch_call():
        import torch.distributed  # noqa: F401  # 1 s and more, which rank 0 needs at the same time

    taken, found = False, address()
    if context.topology.is_rank_zero and found is not None:
        _host(*found, deadline)
    while not stop.is_set():
        found = address()
        if found is not None and _listens(*found, deadline):
            store = TorchStore(_client(*found, deadline), context.topology.world_size, StoreThread(stop))
            if _take_slot(store, context, slot):
                return store
            store.close()
            taken = True
        if time.monotonic() + 0.2 >= deadline or stop.wait(0.2):
            break
    shown = "its store" if found is None else "{}:{}".format(*found)
    if taken:
        raise ExchangeError(
            f"at {shown} another process is rank {context.topology.rank} already; is another job using this port?\n"
            "Set MASTER_PORT to another port for each job on the node of rank 0."
        )
    raise ExchangeError(
        f"rank 0 did not host {shown} in time, and the ranks have no other store in common.\n"
        "Call pluto_dist.init() on every rank, or after torch.distributed.init_process_group(), and see that this "
        "name resolves on every node; MASTER_ADDR and MASTER_PORT say where rank 0 is."
    )


def _take_slot(store: TorchStore, context: LaunchContext, slot: str) -> bool:
    """Whether the store is that of this launch, and this process the first to register as its rank."""
    # A rendezvous id may differ by mistake, which becomes a RunIdMismatchError once the ranks are connected.
    named = () if context.launcher == "torchrun" else context.variables
    launch = f"{context.launcher} {context.topology.world_size} {named}"
    if store.compare_set("launch", "", launch) != launch:
        return False
    return store.compare_set(f"seat/{context.topology.rank}", "", slot) == slot


def _published_port(folder: NodeState) -> tuple[str, int] | None:
    port = parse_digits(folder.get("port") or "")
    return ("127.0.0.1", port) if port is not None and 0 < port < 65536 else None


def _listens(host: str, port: int, deadline: float) -> bool:
    """Whether a server accepts connections there: torch's own client blocks for longer than its timeout."""
    try:
        with socket.create_connection((host, port), timeout=max(0.1, min(2.0, deadline - time.monotonic()))):
            return True
    except OSError:
        return False


def _client(host: str, port: int, deadline: float) -> torch.distributed.Store:
    seconds = _patience(deadline)
    try:
        return _tcp_store(host, port, seconds, hosts=False)
    except RuntimeError as error:
        raise ExchangeError(
            f"the ranks' shared store did not answer at {host}:{port} within {seconds:.0f} s: {_first_line(error)}\n"
            "Check that MASTER_ADDR resolves and MASTER_PORT is reachable from this node."
        ) from error


def _tcp_store(host: str, port: int, seconds: float, *, hosts: bool) -> torch.distributed.TCPStore:
    with torch_call():
        import torch
        import torch.distributed as dist

        timeout = timedelta(seconds=seconds)
        sharing = {"multi_tenant": True} if hosts else {}
        try:
            return dist.TCPStore(host, port, None, hosts, timeout, wait_for_workers=False, **sharing)
        except TypeError as error:  # an argument is gone: init_process_group would find its port taken
            raise ExchangeError(
                f"torch {torch.__version__} does not make the ranks' shared store: {_first_line(error)}\n"
                "Start the script with torchrun, or call pluto_dist.init() after init_process_group()."
            ) from error


def _patience(deadline: float) -> float:
    """Torch's timeout to connect, in seconds."""
    return max(1.0, min(CONNECT_SECONDS, deadline - time.monotonic()))


def _default_store() -> torch.distributed.Store | None:
    """The default process group's store; ``None`` if this torch does not give it."""
    try:
        from torch.distributed.distributed_c10d import _get_default_store
    except ImportError:  # torch has no public name for it (2.5 to 2.15)
        lacking("torch.distributed.distributed_c10d._get_default_store", "rank 0 hosts a store of our own")
        return None
    return _get_default_store()


def _beside(store: torch.distributed.Store, deadline: float) -> torch.distributed.Store:
    """``store``, by a client of its own."""
    import torch.distributed as dist

    while isinstance(store, dist.PrefixStore):
        if not hasattr(store, "underlying_store"):
            lacking("PrefixStore.underlying_store", "a wait of torch's in the store delays this rank's messages")
            return store
        store = store.underlying_store
    if isinstance(store, dist.TCPStore):
        return _client(store.host, store.port, deadline)
    return store  # a file or a hash table: its calls do not hold each other up


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]  # what follows is torch's C++ stack


def _no_store(context: LaunchContext) -> str:
    where = "torchrun did not start them (TORCHELASTIC_RUN_ID is unset)"
    if context.launcher not in ("environment", "process_group"):
        where = f"{context.launcher} gives them none"
    return (
        f"{context.topology.world_size} ranks have no store in common: {where}, MASTER_ADDR and MASTER_PORT are not "
        "both set, and torch.distributed is not initialised.\n"
        "Call pluto_dist.init() after torch.distributed.init_process_group(), start the script with torchrun, or "
        "export MASTER_ADDR (the node of rank 0) and MASTER_PORT (a free port there) on every node."
    )
