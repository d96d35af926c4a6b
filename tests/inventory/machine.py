"""The files of machines that this one is not, as their kernel shows them.

A tree (``machines/*.tree``) has a line ``== path`` before the content of each file; its first line says what machine it
is. Those that name a kernel's and systemd's version were recorded there, byte by byte, by a process of the cgroup or
container in question; the others were written after the formats of the kernel's documentation.
"""

from __future__ import annotations

from pathlib import Path

RECORDINGS = Path(__file__).parent / "machines"


def lay_out(recording: str, root: Path) -> Path:
    """The files of ``recording`` under ``root``."""
    text = (RECORDINGS / f"{recording}.tree").read_text()
    parts = (part.partition("\n") for part in text.split("\n== ")[1:])
    return write(root, {name: content for name, _, content in parts})


def write(root: Path, files: dict[str, str]) -> Path:
    """``files``, by path, under ``root``."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root
