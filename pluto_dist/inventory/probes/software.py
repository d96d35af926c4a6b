"""Which interpreter and which torch, CUDA, cuDNN and NCCL? And, as hashes, which packages and variables?

Never imports torch, never initialises CUDA.

A torch that is not imported yet is read from its files: importing it costs 2.4 s, reading 1 ms. Both ways
give the same words, or nodes that are alike would seem to differ by when they were asked.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path
from types import ModuleType

from pluto_dist.inventory.probes import git, packages
from pluto_dist.inventory.probes.sources import EVERYTHING, Sources, shared_environment
from pluto_dist.inventory.records import SoftwareReport
from pluto_dist.inventory.safe_read import value_or_none
from pluto_dist.serialization.text import clean_text


def probe(sources: Sources = EVERYTHING) -> SoftwareReport:
    """This interpreter and its torch, of what ``sources`` wants. What cannot be read is ``None``; nothing is raised."""
    parts = sources.families
    versions = _versions() if "software" in parts else SoftwareReport()
    return dataclasses.replace(
        versions,
        packages=value_or_none(lambda: packages.fingerprint(packages.installed(sys.path)))
        if "packages" in parts
        else None,
        env=shared_environment(sources.environ) if "env" in parts else None,
        commit=value_or_none(lambda: _commit(sources)) if "git" in parts else None,
    )


def _commit(sources: Sources) -> str | None:
    found = git.read(sources.code) if sources.code else None
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
        cudnn = value_or_none(lambda: _installed(folder.parent, "nvidia_cudnn_cu"))
        nccl = value_or_none(lambda: _installed(folder.parent, "nvidia_nccl_cu"))
    return SoftwareReport(
        python=clean_text(platform.python_version()),
        python_implementation=clean_text(platform.python_implementation()),
        python_compiler=value_or_none(lambda: clean_text(platform.python_compiler())),
        python_executable=clean_text(sys.executable),
        glibc=value_or_none(_glibc),
        torch=clean_text(torch),
        cuda=clean_text(cuda),
        cudnn=clean_text(cudnn),
        nccl=clean_text(nccl),
    )


def _imported_torch() -> ModuleType | None:
    """torch, if it is imported to the end: another thread may be in the middle of it."""
    torch = sys.modules.get("torch")
    initializing = getattr(getattr(torch, "__spec__", None), "_initializing", False)
    return None if initializing else torch


def _torch_folder() -> Path | None:
    from importlib.util import find_spec

    torch = sys.modules.get("torch")
    spec = torch.__spec__ if torch else find_spec("torch")
    return Path(spec.origin).parent if spec and spec.origin else None


def _literals(path: Path) -> dict[str, str]:
    """The strings that ``path`` assigns to names, read without running it.

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
    """cuDNN's number as words. NVIDIA made it 8907 for 8.9.7, and since 9.0 it is 90100 for 9.1.0."""
    number = torch.backends.cudnn.version()
    if number is None:
        return None
    thousands = 10_000 if number >= 90_000 else 1_000
    return f"{number // thousands}.{number % thousands // 100}.{number % 100}"


def _nccl_of_torch() -> str:
    """The NCCL that torch is linked with; asks the library for its version, which needs no GPU."""
    from importlib import import_module

    return ".".join(str(part) for part in import_module("torch.cuda.nccl").version()[:3])


def _installed(site_packages: Path, prefix: str) -> str | None:
    """The version of the one distribution whose folder starts so; three numbers of it.

    PyPI's torch takes cuDNN and NCCL from packages of their own (nvidia_nccl_cu12-2.20.5.dist-info).
    Other builds carry their own, of which no file tells: ``None``.
    """
    pattern = re.compile(re.escape(prefix) + r"\d+-(\d+\.\d+\.\d+)[\d.]*\.dist-info")
    matches = (pattern.fullmatch(entry.name) for entry in site_packages.iterdir())
    versions = {match.group(1) for match in matches if match}
    return versions.pop() if len(versions) == 1 else None


def _glibc() -> str | None:
    """glibc's version, from the running C library; ``None`` on another one (musl)."""
    import os

    name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    return clean_text(version) if name == "glibc" else None
