"""A git repository for the tests of probes."""

from __future__ import annotations

from pathlib import Path

import pytest

from inventory.machine import write
from inventory.probes.real_git import run


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit and a remote whose URL contains a password."""
    root = tmp_path / "code"
    write(root, {"train.py": "x = 1\n", "src/model.py": ""})
    run(root, "init", "-q", "-b", "main")
    run(root, "add", ".")
    run(root, "commit", "-q", "-m", "first")
    run(root, "remote", "add", "fork", "/srv/r.git")
    run(root, "remote", "add", "origin", "https://me:s3cr3t@github.com/o/r.git")
    return root
