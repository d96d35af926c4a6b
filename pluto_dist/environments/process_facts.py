"""Facts about this process that its environment variables do not give.

``init()`` gathers them once; launchers get them beside the environment. This is the one module here that looks at
the process itself.

>>> is_spawned({})
False
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pluto_dist.environments.topology import Topology

_SET_BY_ELASTIC_AGENT = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_ERROR_FILE", "RANK")


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """What a launcher's ``detect`` is given beside the environment.

    Attributes:
        group: this process in torch.distributed's default process group, or ``None`` if there is none.
        spawned: whether ``multiprocessing`` started this process and the launcher's variables in its
            environment are its parent's (torch.multiprocessing.spawn inside a worker, for example).
    """

    group: Topology | None = None
    spawned: bool = False


def is_spawned(environ: Mapping[str, str]) -> bool:
    """Whether multiprocessing started this process with its parent's launcher variables.

    torch's elastic agent starts Python functions through multiprocessing too, but sets the variables in the
    worker itself: they then differ from those that the kernel gave the process. Without /proc the answer is yes
    for every child of multiprocessing.
    """
    if multiprocessing.parent_process() is None:
        return False
    try:
        given = Path("/proc/self/environ").read_bytes().split(b"\0")
    except OSError:
        return True
    return all(name not in environ or f"{name}={environ[name]}".encode() in given for name in _SET_BY_ELASTIC_AGENT)
