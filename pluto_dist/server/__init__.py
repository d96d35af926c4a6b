"""The embedded tracker: the hosted tracker's HTTP contract over one SQLite file.

For a laptop, an air-gapped cluster, and tests. It shares ``wire`` with the client side and nothing
else. ``LocalServer`` is loaded when it is first used, so importing this package costs nothing and
needs none of the ``server`` extra.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pluto_dist.server.local import LocalServer

__all__ = ["LocalServer"]


def __getattr__(name: str) -> object:
    if name == "LocalServer":
        from pluto_dist.server.local import LocalServer

        return LocalServer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
