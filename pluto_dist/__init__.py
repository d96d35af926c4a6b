"""One job, one run: every rank of a torchrun job in the same Pluto run, with the hardware of every node.

    import pluto_dist

    run = pluto_dist.init(project="digits", config={"lr": 1e-3})

Importing this package imports neither torch nor requests nor pynvml; ``init()`` does, when it is called.
"""

from __future__ import annotations

from pluto_dist import errors
from pluto_dist.version import __version__

TYPE_CHECKING = False  # type checkers take it for True; importing typing would be most of what this import costs
if TYPE_CHECKING:
    from typing import Any

    from pluto_dist.api import init
    from pluto_dist.run import Run

__all__ = ["Run", "__version__", "errors", "init"]


def __getattr__(name: str) -> Any:
    if name == "init":
        from pluto_dist.api import init

        return init
    if name == "Run":
        from pluto_dist.run import Run

        return Run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
