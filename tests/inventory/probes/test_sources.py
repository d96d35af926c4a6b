"""What the probes may read: families of metadata, environment, folders of the code."""

from __future__ import annotations

import sys

import pytest

from inventory.probes.real_git import ENVIRON, run
from pluto_dist.inventory.probes import process as process_probe
from pluto_dist.inventory.probes import software
from pluto_dist.inventory.probes.collect import collect
from pluto_dist.inventory.probes.sources import Sources, environment_hash
from pluto_dist.inventory.records import HostReport, SoftwareReport
from pluto_dist.settings.converters import FAMILIES


def test_node_specific_variables_are_not_in_the_hash():
    """Ranks, ports, files and ids differ between equally configured nodes; a setting of NCCL does not."""
    equal = {"NCCL_DEBUG": "INFO", "OMP_NUM_THREADS": "8"}
    own = {"TORCHELASTIC_ERROR_FILE": "/tmp/1", "TORCHELASTIC_RUN_ID": "7", "TORCHELASTIC_RESTART_COUNT": "2"}
    own |= {"CUDA_VISIBLE_DEVICES": "3", "NCCL_HOSTID": "x", "HOME": "/root", "NCCL_FOO_TOKEN": "s3cr3t"}

    assert environment_hash(equal | own) == environment_hash(equal)
    assert environment_hash(equal | {"NCCL_IB_HCA": "mlx5"}) != environment_hash(equal)


@pytest.mark.parametrize("left_out", [*FAMILIES, "all"])
def test_each_family_can_be_left_out(left_out, repository, monkeypatch):
    """Neither a node's inventory nor the description of the creator has values of a family that is switched off."""
    monkeypatch.chdir(repository)
    wanted = frozenset(() if left_out == "all" else set(FAMILIES) - {left_out})
    sources = Sources(wanted, ENVIRON | {"NCCL_DEBUG": "INFO"})
    node, process = collect(10, sources), process_probe.describe(sources)()
    found = {
        "argv": process.cmdline and process.exe and process.pid,
        "env": process.environ and node.software.env,
        "git": process.git and node.software.commit,
        "gpu": node.gpus.count is not None,
        "host": node.host.memory,
        "network": "network" in wanted,  # a machine may have none
        "packages": process.requirements and node.software.packages,
        "software": node.software.python,
    }

    assert {family for family, value in found.items() if value} == wanted
    if left_out == "all":
        assert (node.host, node.software, process.to_json()) == (HostReport(), SoftwareReport(), {})
    assert node.hostname
    assert node.host.nics == () or "network" in wanted


def test_the_repository_of_the_script(repository, tmp_path, monkeypatch):
    """It is used if the working directory is not in a repository."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(repository / "train.py")])

    assert software.probe(Sources()).commit == run(repository, "rev-parse", "HEAD")
