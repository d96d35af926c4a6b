"""Filesystems: of this machine, and of a recorded machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

from inventory.machine import lay_out
from pluto_dist.inventory.probes import disks


def test_the_innermost_mount_of_a_folder(tmp_path):
    """A shared filesystem is recognized, also at a mount point with a blank in its name."""
    root = lay_out("pod_cgroup_v2", tmp_path)

    assert disks.filesystem_type(Path("/work space/me/run"), root) == "nfs4"
    assert disks.filesystem_type(Path("/scratch"), root) == "lustre"
    assert disks.filesystem_type(Path("/scratchy"), root) == "overlay"


def test_a_filesystem_of_this_machine(tmp_path):
    """Size and type are those of df."""
    command = ["df", "--output=size,fstype", "-B1", str(tmp_path)]
    size, kind = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-2:]

    assert (disks.filesystem_size(tmp_path), disks.filesystem_type(tmp_path)) == (int(size), kind)
