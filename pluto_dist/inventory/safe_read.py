"""How a probe reads one value: the only place of the inventory that swallows an exception.

>>> attempt(lambda: 1 + 1)
(2, None)
>>> value, error = attempt(lambda: int("x"))
>>> value, type(error).__name__
(None, 'ValueError')
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def attempt(read: Callable[[], T]) -> tuple[T | None, Exception | None]:
    """What ``read`` returns, or ``None`` and why.

    Every exception counts as "this value is unknown": pynvml raises UnicodeDecodeError for a name that is
    not UTF-8, NVMLLibraryMismatchError (which is no NVMLError) for an old driver, TypeError where its
    signature changed; /proc and /sys are missing, unreadable or malformed in containers. None of this
    may cost the other values, or the training.
    """
    try:
        return read(), None
    except Exception as error:  # noqa: BLE001 - see above: a value that cannot be read is unknown, nothing more
        return None, error


def value_or_none(read: Callable[[], T]) -> T | None:
    """What ``read`` returns, or ``None``, whatever the reason."""
    return attempt(read)[0]
