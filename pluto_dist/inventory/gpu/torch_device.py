"""The GPU that torch uses in this process; queried only if CUDA is initialized, since a query would initialize it.

A process that initializes CUDA allocates some hundred MB on a GPU and can no longer fork, so this module imports and
initializes nothing; it inspects the torch module that the script has imported. CUDA's current device is per thread, so
the training thread reads it; everything else may block on the driver and is read in another thread.
"""

from __future__ import annotations

from typing import Any

from pluto_dist.inventory.safe_read import value_or_none
from pluto_dist.serialization.text import record_text


def current_device(torch: Any) -> int | None:
    """The current device of the calling thread; ``None`` if CUDA is not initialized.

    Args:
        torch: the module, or ``None`` if the process has not imported it.
    """
    return None if torch is None else value_or_none(lambda: _current(torch.cuda))


def _current(cuda: Any) -> int | None:
    return int(cuda.current_device()) if cuda.is_initialized() else None


def uuid_in_use(torch: Any, current: int, local_rank: int | None) -> str | None:
    """The UUID of this rank's GPU as CUDA has it, without NVML's "GPU-"; ``None`` if it cannot be determined.

    Args:
        torch: the module, with CUDA initialized.
        current: the result of ``current_device``.
        local_rank: local rank of this process, if its launcher sets it.
    """
    return value_or_none(lambda: _uuid(torch.cuda, _device(torch, current, local_rank)))


def _uuid(cuda: Any, device: int | None) -> str | None:
    return None if device is None else record_text(str(cuda.get_device_properties(device).uuid))


def _device(torch: Any, current: int, local_rank: int | None) -> int | None:
    """The current device if one was set, else the only visible one or the only one with a context of this process.

    The current device is 0 if none was set. Such a script uses ``cuda:LOCAL_RANK``, as torch's examples do.
    """
    count = torch.cuda.device_count()
    if current or count == 1:
        return current
    # torch 2.13 has no public function for this; without the private one no context is known.
    has_context = getattr(torch._C, "_cuda_hasPrimaryContext", None)
    in_use = [device for device in range(count) if has_context and has_context(device)]
    if len(in_use) == 1:
        return in_use[0]
    return local_rank if local_rank is not None and local_rank < count else None
