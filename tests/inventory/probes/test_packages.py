"""Installed packages, from the names of their folders."""

from __future__ import annotations

import importlib.metadata
import sys

from pluto_dist.inventory.probes import packages


def test_packages_of_this_interpreter():
    """The names of folders give what importlib.metadata reads in 200 times the time."""
    expected: dict[str, str] = {}
    for found in importlib.metadata.distributions():
        expected.setdefault(packages.normalized(found.metadata["Name"]), found.version)

    assert packages.installed(sys.path) == tuple(f"{name}=={expected[name]}" for name in sorted(expected))


def test_kinds_of_folders(tmp_path):
    """Wheels, eggs and names with dashes; the first on the path counts, and other folders are ignored."""
    first, second = tmp_path / "first", tmp_path / "second"
    for name in ("Flash_Attn-2.6.3+cu12.dist-info", "ruamel.yaml-0.18-py3.11.egg-info", "notes.txt", "torch", "x.pth"):
        (first / name).mkdir(parents=True)
    for name in ("flash_attn-1.0.dist-info", "old-style-name-1.2.dist-info", "-1.dist-info"):
        (second / name).mkdir(parents=True)

    found = packages.installed([str(first), str(second), str(tmp_path / "missing"), str(first)])
    assert found == ("flash-attn==2.6.3+cu12", "old-style-name==1.2", "ruamel-yaml==0.18")
    assert packages.fingerprint(found) != packages.fingerprint(found[1:])
