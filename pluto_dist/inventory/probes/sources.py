"""What the probes may read: the selected families of metadata, the environment, and the folders of the code."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pluto_dist.inventory import gpu, redaction
from pluto_dist.inventory.probes import git, packages
from pluto_dist.inventory.safe_read import value_or_none
from pluto_dist.settings.converters import FAMILIES

NODE_SPECIFIC = re.compile(r".*_(RANK|PORT|FILE|ID|ADDR|COUNT|DIRECTORY)|NCCL_HOSTID|UCX_NET_DEVICES")
"""Variables of one rank, node or attempt, whose values differ between equally configured nodes; and the vendors' lists
of visible devices."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What the probes of this process may read.

    Attributes:
        families: the wanted parts of the metadata, of ``settings.converters.FAMILIES``.
        environ: this process's environment; not in the repr, since it contains secrets.
    """

    families: frozenset[str] = frozenset(FAMILIES)
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def working_directory(self) -> Path | None:
        """The working directory; ``None`` if it was removed."""
        return value_or_none(Path.cwd)

    @property
    def code_folder(self) -> Path | None:
        """A folder in the repository of the code: the working directory, else the folder of the script."""
        script = value_or_none(lambda: Path(sys.argv[0]).resolve().parent)
        folders = [folder for folder in (self.working_directory, script) if folder is not None]
        return next((folder for folder in folders if value_or_none(partial(git.find_work_tree, folder))), None)


ALL_FAMILIES = Sources()
"""All families, with an empty environment."""


def recorded_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of the GPU vendors, NCCL and torch without secrets, sorted by name.

    >>> recorded_environment({"NCCL_DEBUG": "INFO", "NCCL_API_KEY": "x", "HOME": "/root"})
    {'NCCL_DEBUG': 'INFO'}
    """
    return redaction.environment(environ, gpu.environment_prefixes())


def environment_hash(environ: Mapping[str, str]) -> str:
    """A hash of the variables of the GPU vendors, NCCL and torch that should be equal on all nodes.

    >>> one, other = {"NCCL_DEBUG": "INFO", "TORCHELASTIC_ERROR_FILE": "/tmp/0"}, {"NCCL_DEBUG": "INFO"}
    >>> environment_hash(one) == environment_hash(other) != environment_hash({"NCCL_DEBUG": "WARN"})
    True
    """
    lists = {name for vendor in gpu.VENDORS for name in vendor.visible.variables}
    equal = {
        name: value
        for name, value in recorded_environment(environ).items()
        if name not in lists and not NODE_SPECIFIC.fullmatch(name)
    }
    return packages.fingerprint(f"{name}={value}" for name, value in equal.items())
