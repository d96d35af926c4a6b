"""How a run is referred to: by external id, by the tracker's number, or by display id."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any, Literal

from pluto_dist.contract.run_requests import NAME_LIMIT, ResumeRunRequest
from pluto_dist.contract.validation import LARGEST_WHOLE, unstorable

LARGEST_IN_PROJECT = 2**31 - 1  # the number in a display id: a column of four bytes
_NUMBER = re.compile("[0-9]+")
_DISPLAY_ID = re.compile(r"[A-Z0-9]{1,4}-[0-9]+")


@dataclass(frozen=True, slots=True)
class Reference:
    """How a run is named to the tracker.

    The official SDK takes an id of digits for the tracker's own number and one like ``MMP-12`` for a display
    id; both mean a run that exists. Anything else is an external id, which create-run creates or continues.
    """

    kind: Literal["external id", "number", "display id"]
    value: str

    @classmethod
    def of(cls, kind: Any, value: Any) -> Reference:
        """The reference that travelled as these two.

        Raises:
            ValueError: they are none.
        """
        if kind not in ("external id", "number", "display id") or not isinstance(value, str):
            raise ValueError(f"an id of unknown kind {str(kind)[:40]!r}")
        return cls(kind, value)

    @property
    def number(self) -> int:
        """The tracker's own number of the run, if that is how it is named."""
        return int(self.value.lstrip("0") or "0")  # int() takes no more than 4,300 digits, leading zeros included


def reference(run_id: str) -> Reference:
    """How the official SDK would read ``run_id``.

    >>> reference("123").kind, reference("MMP-12").kind, reference("mmp-12").kind
    ('number', 'display id', 'external id')
    """
    if _NUMBER.fullmatch(run_id):
        return Reference("number", run_id)
    if is_display_id(run_id):
        return Reference("display id", run_id)
    return Reference("external id", run_id)


def is_display_id(value: Any) -> bool:
    """Whether the SDK takes ``value`` for a display id.

    >>> is_display_id("MMP-12"), is_display_id("mmp-12"), is_display_id(12)
    (True, False, False)
    """
    return isinstance(value, str) and _DISPLAY_ID.fullmatch(value) is not None


def impossible(run_id: str) -> str | None:
    """Why no run can have this id; ``None`` if one can. The hosted tracker answers 500 to such an id.

    >>> impossible("JOB-20261128093000")
    'is read as a display id (such as DIG-7), and no run has a number above 2,147,483,647'
    >>> impossible("JOB-2026"), impossible("20261128093000"), impossible("run-20261128093000123456789")
    (None, None, None)
    """
    if bad := unstorable(run_id):
        return f"contains {bad}"
    kind = reference(run_id).kind
    if kind == "external id":
        excess = len(run_id) > NAME_LIMIT
        return f"has {len(run_id)} characters; at most {NAME_LIMIT} can be stored" if excess else None
    read_as, largest = "the tracker's own number of a run", LARGEST_WHOLE
    if kind == "display id":
        read_as, largest = "a display id (such as DIG-7)", LARGEST_IN_PROJECT
    digits = run_id.rpartition("-")[2].lstrip("0")
    if len(digits) <= len(str(largest)) and int(digits or "0") <= largest:
        return None
    return f"is read as {read_as}, and no run has a number above {largest:,}"


@dataclass(frozen=True, slots=True)
class RunName:
    """Which run of which tracker, as far as it can be known without asking: the tracker's API, and how it is named."""

    origin: str
    project: str
    reference: Reference

    @property
    def folder(self) -> str:
        """A file name of its own for every run; names are data, so no path is made of them."""
        parts = (self.origin, self.project, self.reference.kind, self.reference.value)
        return hashlib.sha256("\0".join(parts).encode(errors="surrogatepass")).hexdigest()[:32]


def resume_request(name: RunName) -> ResumeRunRequest:
    """How the run is named to ``/api/runs/resume``."""
    reference = name.reference
    if reference.kind == "number":
        return ResumeRunRequest(run_id=reference.number)
    if reference.kind == "display id":
        return ResumeRunRequest(display_id=reference.value, project_name=name.project)
    return ResumeRunRequest(external_id=reference.value, project_name=name.project)
