"""The process that creates the run."""

from __future__ import annotations

import sys

from pluto_dist.inventory.probes.process import describe
from pluto_dist.inventory.probes.sources import Sources


def test_a_long_command_line_is_cut(monkeypatch):
    """Ten thousand arguments of a sweep do not fill the document; "..." marks the cut."""
    monkeypatch.setattr(sys, "orig_argv", ["python", "train.py", *["--option=" + "x" * 2000] * 10_000])
    cmdline = describe(Sources(frozenset({"argv"})))().cmdline

    assert cmdline[:2] == ("python", "train.py") and cmdline[-1] == "..."
    assert sum(map(len, cmdline)) < 10_000
