"""Runs groups of checks in parallel within one deadline, whatever blocks or fails."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from pluto_dist.doctor.finding import (
    REPORT_BUG,
    AnyCheckGroup,
    Finding,
    Machine,
    Verdict,
    not_applicable,
    problem,
)
from pluto_dist.errors import readable
from pluto_dist.inventory.safe_read import attempt

T = TypeVar("T")


class DaemonCall(Generic[T]):
    """A call in a daemon thread, which is abandoned if it does not return in time.

    >>> DaemonCall(lambda: 6 * 7).result(1.0)
    42
    """

    def __init__(self, function: Callable[[], T]) -> None:
        self._outcomes: list[tuple[T | None, Exception | None]] = []
        self._began = time.monotonic()
        self._thread = threading.Thread(
            target=lambda: self._outcomes.append(attempt(function)), name="pluto_dist doctor", daemon=True
        )
        _, failure = attempt(self._thread.start)
        if failure is not None:  # a container's limit on processes includes threads
            self._outcomes.append((None, failure))

    def result(self, timeout: float) -> T:
        """The return value of the function.

        Args:
            timeout: seconds since the call was started.

        Raises:
            TimeoutError: the function has not returned.
            Exception: the exception of the function.
        """
        if not self._outcomes:
            self._thread.join(max(0.0, self._began + timeout - time.monotonic()))
        if not self._outcomes:
            raise TimeoutError(f"no answer within {timeout:g} s")
        value, error = self._outcomes[0]
        if error is not None:
            raise error
        return value  # type: ignore[return-value]  # None only if T includes it, since there was no error


@dataclass(frozen=True, slots=True)
class Report:
    """All findings with the names of their checks, and the duration in seconds."""

    findings: tuple[tuple[str, Finding], ...]
    seconds: float

    @property
    def verdict(self) -> Verdict:
        """The most severe verdict."""
        counts = self.counts()
        return next((verdict for verdict in ("problem", "warning") if counts[verdict]), "ok")

    def counts(self) -> Counter[str]:
        return Counter(finding.verdict for _, finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        checks = [{"name": name, **finding.to_json()} for name, finding in self.findings]
        return {"verdict": self.verdict, "seconds": round(self.seconds, 1), "checks": checks}


def examine(machine: Machine, groups: Sequence[AnyCheckGroup]) -> Report:
    """Run the checks of ``groups``; returns within ``machine.timeout`` and raises nothing."""
    began = time.monotonic()
    probes = [(group, DaemonCall(partial(group.probe, machine))) for group in groups]
    findings = [finding for group, probe in probes for finding in _findings(group, probe, machine)]
    return Report(tuple(findings), time.monotonic() - began)


def _findings(group: AnyCheckGroup, probe: DaemonCall[Any], machine: Machine) -> list[tuple[str, Finding]]:
    facts, failure = attempt(partial(probe.result, machine.timeout))
    if failure is not None:
        first, *others = [name for name, _ in group.checks]
        found = problem(
            f"cannot be checked: {failure}", group.timeout_fix if isinstance(failure, TimeoutError) else REPORT_BUG
        )
        skipped = [(name, not_applicable(f"see {first}")) for name in others]
        return [(first, _without_secrets(found, machine)), *skipped]
    findings = []
    for name, check in group.checks if group.checks_of is None else group.checks_of(facts):
        made, error = attempt(partial(check, facts))
        found = made or problem(f"the check failed: {error!r}", REPORT_BUG)
        findings.append((name, _without_secrets(found, machine)))
    return findings


def _without_secrets(finding: Finding, machine: Machine) -> Finding:
    return Finding(finding.verdict, *(_redacted(text, machine) for text in (finding.saw, finding.fix)))


def _redacted(text: str, machine: Machine) -> str:
    """``text`` without the API key, passwords in URLs and control characters: a safeguard, no check prints them."""
    for key in machine.keys.values():
        text = key.masked(text)
    return readable(re.sub(r"://[^/@\s]*@", "://***@", text))
