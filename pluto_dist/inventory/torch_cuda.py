"""Which GPU does torch use in this process? Asked only where CUDA is initialised: asking would initialise it.

A process that initialises CUDA takes some hundred MB of a GPU and can no longer fork, so this module imports
nothing and starts nothing; it looks at the torch that a script has brought up. CUDA's current device is a thread's
own, so the thread that trains is the one to ask in.
"""

from __future__ import annotations

from typing import Any

from .decoding import clean
from .reading import known


def uuid_in_use(torch: Any, local_rank: int | None) -> str | None:
    """The UUID of this rank's GPU, as CUDA has it: without NVML's "GPU-"; ``None`` where it cannot be told.

    A script that has set no current device (it is 0 then) uses ``cuda:LOCAL_RANK``, as torchrun's and torch's
    examples have it, or the only GPU that it sees.

    Args:
        torch: the module, or ``None`` where the process has not imported it.
        local_rank: this process's, where its launcher tells.
    """
    return known(lambda: _ask(torch.cuda, local_rank)) if torch is not None else None


def _ask(cuda: Any, local_rank: int | None) -> str | None:
    if not cuda.is_initialized():
        return None
    device, wanted = cuda.current_device(), local_rank or 0
    if device == 0 and wanted < cuda.device_count():
        device = wanted
    return clean(str(cuda.get_device_properties(device).uuid))
