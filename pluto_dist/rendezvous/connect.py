"""Where do the ranks of a launch meet? In the first of these that they have in common:

the store that torchrun's agent hosts, that of the default process group, one that rank 0 hosts where torch will
look for its own (MASTER_ADDR and MASTER_PORT), or, for a launch on one node, one that rank 0 hosts on any port and
tells in the node's launch folder. torch is imported here and in ``store`` only, and only when it is called.
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
from pluto_dist.rendezvous.node_state import NodeState
from pluto_dist.rendezvous.store import LocalStore, Store, TorchStore
from pluto_dist.rendezvous.torch_guard import torch_call

if TYPE_CHECKING:
    import torch.distributed

CONNECT_SECONDS = 10.0  # what torch is told; it may take three times as long


def process_group() -> Topology | None:
    """This process in torch.distributed's default process group; ``None`` where there is none.

    Does not import torch: a script that has a process group has imported it.
    """
    dist = sys.modules.get("torch.distributed")
    if dist is None or not dist.is_available() or not dist.is_initialized():
        return None
    return Topology(rank=dist.get_rank(), world_size=dist.get_world_size())


def connect(
    context: LaunchContext, folder: NodeState, seat: str, *, deadline: float, stop: threading.Event | None = None
) -> Store:
    """The store that the ranks of ``context`` share.

    Args:
        context: the launch.
        folder: where rank 0 of a launch on one node may tell the others its store's port.
        seat: a word of this process alone, kept for its later calls: nobody else may come as its rank.
        deadline: on the monotonic clock. Torch may overshoot it by 20 s (2.13, a refused port), so the caller
            keeps a bound of its own.
        stop: ends the wait for a rank 0 that has not come yet.

    Raises:
        ExchangeError: the store does not answer, or another job uses its port.
        NoSharedRunError: several ranks, and no store that they share.
    """
    topology = context.topology
    if context.store_address is not None:
        return TorchStore(_client(*context.store_address, deadline), topology.world_size)
    if topology.world_size == 1:
        return LocalStore()
    if process_group() is not None and context.hosted_address not in _hosted:
        return TorchStore(_beside_default(deadline), topology.world_size)
    if context.hosted_address is not None:
        return _meet_at(lambda: context.hosted_address, context, seat, deadline, stop or threading.Event())
    if context.is_on_one_node and folder.is_persistent:
        if topology.is_rank_zero:
            folder.set("port", str(_host("127.0.0.1", 0, deadline).port))
        return _meet_at(lambda: _told_port(folder), context, seat, deadline, stop or threading.Event())
    raise NoSharedRunError(_no_store(context))


_hosted: dict[tuple[str, int] | None, torch.distributed.TCPStore] = {}  # kept for life: the others' store ends with it


def _host(host: str, port: int, deadline: float) -> torch.distributed.TCPStore:
    """Host a store in this process; torch's own store on the same port will share its server."""
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


def _meet_at(
    address: Callable[[], tuple[str, int] | None],
    context: LaunchContext,
    seat: str,
    deadline: float,
    stop: threading.Event,
) -> TorchStore:
    """The store that rank 0 hosts, as soon as it does. One of another launch, or with this seat taken, is not it."""
    with torch_call():
        import torch.distributed  # noqa: F401  # 1 s and more, which rank 0 needs at the same time

    taken, found = False, address()
    if context.topology.is_rank_zero and found is not None:
        _host(*found, deadline)
    while not stop.is_set():
        found = address()
        if found is not None and _listens(*found, deadline):
            store = TorchStore(_client(*found, deadline), context.topology.world_size)
            if _sit_down(store, context, seat):
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
        f"rank 0 did not host {shown} in time; the ranks have no other place to meet.\n"
        "Call pluto_dist.init() on every rank, or after torch.distributed.init_process_group(), and see that this "
        "name resolves on every node; MASTER_ADDR and MASTER_PORT say where rank 0 is."
    )


def _sit_down(store: TorchStore, context: LaunchContext, seat: str) -> bool:
    """Whether the store is that of this launch, and this process the first to come as its rank."""
    # A rendezvous id may differ by mistake, which is told as a mistake once the ranks have met.
    named = () if context.launcher == "torchrun" else context.variables
    launch = f"{context.launcher} {context.topology.world_size} {named}"
    if store.compare_set("launch", "", launch) != launch:
        return False
    return store.compare_set(f"seat/{context.topology.rank}", "", seat) == seat


def _told_port(folder: NodeState) -> tuple[str, int] | None:
    port = folder.get("port") or ""
    return ("127.0.0.1", int(port)) if port.isascii() and port.isdigit() and 0 < int(port) < 65536 else None


def _listens(host: str, port: int, deadline: float) -> bool:
    """Whether anybody accepts connections there: torch's own client would block for longer than it is told to."""
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
        import torch.distributed as dist

        timeout = timedelta(seconds=seconds)
        return dist.TCPStore(host, port, None, hosts, timeout, wait_for_workers=False, multi_tenant=hosts)


def _patience(deadline: float) -> float:
    """Seconds that torch is given to connect."""
    return max(1.0, min(CONNECT_SECONDS, deadline - time.monotonic()))


def _beside_default(deadline: float) -> torch.distributed.Store:
    """A store with the default process group's content, but not its client."""
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import _get_default_store

    store = _get_default_store()  # torch has no public name for it (2.4 to 2.13)
    while isinstance(store, dist.PrefixStore):
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
