"""Which GPU each rank uses, from CUDA_VISIBLE_DEVICES in all its forms; what cannot be told stays unknown."""

from __future__ import annotations

import pytest

from pluto_dist.inventory import Gpu, GpuReport, MigInstance
from pluto_dist.inventory.visible import of_ranks

SLICE = MigInstance(uuid="MIG-11aa", name="NVIDIA A100 MIG 3g.20gb")


def node(*names: str, mig: bool = False) -> GpuReport:
    """GPUs of these names, the later ones at lower bus addresses."""
    devices = [
        Gpu(index=n, name=name, uuid=f"GPU-{n}{n}ff", pci_bus_id=f"0000:{n:02}", mig_instances=(SLICE,) if mig else ())
        for n, name in enumerate(names)
    ]
    return GpuReport(count=len(names), devices=tuple(devices))


FOUR, MIXED, LOST = node(*["H100"] * 4), node("H100", "T4"), GpuReport(count=2, bad=((1, "GpuIsLost"),))


@pytest.mark.parametrize(
    ("gpus", "size", "rank", "visible", "expected"),
    [
        (FOUR, 4, 0, None, (0, 1, 2, 3)),
        (FOUR, 2, 1, None, (0, 1)),
        (FOUR, 2, 0, "3,1", (3, 1)),
        (FOUR, 2, 0, " 3 , 1 ", (3, 1)),
        (FOUR, 2, 0, "GPU-22,GPU-00ff", (2, 0)),
        (FOUR, 2, 0, "GPU-,GPU-00ff", ()),
        (FOUR, 2, 0, "", ()),
        (FOUR, 2, 0, "-1", ()),
        (FOUR, 2, 0, "9,1", ()),
        (FOUR, 2, 0, "1,x,2", (1, None)),
        (FOUR, 4, 2, "3", (None, None, 3, None)),
        (FOUR, 4, 2, "3,1", ()),
        (MIXED, 2, 0, None, (None, None)),
        (MIXED, 2, 0, "GPU-11ff,GPU-00ff", (1, 0)),
        (node("A100", mig=True), 1, 0, "MIG-11aa", (0,)),
        (LOST, 1, 0, None, ()),
        (GpuReport(count=0), 2, 0, None, ()),
    ],
)
def test_the_gpu_of_each_rank(gpus, size, rank, visible, expected):
    environ = {"LOCAL_WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
    assert of_ranks(gpus, environ | ({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})) == expected


@pytest.mark.parametrize("environ", [{}, {"LOCAL_RANK": "0"}, {"LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "7"}])
def test_without_a_launcher_nothing_is_known(environ):
    assert of_ranks(FOUR, environ) == ()


def test_numbers_in_the_order_of_the_bus():
    """Unlike GPUs are numbered by CUDA's own taste, unless it is told to go by the bus."""
    environ = {"LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert of_ranks(MIXED, environ) == (0, 1)
