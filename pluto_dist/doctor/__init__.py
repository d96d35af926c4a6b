"""The checks of ``pluto-dist doctor``: whether this machine is ready for a job.

A new check is a pure function in the module of its group, which judges what the group's ``probe`` has read; it gets a
name in the module's ``CheckGroup``. A new group is a module, and an entry in ``CHECK_GROUPS``.
"""

from __future__ import annotations

from pluto_dist.doctor import disk, explain, gpus, memory, network, tracker
from pluto_dist.doctor.examination import Report, examine
from pluto_dist.doctor.finding import TIMEOUT, AnyCheckGroup, Finding, Machine, Verdict

CHECK_GROUPS: tuple[AnyCheckGroup, ...] = (
    explain.GROUP,
    tracker.GROUP,
    network.INTERFACES,
    network.HOSTNAME,
    network.RENDEZVOUS,
    gpus.GROUP,
    memory.GROUP,
    disk.GROUP,
)

__all__ = ["CHECK_GROUPS", "TIMEOUT", "Finding", "Machine", "Report", "Verdict", "examine"]
