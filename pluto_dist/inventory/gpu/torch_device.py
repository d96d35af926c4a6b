"""The GPU that torch uses in this process; queried only if CUDA is initialized, since a query would initialize it.

A process that initializes CUDA allocates some hundred MB on a GPU and can no longer fork, so this module imports and
initializes nothing; it inspects the torch module that the script has imported. CUDA's current device is per thread, so
the training thread reads it; everything else may block on the driver and is read in another thread. All of this holds
for the module of any vendor (``vendor.TorchBackend``).
"""

from __future__ import annotations

from functools import partial
from typing import Any

from pluto_dist.inventory import gpu
from pluto_dist.inventory.gpu.vendor import TorchBackend
from pluto_dist.inventory.safe_read import value_or_none
from pluto_dist.log import lacking
from pluto_dist.serialization.text import record_text


def current_device(torch: Any) -> int | None:
    """The current device of the calling thread; ``None`` if torch has initialized no GPU.

    Args:
        torch: the module, or ``None`` if the process has not imported it.
    """
    return None if torch is None else value_or_none(lambda: _current(torch))


def _current(torch: Any) -> int | None:
    in_use = next((module for _, module in _backends(torch) if module.is_initialized()), None)
    return None if in_use is None else int(in_use.current_device())


def _backends(torch: Any) -> list[tuple[TorchBackend, Any]]:
    """The modules of this torch for the registered vendors' GPUs."""
    named = [vendor.torch for vendor in gpu.VENDORS if vendor.torch is not None]
    return [(each, getattr(torch, each.module)) for each in named if hasattr(torch, each.module)]


def uuid_in_use(torch: Any, current: int, local_rank: int | None) -> str | None:
    """The UUID of this rank's GPU as torch has it, without NVML's "GPU-"; ``None`` if it cannot be determined.

    Args:
        torch: the module, with its GPUs initialized.
        current: the result of ``current_device``.
        local_rank: local rank of this process, if its launcher sets it.
    """
    return value_or_none(lambda: _uuid(torch, current, local_rank))


def _uuid(torch: Any, current: int, local_rank: int | None) -> str | None:
    backends = _backends(torch)
    initialized = (each for each in backends if len(backends) > 1 and each[1].is_initialized())
    backend, module = next(initialized, backends[0])
    has_context = getattr(getattr(torch, "_C", None), backend.has_context or "", None)
    if has_context is None and backend.has_context is not None:
        lacking(f"torch._C.{backend.has_context}", "a script that sets no device counts as on cuda:LOCAL_RANK")
    device = _device(module, has_context, current, local_rank)
    if device is None:
        return None
    properties = module.get_device_properties(device)
    if not hasattr(properties, "uuid"):  # torch.cuda's before 2.5.1
        lacking("the uuid of torch's device properties", "each rank counts as on its entry of the visible devices")
        return None
    return record_text(str(properties.uuid))


def _device(module: Any, has_context: Any, current: int, local_rank: int | None) -> int | None:
    """The current device if one was set, else the only visible one or the only one with a context of this process.

    The current device is 0 if none was set. Such a script uses ``cuda:LOCAL_RANK``, as torch's examples do.
    """
    count = module.device_count()
    if current or count == 1:
        return current
    in_use = [device for device in range(count) if has_context and value_or_none(partial(has_context, device))]
    if len(in_use) == 1:
        return in_use[0]
    return local_rank if local_rank is not None and local_rank < count else None
