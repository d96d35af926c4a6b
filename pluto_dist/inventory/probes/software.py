"""Versions of the interpreter, torch, CUDA, cuDNN and NCCL; hashes of the packages and of the environment.

Never imports torch, never initializes CUDA.

If torch is not imported yet, its files are read: importing costs 2.4 s, reading 1 ms. Both ways give the same strings;
otherwise equal nodes would seem to differ.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path
from types import ModuleType

from pluto_dist.inventory.probes import git, packages
from pluto_dist.inventory.probes.sources import ALL_FAMILIES, Sources, environment_hash
from pluto_dist.inventory.records import SoftwareReport
from pluto_dist.inventory.safe_read import value_or_none
from pluto_dist.serialization.text import record_text


def probe(sources: Sources = ALL_FAMILIES) -> SoftwareReport:
    """The wanted families of this interpreter and its torch. What cannot be read is ``None``; nothing is raised."""
    families = sources.families
    versions = _versions() if "software" in families else SoftwareReport()
    return dataclasses.replace(
        versions,
        packages=value_or_none(_packages_hash) if "packages" in families else None,
        env=environment_hash(sources.environ) if "env" in families else None,
        commit=value_or_none(lambda: _commit(sources)) if "git" in families else None,
    )


def _packages_hash() -> str:
    return packages.fingerprint(packages.installed(sys.path))


def _commit(sources: Sources) -> str | None:
    folder = sources.code_folder
    found = git.read(folder) if folder else None
    return found.commit if found else None


def _versions() -> SoftwareReport:
    import platform

    imported = _imported_torch()
    folder = value_or_none(_torch_folder)
    written = (value_or_none(lambda: _literals(folder / "version.py")) if folder else None) or {}
    torch, cuda = written.get("__version__"), written.get("cuda")
    cudnn = nccl = None
    if imported is not None:
        torch = value_or_none(lambda: str(imported.version.__version__))
        cuda = value_or_none(lambda: imported.version.cuda)
    if imported is not None and cuda:
        cudnn = value_or_none(lambda: _cudnn_of(imported))
        nccl = value_or_none(_nccl_of_torch)
    elif folder and cuda:
        cudnn = value_or_none(lambda: _installed_version(folder.parent, "nvidia_cudnn_cu"))
        nccl = value_or_none(lambda: _installed_version(folder.parent, "nvidia_nccl_cu"))
    return SoftwareReport(
        python=record_text(platform.python_version()),
        python_implementation=record_text(platform.python_implementation()),
        python_compiler=value_or_none(lambda: record_text(platform.python_compiler())),
        python_executable=record_text(sys.executable),
        glibc=value_or_none(_glibc),
        torch=record_text(torch),
        cuda=record_text(cuda),
        cudnn=record_text(cudnn),
        nccl=record_text(nccl),
    )


def _imported_torch() -> ModuleType | None:
    """torch, if its import has completed: another thread may be importing it."""
    torch = sys.modules.get("torch")
    initializing = getattr(getattr(torch, "__spec__", None), "_initializing", False)
    return None if initializing else torch


def _torch_folder() -> Path | None:
    from importlib.util import find_spec

    torch = sys.modules.get("torch")
    spec = torch.__spec__ if torch else find_spec("torch")
    return Path(spec.origin).parent if spec and spec.origin else None


def _literals(path: Path) -> dict[str, str]:
    """The string constants that ``path`` assigns to names, read without executing it.

    torch/version.py: ``__version__ = '2.4.0+cu121'`` and ``cuda: Optional[str] = '12.1'``.
    """
    import ast

    found = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = getattr(node, "value", None)
        for target in targets:
            if isinstance(target, ast.Name) and isinstance(value, ast.Constant):
                found[target.id] = value.value
    return {name: value for name, value in found.items() if isinstance(value, str)}


def _cudnn_of(torch: ModuleType) -> str | None:
    """cuDNN's version: its number is 8907 for 8.9.7, and since 9.0 it is 90100 for 9.1.0."""
    number = torch.backends.cudnn.version()
    if number is None:
        return None
    thousands = 10_000 if number >= 90_000 else 1_000
    return f"{number // thousands}.{number % thousands // 100}.{number % 100}"


def _nccl_of_torch() -> str:
    """The version of the NCCL that torch is linked with, from the library, which needs no GPU."""
    from importlib import import_module

    return ".".join(str(part) for part in import_module("torch.cuda.nccl").version()[:3])


def _installed_version(site_packages: Path, prefix: str) -> str | None:
    """The first three numbers of the version of the only distribution whose folder has this prefix.

    PyPI's torch gets cuDNN and NCCL from separate packages (nvidia_nccl_cu12-2.20.5.dist-info). Other builds bundle
    them, and no file contains their versions: ``None``.
    """
    pattern = re.compile(re.escape(prefix) + r"\d+-(\d+\.\d+\.\d+)[\d.]*\.dist-info")
    matches = (pattern.fullmatch(entry.name) for entry in site_packages.iterdir())
    versions = {match.group(1) for match in matches if match}
    return versions.pop() if len(versions) == 1 else None


def _glibc() -> str | None:
    """The version of the running glibc; ``None`` for another C library (musl)."""
    import os

    name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    return record_text(version) if name == "glibc" else None
