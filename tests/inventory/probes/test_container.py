"""Hypervisors, container runtimes, images and pods."""

from __future__ import annotations

import pytest

from inventory.machine import lay_out, write
from pluto_dist.inventory.probes import container


def test_a_pod_is_read_from_files(tmp_path):
    """Kubernetes from its service account, the pod from the downward API's volume, the cloud from the firmware."""
    found = container.probe({"NODE_NAME": "gpu-7"}, lay_out("pod_cgroup_v2", tmp_path))

    assert (found.container, found.k8s_pod, found.k8s_node, found.virt) == (
        "kubernetes",
        "trainer-worker-3",
        "gpu-7",
        "kvm",
    )


@pytest.mark.parametrize(
    ("environ", "files", "fields"),
    [
        ({}, {}, {}),
        ({}, {".dockerenv": ""}, {"container": "docker"}),
        (
            {},
            {"run/.containerenv": 'engine="podman-4.9.3"\nimage="docker.io/pytorch/pytorch:2.4"\n'},
            {"container": "podman", "image": "docker.io/pytorch/pytorch:2.4"},
        ),
        ({}, {"run/systemd/container": "lxc\n"}, {"container": "lxc"}),
        (
            {"APPTAINER_CONTAINER": "/images/torch.sif"},
            {".dockerenv": ""},
            {"container": "apptainer", "image": "/images/torch.sif"},
        ),
        (
            {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "HOSTNAME": "job-0", "CONTAINER_IMAGE": "https://u:p@reg/i:1"},
            {},
            {"container": "kubernetes", "k8s_pod": "job-0", "image": "https://***@reg/i:1"},
        ),
        (
            {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "HOSTNAME": "x", "POD_NAME": "job-0", "MY_NODE_NAME": "n"},
            {},
            {"container": "kubernetes", "k8s_pod": "job-0", "k8s_node": "n"},
        ),
        ({"HOSTNAME": "laptop", "NODE_NAME": "n"}, {}, {}),
        ({}, {"proc/version": "Linux version 5.15.90.1-microsoft-standard-WSL2"}, {"virt": "wsl"}),
        ({}, {"proc/cpuinfo": "flags\t: fpu hypervisor\n"}, {"virt": "vm"}),
        (
            {},
            {"proc/cpuinfo": "flags\t: fpu\n", "sys/class/dmi/id/sys_vendor": "Microsoft Corporation\n"},
            {},
        ),
    ],
)
def test_containers_and_hypervisors(tmp_path, environ, files, fields):
    """Each runtime is recognized by its files and variables; a physical machine has none of these fields."""
    assert container.probe(environ, write(tmp_path, files)).to_json() == fields
