"""Which status a run may take next; pure.

A worse end is never covered by a better one: of several ranks that report an end, the gravest stays,
in whatever order they arrive. Going back to RUNNING is always allowed.

>>> accepts("COMPLETED", "FAILED"), accepts("FAILED", "COMPLETED"), accepts("FAILED", "RUNNING")
(True, False, True)
"""

from __future__ import annotations

RUNNING = "RUNNING"
_GRAVITY = {"COMPLETED": 1, "TERMINATED": 2, "CANCELLED": 3, "FAILED": 4}


def accepts(current: str, wanted: str) -> bool:
    return _gravity(wanted) == 0 or _gravity(wanted) >= _gravity(current)


def has_ended(status: str) -> bool:
    return status != RUNNING


def _gravity(status: str) -> int:
    return _GRAVITY.get(status, 0)
