"""The environment as the launcher made it, where a script has changed it since.

A script may set MASTER_ADDR and MASTER_PORT for a process group of its own, once the first one is up. The ranks' store
is still where torchrun's agent said, and the kernel keeps what it said.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_ADDRESS = ("MASTER_ADDR", "MASTER_PORT")


def as_launched(environ: Mapping[str, str]) -> Mapping[str, str]:
    """``environ`` with the address of torchrun's store as torchrun gave it.

    A process that torchrun's agent did not start by a command has what its environment says.
    """
    given = _given()
    if "TORCHELASTIC_RUN_ID" not in given or given["TORCHELASTIC_RUN_ID"] != environ.get("TORCHELASTIC_RUN_ID"):
        return environ
    return {**environ, **{name: given[name] for name in _ADDRESS if name in given}}


def _given() -> dict[str, str]:
    """The variables that the kernel gave this process; none where it does not tell."""
    try:
        lines = Path("/proc/self/environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    pairs = (line.decode(errors="surrogateescape").partition("=") for line in lines)
    return {name: value for name, _, value in pairs}
