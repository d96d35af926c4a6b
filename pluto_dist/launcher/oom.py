"""Counts the processes that the kernel's out-of-memory killer has killed.

A worker that it kills has the same exit code as one that somebody else killed with SIGKILL; only the kernel's counters
distinguish them. Counted are the kills in this process's cgroup (``oom_kill`` in memory.events of cgroup v2, in
memory.oom_control of v1 since Linux 4.13) and those of the whole machine (``oom_kill`` in /proc/vmstat), which a
container may not expose.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pluto_dist.inventory.probes.cgroups import controller_folders
from pluto_dist.inventory.safe_read import value_or_none


@dataclass(frozen=True, slots=True)
class OomKillCounts:
    """Numbers of processes killed so far; ``None`` if the counter cannot be read."""

    cgroup: int | None
    machine: int | None

    def since(self, earlier: OomKillCounts) -> str | None:
        """Which counter is higher than in ``earlier``, in words; ``None`` if neither is.

        >>> OomKillCounts(3, 9).since(OomKillCounts(2, 9))
        'its cgroup reached its memory limit'
        """
        if (self.cgroup or 0) > (earlier.cgroup or 0):
            return "its cgroup reached its memory limit"
        if (self.machine or 0) > (earlier.machine or 0):
            return "the kernel counted such a kill on this machine"
        return None


def count_oom_kills(root: Path = Path("/")) -> OomKillCounts:
    """The current values of the counters.

    Args:
        root: the folder that contains /proc and /sys; another one for recorded machines.
    """
    return OomKillCounts(_cgroup_counter(root), _counter(root / "proc/vmstat"))


def _cgroup_counter(root: Path) -> int | None:
    hierarchies = controller_folders("memory", root)
    own = (next((each for each in folders if value_or_none(each.is_dir)), None) for folders in hierarchies)
    counts = (_counter(folder / name) for folder in own if folder for name in ("memory.events", "memory.oom_control"))
    return next((count for count in counts if count is not None), None)


def _counter(file: Path) -> int | None:
    try:
        words = dict(line.split(maxsplit=1) for line in file.read_text().splitlines() if " " in line)
        return int(words["oom_kill"])
    except (OSError, KeyError, ValueError):
        return None
