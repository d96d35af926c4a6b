"""Which GPU does torch use in this process? Asked only where CUDA is initialised: asking would initialise it.

A process that initialises CUDA takes some hundred MB of a GPU and can no longer fork, so this module imports
nothing and starts nothing; it looks at the torch that a script has brought up. CUDA's current device is a thread's
own, so the thread that trains asks for that; all else may wait for the driver, and is asked in another one.
"""

from __future__ import annotations

from typing import Any

from pluto_dist.inventory.safe_read import value_or_none
from pluto_dist.serialization.text import clean_text


def current_device(torch: Any) -> int | None:
    """The current device of the thread that asks; ``None`` where CUDA is not up.

    Args:
        torch: the module, or ``None`` where the process has not imported it.
    """
    return None if torch is None else value_or_none(lambda: _current(torch.cuda))


def _current(cuda: Any) -> int | None:
    return int(cuda.current_device()) if cuda.is_initialized() else None


def uuid_in_use(torch: Any, current: int, local_rank: int | None) -> str | None:
    """The UUID of this rank's GPU, as CUDA has it: without NVML's "GPU-"; ``None`` where it cannot be told.

    Args:
        torch: the module, with CUDA up.
        current: what ``current_device`` gave.
        local_rank: this process's, where its launcher tells.
    """
    return value_or_none(lambda: _uuid(torch.cuda, _device(torch, current, local_rank)))


def _uuid(cuda: Any, device: int | None) -> str | None:
    return None if device is None else clean_text(str(cuda.get_device_properties(device).uuid))


def _device(torch: Any, current: int, local_rank: int | None) -> int | None:
    """The current device if one was set, else the only one that is there, or that this process has a context on.

    The current device is 0 where none was set. Such a script uses ``cuda:LOCAL_RANK``, as torch's examples have it.
    """
    count = torch.cuda.device_count()
    if current or count == 1:
        return current
    # No public function tells (torch 2.13); a build that has not this one tells no contexts.
    has_context = getattr(torch._C, "_cuda_hasPrimaryContext", None)
    in_use = [device for device in range(count) if has_context and has_context(device)]
    if len(in_use) == 1:
        return in_use[0]
    return local_rank if local_rank is not None and local_rank < count else None
