"""Is this machine fit for a job? What ``pluto-dist doctor`` checks before one is started.

A new check goes into the file of its family: a pure function of what that family's ``look`` saw, with a name in
its ``FAMILY``. A new family is a file and a line below.
"""

from __future__ import annotations

from pluto_dist.doctor import disk, gpus, launch, memory, network, reaching
from pluto_dist.doctor.examination import Report, examine
from pluto_dist.doctor.family import TIMEOUT, AnyFamily, Machine
from pluto_dist.doctor.finding import Finding, Verdict

FAMILIES: tuple[AnyFamily, ...] = (
    launch.FAMILY,
    reaching.FAMILY,
    network.INTERFACES,
    network.HOSTNAME,
    network.RENDEZVOUS,
    gpus.FAMILY,
    memory.FAMILY,
    disk.FAMILY,
)

__all__ = ["FAMILIES", "TIMEOUT", "Finding", "Machine", "Report", "Verdict", "examine"]
