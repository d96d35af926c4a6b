"""The embedded tracker: the hosted tracker's HTTP contract over one SQLite file.

For laptops, air-gapped clusters and tests. It imports nothing of the client side; both share ``contract``,
``serialization`` and ``private_files``. ``LocalServer`` is imported on first use, so importing this package is cheap
and does not need the ``server`` extra.
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
