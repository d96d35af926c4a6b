"""The result of one check, and groups of checks that share one probe of the machine.

>>> warning("/dev/shm has 64 MiB", "docker run --shm-size=8g").to_json()
{'verdict': 'warning', 'saw': '/dev/shm has 64 MiB', 'fix': 'docker run --shm-size=8g'}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from pluto_dist.contract.secret import KEY_VARIABLES, Environ, Secret

F = TypeVar("F")

Verdict = Literal["ok", "warning", "problem", "not applicable"]

REPORT_BUG = "Report this with the output of pluto-dist doctor --json."

TIMEOUT = 12.0
"""Default time limit of all checks together, in seconds."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        verdict: the severity.
        saw: the state that the check found, or the reason why it does not apply.
        fix: how to correct it; empty if there is nothing to correct.
    """

    verdict: Verdict
    saw: str
    fix: str = ""

    def to_json(self) -> dict[str, str]:
        return asdict(self)


def ok(saw: str) -> Finding:
    return Finding("ok", saw)


def warning(saw: str, fix: str) -> Finding:
    """A job runs, but slowly, or may fail later."""
    return Finding("warning", saw, fix)


def problem(saw: str, fix: str) -> Finding:
    """A job that needs this does not run."""
    return Finding("problem", saw, fix)


def not_applicable(saw: str) -> Finding:
    return Finding("not applicable", saw)


def size(count: float) -> str:
    """Bytes in binary units.

    >>> size(67108864), size(1 << 40), size(100)
    ('64 MiB', '1 TiB', '100 B')
    """
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            break
        count /= 1024
    return f"{count:.3g} {unit}" if count < 1000 else f"{count:.0f} {unit}"


@dataclass(frozen=True, slots=True)
class Machine:
    """The input of a probe.

    Attributes:
        environ: the environment of the future job; with the API key as a secret, whatever was given.
        offline: whether to skip requests to the tracker.
        timeout: seconds after which a probe is abandoned.
        root: the folder that contains /proc, /sys and /dev.
    """

    environ: Mapping[str, str]
    offline: bool = False
    timeout: float = TIMEOUT
    root: Path = Path("/")

    def __post_init__(self) -> None:
        object.__setattr__(self, "environ", Environ(self.environ))

    @property
    def keys(self) -> dict[str, Secret]:
        """The API key in each variable that has one."""
        environ = Environ(self.environ)
        return {name: key for name in KEY_VARIABLES if (key := environ.secret(name)) is not None}


@dataclass(frozen=True, slots=True)
class CheckGroup(Generic[F]):
    """Checks that share a probe. Groups run in parallel, each in its own thread, so a blocked one delays no other.

    Attributes:
        probe: reads the facts that the checks judge (I/O). Its exception or timeout is the first check's problem.
        checks: names, and pure functions of the facts.
        checks_of: the checks for these facts, if they are not always the same.
        timeout_fix: how to correct a probe that does not return.
    """

    probe: Callable[[Machine], F]
    checks: tuple[tuple[str, Callable[[F], Finding]], ...]
    timeout_fix: str = REPORT_BUG
    checks_of: Callable[[F], tuple[tuple[str, Callable[[F], Finding]], ...]] | None = None


AnyCheckGroup = CheckGroup[Any]
