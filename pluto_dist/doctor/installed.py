"""Which version of a distribution is installed?"""

from __future__ import annotations

from contextlib import suppress


def installed_version(name: str) -> str | None:
    """``None`` where it is not installed.

    >>> installed_version("no-such-distribution") is None
    True
    """
    from importlib.metadata import PackageNotFoundError, version  # 87 ms, which only the doctor has

    with suppress(PackageNotFoundError):
        return version(name)
    return None
