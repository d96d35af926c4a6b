"""Compiles the fake NVIDIA library and sets the environment in which a process loads it.

pynvml always opens ``libnvidia-ml.so.1`` by name, so ``LD_LIBRARY_PATH`` of a new process selects the library, also for
its children such as torchrun's workers. Without a C compiler the tests fail; they are not skipped.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
LIBRARY = "libnvidia-ml.so.1"


@dataclass(frozen=True)
class Call:
    """One call of the driver; ``device`` is -1 for a function without a device."""

    pid: int
    function: str
    device: int


def compile_fake(folder: Path, *, absent: Sequence[str] = ()) -> Path:
    """Compiles the fake library into ``folder``, without the functions that are ``absent`` from an old driver."""
    folder.mkdir(parents=True, exist_ok=True)
    renames = [f"-D{function}=fake_absent_{n}" for n, function in enumerate(absent, 1)]
    warnings = ["-Wall", "-Wextra", "-Werror"]
    source, library = str(HERE / "fakenvml.c"), str(folder / LIBRARY)
    subprocess.run(["gcc", *warnings, "-O1", "-shared", "-fPIC", *renames, "-o", library, source], check=True)
    return folder


def write_profile(path: Path, base: str | None, *lines: str | bytes) -> Path:
    """Writes a profile: ``base`` (the name of one in this folder, or ``None``) with ``lines`` added or changed."""
    include = [f"include={HERE / base}.profile"] if base else []
    raw = [line if isinstance(line, bytes) else line.encode() for line in [*include, *lines]]
    path.write_bytes(b"\n".join(raw) + b"\n")
    return path


def environ(library: Path, profile: Path, log: Path) -> dict[str, str]:
    """The variables of a process that loads the library in ``library`` with ``profile`` and logs calls to ``log``."""
    return {"LD_LIBRARY_PATH": str(library), "FAKE_NVML": str(profile), "FAKE_NVML_LOG": str(log)}


def read_log(log: Path) -> list[Call]:
    """The calls in ``log`` in their order; empty if there is no file."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [Call(int(pid), function, int(device)) for pid, function, device in map(str.split, lines)]
