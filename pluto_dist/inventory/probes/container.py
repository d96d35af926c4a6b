"""The hypervisor, the container runtime, the image and the pod of this process.

Read from files that container runtimes create and from variables that they, or the job's manifest, set. Kubernetes'
downward API passes the names of pod and node under names of the user's choice; the usual ones are listed here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from pluto_dist.inventory import redaction
from pluto_dist.inventory.records import HostReport
from pluto_dist.inventory.safe_read import value_or_none
from pluto_dist.serialization.text import record_text

POD_VARIABLES = ("POD_NAME", "MY_POD_NAME", "K8S_POD_NAME", "KUBERNETES_POD_NAME")
NODE_VARIABLES = ("NODE_NAME", "MY_NODE_NAME", "K8S_NODE_NAME", "KUBERNETES_NODE_NAME", "KONDUKTOR_NODENAME")
IMAGE_VARIABLES = (
    "APPTAINER_CONTAINER",
    "SINGULARITY_CONTAINER",
    "SLURM_CONTAINER_IMAGE",
    "CONTAINER_IMAGE",
    "IMAGE_NAME",
)
PODINFO = "etc/podinfo"  # the mount point of the downward API's volume in Kubernetes' documentation
HYPERVISORS = {  # by the beginning of /sys/class/dmi/id/sys_vendor or product_name
    "QEMU": "kvm",
    "KVM": "kvm",
    "Amazon EC2": "kvm",
    "Google": "kvm",
    "OpenStack": "kvm",
    "VMware": "vmware",
    "Microsoft Corporation": "hyperv",
    "Xen": "xen",
    "innotek GmbH": "virtualbox",
}


def probe(environ: Mapping[str, str], root: Path = Path("/")) -> HostReport:
    """A report with these fields only, for a process with ``environ`` on the machine whose files are below ``root``."""
    container = _container(environ, root)
    pod = _first_set(environ, POD_VARIABLES) or value_or_none(
        lambda: record_text((root / PODINFO / "name").read_text())
    )
    if container == "kubernetes" and pod is None:
        pod = _first_set(environ, ("HOSTNAME",))  # the name of the pod unless its manifest sets another one
    image = _first_set(environ, IMAGE_VARIABLES) or value_or_none(
        lambda: _podman_image((root / "run/.containerenv").read_text())
    )
    return HostReport(
        virt=_hypervisor(root),
        container=container,
        image=record_text(redaction.text(image)) if image else None,
        k8s_pod=pod,
        k8s_node=_first_set(environ, NODE_VARIABLES) if pod else None,
    )


def _first_set(environ: Mapping[str, str], names: Iterable[str]) -> str | None:
    return next((value for name in names if (value := record_text(environ.get(name)))), None)


def _container(environ: Mapping[str, str], root: Path) -> str | None:
    if environ.get("KUBERNETES_SERVICE_HOST") or (root / "var/run/secrets/kubernetes.io").exists():
        return "kubernetes"
    if environ.get("APPTAINER_CONTAINER") or environ.get("SINGULARITY_CONTAINER"):
        return "apptainer"
    if (root / "run/.containerenv").exists():
        return "podman"
    if (root / ".dockerenv").exists():
        return "docker"
    return value_or_none(
        lambda: record_text((root / "run/systemd/container").read_text())
    )  # written by systemd: "lxc", …


def _podman_image(containerenv: str) -> str | None:
    """The image in podman's file, which has ``image="docker.io/pytorch/pytorch:2.4"`` in privileged containers."""
    pairs = (line.partition("=") for line in containerenv.splitlines())
    return next((value.strip('"') for name, _, value in pairs if name == "image" and value.strip('"')), None)


def _hypervisor(root: Path) -> str | None:
    dmi = root / "sys/class/dmi/id"
    flagged = value_or_none(lambda: _has_hypervisor_flag(root))
    for name in ("product_name", "sys_vendor"):
        words = record_text(value_or_none((dmi / name).read_text)) or ""
        for vendor, kind in HYPERVISORS.items():
            if words.startswith(vendor) and flagged is not False:
                return kind
    if "microsoft" in (value_or_none((root / "proc/version").read_text) or "").lower():
        return "wsl"
    return "vm" if flagged else None


def _has_hypervisor_flag(root: Path) -> bool | None:
    """Whether an x86 processor has the flag that hypervisors set; ``None`` for other architectures."""
    with (root / "proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
        flags = next((line for line in lines if line.startswith("flags")), None)
    return None if flags is None else " hypervisor" in flags
