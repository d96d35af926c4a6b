"""A script in a process of its own, with this package and nothing else in its environment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_script(folder: Path, text: str, *, as_module: bool = False) -> subprocess.CompletedProcess[str]:
    """Run ``text`` as ``folder/script.py``, or as the module ``script``, to its end."""
    (folder / "script.py").write_text(text)
    return subprocess.run(
        [sys.executable, *(["-m", "script"] if as_module else ["script.py"])],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
