"""The examples in the docstrings are true."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import pluto_dist

MODULES = ["pluto_dist", *(found.name for found in pkgutil.walk_packages(pluto_dist.__path__, "pluto_dist."))]


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_doctests(name):
    """What a docstring shows is what comes out."""
    failures, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert failures == 0
