"""What hardware and software does this job run on? Probes of one node, and the document of all of them.

``collect`` asks this node (I/O), ``compose`` makes the run's system metadata of what all nodes told (pure),
and the records travel between. Importing this loads neither psutil nor pynvml nor torch.
"""

from .collect import collect
from .document import compose, to_text
from .records import Gpu, GpuReport, HostReport, MigInstance, NodeInventory, Process, SoftwareReport

__all__ = [
    "Gpu",
    "GpuReport",
    "HostReport",
    "MigInstance",
    "NodeInventory",
    "Process",
    "SoftwareReport",
    "collect",
    "compose",
    "to_text",
]
