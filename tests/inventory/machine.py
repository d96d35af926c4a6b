"""Recorded files of /proc and /sys of other machines.

A tree (``machines/*.tree``) has a line ``== path`` before the content of each file; its first line describes the
machine. Trees that name versions of kernel and systemd were recorded there, byte by byte, by a process in the cgroup or
container in question; the others were written in the formats of the kernel's documentation.
"""

from __future__ import annotations

from pathlib import Path

RECORDINGS = Path(__file__).parent / "machines"


def lay_out(recording: str, root: Path) -> Path:
    """Writes the files of ``recording`` below ``root``, and returns it."""
    text = (RECORDINGS / f"{recording}.tree").read_text()
    parts = (part.partition("\n") for part in text.split("\n== ")[1:])
    return write(root, {name: content for name, _, content in parts})


def write(root: Path, files: dict[str, str]) -> Path:
    """Writes ``files``, by path, below ``root``, and returns it."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root
