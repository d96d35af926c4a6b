"""The check of the folder of the offline queue."""

from __future__ import annotations

from dataclasses import replace

import pytest

from doctor.states import DISK, assert_finding, ids
from pluto_dist.doctor import Machine, disk
from pluto_dist.doctor.disk import DiskFacts

TABLE = [
    ("disk for an outage", DISK, "ok", "on ext4, 80 GiB free"),
    ("disk for an outage", replace(DISK, filesystem="nfs4"), "ok", "a network file system"),
    ("disk for an outage", replace(DISK, filesystem="tmpfs"), "warning", "lost when"),
    ("disk for an outage", replace(DISK, free=200 << 20), "warning", "200 MiB free"),
    ("disk for an outage", replace(DISK, free=1 << 20), "problem", "1 MiB free"),
    ("disk for an outage", replace(DISK, refused="/home: Read-only file system"), "problem", "Read-only"),
    ("disk for an outage", DiskFacts(None), "problem", "HOME is not set"),
]


@pytest.mark.parametrize(("name", "facts", "verdict", "text"), TABLE, ids=ids(TABLE))
def test_findings(name, facts, verdict, text):
    """Each check in its good and bad states."""
    assert_finding(name, facts, verdict, text)


def test_this_machine(tmp_path):
    """A folder that does not exist yet can be created; nothing is left behind."""
    facts = disk.probe(Machine({"PLUTO_DIR": str(tmp_path / "new")}))
    assert facts.folder == tmp_path / "new" / "pluto-dist" / "spool" and facts.refused is None and facts.filesystem
    assert list(tmp_path.iterdir()) == []
    assert disk.probe(Machine({"PLUTO_DIR": "/proc/1"})).refused
