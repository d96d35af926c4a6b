"""Where the ranks of a launch meet: one key-value store, in torch's words.

The only module that imports torch, and only when it is called. It connects and carries strings; what the
ranks say to each other is ``exchange``.

A client of its own is opened and held for the life of the run: torch serialises the calls of one client, so
waiting on torch's would hold up torch, and a second client under a prefix of its own disturbs nothing (torch
2.13). What the ranks wrote outlives it, in the agent or in rank 0.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

from pluto_dist.errors import ExchangeError, NoSharedRunError
from pluto_dist.launchers.context import LaunchContext
from pluto_dist.topology import Topology

if TYPE_CHECKING:
    import torch.distributed

PREFIX = "pluto_dist"


class Store(Protocol):
    """What ``exchange`` needs of a store. All methods raise ExchangeError when the store is lost."""

    def compare_set(self, key: str, expected: str, desired: str) -> str:
        """Set ``key`` if it holds ``expected`` ("" where it is missing); the value it then holds."""

    def set(self, key: str, value: str) -> None:
        """Set ``key``, whatever it holds."""

    def get(self, key: str) -> str | None:
        """The value of ``key``, or ``None`` where it is missing; does not wait."""

    def add(self, key: str, amount: int) -> int:
        """Add to the counter ``key`` (0 where it is missing); its new value."""

    def wait(self, keys: Sequence[str], seconds: float) -> bool:
        """Whether all ``keys`` were there within ``seconds``."""

    def close(self) -> None:
        """Leave the store; every later call raises."""


class LocalStore:
    """The store of a world of one."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}
        self._changed = threading.Condition()

    def compare_set(self, key: str, expected: str, desired: str) -> str:
        with self._changed:
            if self._values.get(key, "") == expected:
                self._values[key] = desired
                self._changed.notify_all()
            return self._values.get(key, "")

    def set(self, key: str, value: str) -> None:
        with self._changed:
            self._values[key] = value
            self._changed.notify_all()

    def get(self, key: str) -> str | None:
        with self._changed:
            return self._values.get(key)

    def add(self, key: str, amount: int) -> int:
        with self._changed:
            total = int(self._values.get(key, "0")) + amount
            self._values[key] = str(total)
            self._changed.notify_all()
            return total

    def wait(self, keys: Sequence[str], seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._values.keys() >= set(keys), timeout=seconds)

    def close(self) -> None:
        """Nothing to leave: the store is this process's own."""


class TorchStore:
    """A torch store under this package's prefix, its errors translated.

    Args:
        store: the client to use.
        world_size: how many ranks may ask at once; the more there are, the less often each of them asks.
    """

    def __init__(self, store: torch.distributed.Store, world_size: int) -> None:
        import torch.distributed as dist

        self._store: torch.distributed.Store | None = dist.PrefixStore(PREFIX, store)
        self._longest_pause = min(0.5, max(0.02, world_size / 40_000))  # the store answers 40,000 checks a second

    def compare_set(self, key: str, expected: str, desired: str) -> str:
        value: bytes = self._call("compare_set", key, expected, desired)
        return value.decode(errors="replace")

    def set(self, key: str, value: str) -> None:
        self._call("set", key, value)

    def get(self, key: str) -> str | None:
        if not self._call("check", [key]):
            return None
        value: bytes = self._call("get", key)
        return value.decode(errors="replace")

    def add(self, key: str, amount: int) -> int:
        return int(self._call("add", key, amount))

    def wait(self, keys: Sequence[str], seconds: float) -> bool:
        # Store.wait would do, but prints two warnings from C++ whenever it runs out (torch 2.13).
        until, pause = time.monotonic() + seconds, 0.002
        while not self._call("check", list(keys)):
            left = until - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, self._longest_pause)
        return True

    def close(self) -> None:
        self._store = None  # torch closes the connection when the last reference goes

    def _call(self, method: str, *arguments: Any) -> Any:
        store = self._store
        if store is None:
            raise ExchangeError("this rank has left the store that the ranks share")
        try:
            return getattr(store, method)(*arguments)
        except RuntimeError as error:  # torch.distributed.DistError and all below it
            raise ExchangeError(f"the store that the ranks share is gone: {error}") from error


def process_group() -> Topology | None:
    """This process in torch.distributed's default process group; ``None`` where there is none.

    Does not import torch: a script that has a process group has imported it.
    """
    dist = sys.modules.get("torch.distributed")
    if dist is None or not dist.is_available() or not dist.is_initialized():
        return None
    return Topology(rank=dist.get_rank(), world_size=dist.get_world_size())


def connect(context: LaunchContext, *, timeout: float) -> Store:
    """The store that the ranks of ``context`` share.

    Args:
        context: the launch.
        timeout: seconds that torch may take to connect; it may overshoot to three times as much (torch 2.13,
            a refused port), so the caller keeps a deadline of its own.

    Raises:
        ExchangeError: the agent's store does not answer.
        NoSharedRunError: several ranks, and no store that they share.
    """
    if context.topology.world_size == 1 and context.launcher == "single":
        return LocalStore()
    if context.store_address is not None:
        return TorchStore(_client(*context.store_address, timeout), context.topology.world_size)
    if process_group() is not None:
        return TorchStore(_beside_default(timeout), context.topology.world_size)
    raise NoSharedRunError(_no_store(context))


def _client(host: str, port: int, timeout: float) -> torch.distributed.Store:
    import torch.distributed as dist

    try:
        return dist.TCPStore(host, port, None, False, timedelta(seconds=timeout), wait_for_workers=False)
    except RuntimeError as error:
        raise ExchangeError(
            f"the ranks' shared store did not answer at {host}:{port} within {timeout:.0f} s: {error}\n"
            "Check that MASTER_ADDR resolves and MASTER_PORT is reachable from this node."
        ) from error


def _beside_default(timeout: float) -> torch.distributed.Store:
    """A store with the default process group's content, but not its client."""
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import _get_default_store

    store = _get_default_store()  # torch has no public name for it (2.4 to 2.13)
    while isinstance(store, dist.PrefixStore):
        store = store.underlying_store
    if isinstance(store, dist.TCPStore):
        return _client(store.host, store.port, timeout)
    return store  # a file or a hash table: its calls do not hold each other up


def _no_store(context: LaunchContext) -> str:
    if context.launcher == "torchrun":
        return (
            "torchrun shares no store with its workers here (TORCHELASTIC_USE_AGENT_STORE is not True; "
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 does that), so the ranks cannot agree on one run yet.\n"
            "Call pluto_dist.init() after torch.distributed.init_process_group(), or unset "
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE."
        )
    return (
        f"{context.topology.world_size} ranks have no store in common: torchrun did not start them "
        "(TORCHELASTIC_RUN_ID is unset) and torch.distributed is not initialised.\n"
        "Call pluto_dist.init() after torch.distributed.init_process_group(), or start the script with "
        "torchrun."
    )
