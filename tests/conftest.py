"""What more than one folder of tests needs."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakenvml.build import compile_fake


@pytest.fixture(scope="session")
def fake_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the compiled fake NVIDIA library; no compiler is a failure."""
    return compile_fake(tmp_path_factory.mktemp("fakenvml"))
