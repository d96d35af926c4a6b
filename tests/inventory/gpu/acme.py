"""A second vendor, as somebody outside of the package writes it: one record, registered by the test that uses it."""

from __future__ import annotations

from pluto_dist.inventory.gpu.vendor import Fixes, GpuVendor, KernelGpu, Runtime, TorchBackend, VisibleDevices
from pluto_dist.inventory.records import Gpu, GpuReport

HEALTHY = GpuReport(
    vendor="acme",
    driver="3.1",
    count=2,
    devices=tuple(
        Gpu(
            index=n,
            name="Acme A1",
            uuid=f"ACME-{n}{n}ff",
            memory=2**36,
            pci_bus_id=f"bus 0000:{n}a:00.0",
            nvlinks=4,
            nvlinks_up=4,
            pcie_width=16,
            pcie_width_max=16,
        )
        for n in range(2)
    ),
)
"""What the vendor's library reports of a node with two GPUs."""

VENDOR = GpuVendor(
    name="acme",
    title="Acme",
    library="libacme",
    probe=lambda: HEALTHY,
    visible=VisibleDevices(
        ("ACME_VISIBLE_DEVICES", "ACME_GPUS"), uuid_prefixes=("ACME-",), order=("ACME_ORDER", "BUS")
    ),
    link="acmelink",
    link_title="AcmeLink",
    env_prefixes=("ACME_",),
    bus_id=lambda kernels: f"bus {kernels}",
    openable=lambda: (0, 1),
    kernel_gpus=lambda: tuple(KernelGpu(n, f"0000:{n}a:00.0", "Acme A1", f"ACME-{n}{n}ff") for n in range(2)),
    torch=TorchBackend("acme"),
    runtime=Runtime(
        "AcmeRT", lambda software: (software.torch and software.torch.partition("+acme")[2]) or None, lambda _: "3"
    ),
    advice={"gpu.library": ("libacme failed, so its GPUs are unknown", "run acme-info there")},
    faults={"fuse": ("it may stop at any time", "replace its fuse")},
    fixes=Fixes(errors={"NoDevice": "modprobe acme"}, links="acme-info links"),
)
