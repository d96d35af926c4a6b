"""The files of machines that this one is not, as their kernel shows them.

A recording (``machines/*.tree``) has a line ``== path`` before the content of each file.
"""

from __future__ import annotations

from pathlib import Path

RECORDINGS = Path(__file__).parent / "machines"


def lay_out(recording: str, root: Path) -> Path:
    """The files of ``recording`` under ``root``."""
    text = (RECORDINGS / f"{recording}.tree").read_text()
    return write(root, dict(part.split("\n", 1) for part in text.split("\n== ")[1:]))


def write(root: Path, files: dict[str, str]) -> Path:
    """``files``, by path, under ``root``."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root
