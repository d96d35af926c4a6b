"""Nodes with a fake NVIDIA driver, each asked in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fakenvml.build import compile_fake
from fakenvml.node import FakeNode


@pytest.fixture
def node(fake_library: Path, tmp_path: Path) -> FakeNode:
    """A machine with the fake driver."""
    return FakeNode(fake_library, tmp_path)


@pytest.fixture
def node_without(tmp_path: Path) -> Callable[..., FakeNode]:
    """Machines whose driver is too old to have the named functions."""
    return lambda *absent: FakeNode(compile_fake(tmp_path / "old", absent=absent), tmp_path)
