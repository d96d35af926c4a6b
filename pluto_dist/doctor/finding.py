"""What does one check say? A verdict, what was seen, and what mends it.

>>> warning("/dev/shm has 64 MiB", "docker run --shm-size=8g").to_json()
{'verdict': 'warning', 'saw': '/dev/shm has 64 MiB', 'fix': 'docker run --shm-size=8g'}
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

Verdict = Literal["ok", "warning", "problem", "not applicable"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's answer; ``fix`` is empty where there is nothing to mend."""

    verdict: Verdict
    saw: str
    fix: str = ""

    def to_json(self) -> dict[str, str]:
        return asdict(self)


def ok(saw: str) -> Finding:
    return Finding("ok", saw)


def warning(saw: str, fix: str) -> Finding:
    """A job runs, but slowly, or fails later."""
    return Finding("warning", saw, fix)


def problem(saw: str, fix: str) -> Finding:
    """A job that needs this does not run."""
    return Finding("problem", saw, fix)


def not_applicable(saw: str) -> Finding:
    return Finding("not applicable", saw)


def size(count: float) -> str:
    """Bytes as people read them.

    >>> size(67108864), size(1 << 40), size(100)
    ('64 MiB', '1 TiB', '100 B')
    """
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            break
        count /= 1024
    return f"{count:.3g} {unit}" if count < 1000 else f"{count:.0f} {unit}"
