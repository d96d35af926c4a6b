"""The environment as the launcher made it, where a script has changed it since.

A script may set MASTER_ADDR and MASTER_PORT for a process group of its own, once the first one is up. The ranks' store
is still where torchrun's agent said, and the kernel keeps what it said.
"""

from __future__ import annotations

from pluto_dist.contract.secret import Environ
from pluto_dist.environments.process_facts import variables_of

_ADDRESS = ("MASTER_ADDR", "MASTER_PORT")


def as_launched(environ: Environ) -> Environ:
    """``environ`` with the address of torchrun's store as torchrun gave it.

    A process that torchrun's agent did not start by a command has what its environment says.
    """
    given = _given_variables()
    if "TORCHELASTIC_RUN_ID" not in given or given["TORCHELASTIC_RUN_ID"] != environ.get("TORCHELASTIC_RUN_ID"):
        return environ
    return environ.changed({name: given[name] for name in _ADDRESS if name in given})


def _given_variables() -> dict[str, str]:
    """What the kernel gave this process; nothing where it does not tell."""
    try:
        return variables_of("self", ("TORCHELASTIC_RUN_ID", *_ADDRESS))
    except OSError:
        return {}
