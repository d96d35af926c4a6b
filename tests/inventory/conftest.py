"""Nodes with a fake NVIDIA driver, each asked in a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # for fakenvml, which other tests use too

from fakenvml.build import compile_fake
from fakenvml.node import FakeNode


@pytest.fixture(scope="session")
def fake_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the compiled fake; no compiler is a failure."""
    return compile_fake(tmp_path_factory.mktemp("fakenvml"))


@pytest.fixture
def node(fake_library: Path, tmp_path: Path) -> FakeNode:
    """A machine with the fake driver."""
    return FakeNode(fake_library, tmp_path)


@pytest.fixture
def node_without(tmp_path: Path) -> Callable[..., FakeNode]:
    """Machines whose driver is too old to have the named functions."""
    return lambda *absent: FakeNode(compile_fake(tmp_path / "old", absent=absent), tmp_path)
