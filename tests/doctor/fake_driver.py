"""Runs ``pluto-dist doctor`` on a machine with the fake driver."""

from __future__ import annotations

import json

from fakenvml.node import FakeNode

COMMAND = """
import os
from pluto_dist.cli import main
os.environ.update({environ})
try:
    main({arguments})
except SystemExit:
    pass
"""
PROFILE = "dumped.profile"


def run_doctor(node: FakeNode, profile: str, *lines: str, **environ: str) -> dict[str, tuple]:
    """Verdict and text of each check."""
    arguments = ["doctor", "--offline", "--json", "--timeout=10"]
    output, _ = node.python(COMMAND.format(environ=environ, arguments=arguments), profile, *lines)
    return {check["name"]: (check["verdict"], check["saw"]) for check in json.loads(output)["checks"]}


def dump_profile(node: FakeNode, profile: str | None, *lines: str | bytes, options: tuple[str, ...] = ()) -> set[str]:
    """Writes the profile of this driver to ``PROFILE``; returns the functions that were called."""
    arguments = ["doctor", "--nvml-profile", PROFILE, *options]
    _, calls = node.python(COMMAND.format(environ={}, arguments=arguments), profile, *lines)
    return {call.function for call in calls}
