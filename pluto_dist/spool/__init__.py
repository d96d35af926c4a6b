"""What an outage keeps: requests that no tracker took, as files on disk, until ``replay`` has sent them.

::

    <folder>/<run>/<time>-<host>-<pid>-<random>.json     one request, whole, of mode 0600
    <folder>/<run>/set-aside/                            what is no request of ours, or was refused for good

A file appears whole, is never changed, and goes when a tracker has taken its request; so processes of many hosts
may write to one folder on a shared filesystem. Whoever sends holds the run's lock. No API key is in any of it.
Knows files, not HTTP: ``entry`` is what is kept, ``run`` all of one run, ``disk`` how it is read and written.
"""

from pluto_dist.spool.entry import KINDS, Entry, Request, RunName, in_order, next_ms
from pluto_dist.spool.run import SPOOL_LIMIT, RunSpool, foreign, runs

__all__ = ["KINDS", "SPOOL_LIMIT", "Entry", "Request", "RunName", "RunSpool", "foreign", "in_order", "next_ms", "runs"]
