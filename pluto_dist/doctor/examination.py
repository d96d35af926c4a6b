"""How are all checks made, whatever hangs or fails? Side by side, by one deadline."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pluto_dist.doctor.asking import Asked
from pluto_dist.doctor.family import REPORT_IT, AnyFamily, Machine
from pluto_dist.doctor.finding import Finding, Verdict, not_applicable, problem
from pluto_dist.inventory.safe_read import attempt
from pluto_dist.settings.settings import VARIABLES

_KEYS = next(variable.names for variable in VARIABLES if variable.setting == "api_key")


@dataclass(frozen=True, slots=True)
class Report:
    """All findings by the names of their checks, and the seconds that it took."""

    findings: tuple[tuple[str, Finding], ...]
    seconds: float

    @property
    def verdict(self) -> Verdict:
        """The worst of all."""
        seen = self.counts()
        return next((verdict for verdict in ("problem", "warning") if seen[verdict]), "ok")

    def counts(self) -> Counter[str]:
        return Counter(finding.verdict for _, finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        checks = [{"name": name, **finding.to_json()} for name, finding in self.findings]
        return {"verdict": self.verdict, "seconds": round(self.seconds, 1), "checks": checks}


def examine(machine: Machine, families: Sequence[AnyFamily]) -> Report:
    """Make the checks of ``families``; ends by ``machine.timeout`` and raises nothing."""
    began = time.monotonic()
    asked = [(family, Asked(partial(family.look, machine))) for family in families]
    findings = [finding for family, question in asked for finding in _judged(family, question, machine)]
    return Report(tuple(findings), time.monotonic() - began)


def _judged(family: AnyFamily, question: Asked[Any], machine: Machine) -> list[tuple[str, Finding]]:
    seen, failure = attempt(partial(question.answer, machine.timeout))
    if failure is not None:
        first, *others = [name for name, _ in family.checks]
        is_silent = isinstance(failure, TimeoutError)
        found = problem(f"cannot be seen: {failure}", family.if_silent if is_silent else REPORT_IT)
        unseen = [(name, not_applicable(f"see {first}")) for name in others]
        return [(first, _without_secrets(found, machine)), *unseen]
    findings = []
    for name, check in family.checks:
        made, error = attempt(partial(check, seen))
        found = made or problem(f"the check failed: {error!r}", REPORT_IT)
        findings.append((name, _without_secrets(found, machine)))
    return findings


def _without_secrets(finding: Finding, machine: Machine) -> Finding:
    return Finding(finding.verdict, *(_redacted(text, machine) for text in (finding.saw, finding.fix)))


def _redacted(text: str, machine: Machine) -> str:
    """The last line of defence: checks do not show the key, nor a proxy's password."""
    for key in filter(None, (machine.environ.get(name, "").strip() for name in _KEYS)):
        text = text.replace(key, "***")
    return re.sub(r"://[^/@\s]*@", "://***@", text)
