"""The checks of memory, open files and locked memory."""

from __future__ import annotations

from dataclasses import replace

import pytest

from doctor.states import GIB, MEMORY, assert_finding, ids
from pluto_dist.doctor.memory import MemoryFacts

TABLE = [
    ("shared memory", MEMORY, "ok", "64 GiB"),
    ("shared memory", replace(MEMORY, shm=64 << 20, shm_free=64 << 20), "warning", "64 MiB"),
    ("shared memory", replace(MEMORY, shm_free=1 << 20), "warning", "1 MiB free"),
    ("shared memory", MemoryFacts(), "warning", "cannot be read"),
    ("memory", MEMORY, "ok", "128 GiB, no limit"),
    ("memory", replace(MEMORY, limit=16 * GIB, used=4 * GIB), "ok", "limited to 16 GiB of 128 GiB"),
    ("memory", replace(MEMORY, limit=16 * GIB, used=int(15.5 * GIB)), "warning", "15.5 GiB used"),
    ("open files", MEMORY, "ok", "65536"),
    ("open files", replace(MEMORY, open_files=256), "warning", "1024 are usual"),
    ("open files", replace(MEMORY, open_files=1024, world_size=1024), "warning", "rank 0 of 1024 needs about 2304"),
    ("locked memory", MEMORY, "ok", "unlimited"),
    ("locked memory", replace(MEMORY, memlock=8 << 20), "warning", "8 MiB, with mlx5_0"),
    ("locked memory", replace(MEMORY, infiniband=()), "not applicable", "no InfiniBand"),
]


@pytest.mark.parametrize(("name", "facts", "verdict", "text"), TABLE, ids=ids(TABLE))
def test_findings(name, facts, verdict, text):
    """Each check in its good and bad states."""
    assert_finding(name, facts, verdict, text)
