"""Did the kernel kill a process of this node for lack of memory? Its counters say so; nothing else does.

A worker that the out-of-memory killer ends has the same exit code as one that somebody killed with SIGKILL.
Counted are the kills in this process's cgroup (``oom_kill`` of memory.events in version 2, of memory.oom_control
in version 1, from Linux 4.13 on) and those of the whole machine (``oom_kill`` in /proc/vmstat), which a container
may not show.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class OomKillCounts:
    """How many processes were killed so far; ``None`` where the counter cannot be read."""

    cgroup: int | None
    machine: int | None

    def since(self, earlier: OomKillCounts) -> str | None:
        """In whose counter there are more kills than ``earlier``, in words; ``None`` where in neither.

        >>> OomKillCounts(3, 9).since(OomKillCounts(2, 9))
        'its cgroup reached its memory limit'
        """
        if (self.cgroup or 0) > (earlier.cgroup or 0):
            return "its cgroup reached its memory limit"
        if (self.machine or 0) > (earlier.machine or 0):
            return "the kernel counted such a kill on this machine"
        return None


def count_oom_kills(root: Path = Path("/")) -> OomKillCounts:
    """The counters as they stand now.

    Args:
        root: where /proc and /sys are; another one for recorded trees.
    """
    return OomKillCounts(_of_cgroup(root), _counter(root / "proc/vmstat"))


def _of_cgroup(root: Path) -> int | None:
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        inner = path.lstrip("/")
        if number == "0" and not controllers:
            folders, name = (root / "sys/fs/cgroup" / inner, root / "sys/fs/cgroup/unified" / inner), "memory.events"
        elif "memory" in controllers.split(","):
            memory = root / "sys/fs/cgroup/memory"
            folders, name = (memory / inner, memory), "memory.oom_control"
        else:
            continue
        for folder in folders:
            if (count := _counter(folder / name)) is not None:
                return count
    return None


def _counter(file: Path) -> int | None:
    try:
        words = dict(line.split(maxsplit=1) for line in file.read_text().splitlines() if " " in line)
        return int(words["oom_kill"])
    except (OSError, KeyError, ValueError):
        return None
