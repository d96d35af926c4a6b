"""Which packages are installed? From the names of their folders, which tell name and version, not from their files.

importlib.metadata opens every package's METADATA: 179 ms for 103 packages, where listing the folders took 0.9 ms.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from functools import partial

from pluto_dist.inventory.limits import PACKAGE_LIMIT
from pluto_dist.inventory.safe_read import value_or_none
from pluto_dist.serialization.text import clean_text

# PyPA, "Recording installed projects": name-version.dist-info; setuptools' older name-version[-pyX.Y].egg-info.
_FOLDER = re.compile(r"(?P<name>[^-]+(?:-[^-\d][^-]*)*)-(?P<version>[^-]+)(?:-py\d[\d.]*)?\.(?:dist|egg)-info")


def installed(path: Iterable[str]) -> tuple[str, ...]:
    """The packages in the folders of ``path`` (``sys.path``) as "name==version", sorted; the first of a name counts."""
    versions: dict[str, str] = {}
    for entry in dict.fromkeys(path):
        for folder in value_or_none(partial(os.listdir, entry or ".")) or ():
            # Most names are no package's, and the expression takes 20 times as long to see it.
            if folder.endswith("-info") and (found := _FOLDER.fullmatch(folder)):
                versions.setdefault(normalised(found["name"]), found["version"])
    lines = (clean_text(f"{name}=={version}") for name, version in sorted(versions.items()))
    return tuple([line for line in lines if line][:PACKAGE_LIMIT])


def normalised(name: str) -> str:
    """A package's name as PEP 503 compares it.

    >>> normalised("ruamel.yaml_Clib")
    'ruamel-yaml-clib'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def fingerprint(lines: Iterable[str]) -> str:
    """16 hexadecimal digits that are equal where the lines are."""
    return hashlib.sha256("\n".join(lines).encode("utf-8", "replace")).hexdigest()[:16]
