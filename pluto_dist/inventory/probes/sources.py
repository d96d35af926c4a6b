"""What may the probes look at? The chosen families of metadata, the environment, and the folders of the code."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pluto_dist.inventory import redaction
from pluto_dist.inventory.probes import git, packages
from pluto_dist.inventory.safe_read import value_or_none
from pluto_dist.settings.converters import FAMILIES

OWN = re.compile(r".*_(RANK|PORT|FILE|ID|ADDR|COUNT|DIRECTORY)|CUDA_VISIBLE_DEVICES|NCCL_HOSTID|UCX_NET_DEVICES")
"""Variables that are a rank's, a node's or an attempt's own, so that nodes that are alike have other values."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Facts that come in at the door, for the probes of this process.

    Attributes:
        families: the parts of the metadata that are wanted, of ``parsing.FAMILIES``.
        environ: this process's environment; not shown, for it holds secrets.
    """

    families: frozenset[str] = frozenset(FAMILIES)
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def folder(self) -> Path | None:
        """The working directory; ``None`` where it was removed."""
        return value_or_none(Path.cwd)

    @property
    def code(self) -> Path | None:
        """A folder of the repository that the code is from: the working directory, else that of the script."""
        script = value_or_none(lambda: Path(sys.argv[0]).resolve().parent)
        places = [place for place in (self.folder, script) if place is not None]
        return next((place for place in places if value_or_none(partial(git.find, place))), None)


EVERYTHING = Sources()
"""All families; of an environment that is empty."""


def shared_environment(environ: Mapping[str, str]) -> str:
    """A hash of the variables that shape CUDA, NCCL and torch, and that nodes should have in common.

    >>> one, other = {"NCCL_DEBUG": "INFO", "TORCHELASTIC_ERROR_FILE": "/tmp/0"}, {"NCCL_DEBUG": "INFO"}
    >>> shared_environment(one) == shared_environment(other) != shared_environment({"NCCL_DEBUG": "WARN"})
    True
    """
    told = redaction.environment(environ)
    return packages.fingerprint(f"{name}={value}" for name, value in told.items() if not OWN.fullmatch(name))
