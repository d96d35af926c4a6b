"""Derives the external id of the run that this worker belongs to.

All ranks of a launch derive the same id, and derive it again after a restart. The functions are pure: they use only
facts that every rank shares, and read neither environment nor network. If the facts are not enough, they return
:class:`NeedsLaunchToken`, and ``rendezvous`` agrees on a token with the other ranks.

A new launch is a new run unless the user asks for an earlier one: a second run costs one click, but two trainings
mixed in one run cannot be separated again. A rendezvous id alone never identifies a launch ("none" is torchrun's
default, many scripts use 123, a uuid may be a pod's), so by default it is only the prefix of a token that the ranks of
one launch agree on.

>>> from pluto_dist.environments import detect
>>> decide(detect({}), run_id="ablation-7").reference
Reference(kind='external id', value='ablation-7')
>>> decide(detect({"TORCHELASTIC_RUN_ID": "123", "RANK": "0", "WORLD_SIZE": "8"})).prefix
'torchrun-123'
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Literal

from pluto_dist.contract.run_ref import Reference, reference
from pluto_dist.environments.context import LaunchContext
from pluto_dist.errors import NoStableIdError

_SLUG_LENGTH = 48
_LAUNCHER = re.compile(r"[a-z]+(-[a-z]+)*")
TOKEN = re.compile(r"[a-z2-7]{20}")

Row = Literal["run_id", "resume", "rendezvous id", "no rendezvous id", "no agent", "one process"]
"""The row of the identity table that applied."""


@dataclass(frozen=True, slots=True)
class Named:
    """The facts identify the run.

    Attributes:
        reference: the run.
        source: the fact that identifies it, in words for the user.
        row: the row of the identity table that applied, for ``explain``.
        derived: whether this module made the id; the user's own is used verbatim, for every run of the process.
    """

    reference: Reference
    source: str
    row: Row
    derived: bool = False

    def reference_of(self, nth: int) -> Reference:
        """The ``nth`` run (from 1) of the launch."""
        if not self.derived or nth == 1:
            return self.reference
        return Reference(self.reference.kind, f"{self.reference.value}-{nth}")


@dataclass(frozen=True, slots=True)
class NeedsLaunchToken:
    """The ranks must agree on a token; the external id is ``prefix``, a dash, the token."""

    prefix: str
    source: str
    row: Row

    def external_id(self, token: str, nth: int = 1) -> str:
        """The external id of the ``nth`` run (from 1) of the launch that agreed on ``token``."""
        return f"{self.prefix}-{token}" + (f"-{nth}" if nth > 1 else "")

    def is_same_run(self, other: Reference, token: str, nth: int = 1) -> bool:
        """Whether ``other`` is this run under the name of another launcher.

        Without a rendezvous id only the launcher's name is before the token, and each rank guesses it from what it
        sees: a rank whose variables are its parent's knows the process group alone, for example.

        >>> mine = NeedsLaunchToken("process-group", "", "no agent")
        >>> mine.is_same_run(Reference("external id", f"environment-{'a' * 20}"), "a" * 20)
        True
        """
        if self.row not in ("no agent", "one process") or other.kind != "external id":
            return False
        ending = self.external_id(token, nth).removeprefix(self.prefix)
        return other.value.endswith(ending) and _LAUNCHER.fullmatch(other.value.removesuffix(ending)) is not None


Decision = Named | NeedsLaunchToken


def decide(context: LaunchContext, *, run_id: str | None = None, resume: bool | None = None) -> Decision:
    """The run of this worker, or the token that its ranks must agree on first.

    Args:
        context: the launch.
        run_id: the user's own id (argument or PLUTO_RUN_ID); used verbatim.
        resume: ``True`` to continue the run of an earlier launch of the same job.

    Raises:
        NoStableIdError: ``resume``, but nothing names the job over its launches.
    """
    if run_id is not None:
        return Named(reference(run_id), "run_id (argument or PLUTO_RUN_ID), used verbatim", "run_id")
    if resume:
        return _resumed(context)
    return _fresh(context)


def chosen_id(context: LaunchContext) -> str | None:
    """The rendezvous id, if the user (and not torchrun) chose it."""
    return context.chosen_id or (None if context.rendezvous_is_random else context.rendezvous_id)


def _resumed(context: LaunchContext) -> Named:
    """The same id on every launch of a job: from its scheduler, and from the rendezvous id that the user chose."""
    chosen, scope = chosen_id(context), context.scope
    if chosen is None and scope is None:
        raise _no_stable_id(context)
    names = [context.launcher if scope is None else scope.scheduler, *(() if scope is None else (scope.value,))]
    words = [*names, *(() if chosen is None else (chosen,))]
    digest = hashlib.sha256("\0".join(words).encode(errors="surrogatepass")).hexdigest()[:16]
    facts = [] if scope is None else [f"{scope.scheduler} job {_shown(scope.value)}"]
    facts += [] if chosen is None else [f"rendezvous id {_shown(chosen)}"]
    return Named(
        Reference("external id", f"{names[0]}-{slug('-'.join(words[1:]))}-{digest}"),
        f"resume with {' and '.join(facts)}: the same run on every launch with this",
        "resume",
        derived=True,
    )


def _fresh(context: LaunchContext) -> NeedsLaunchToken:
    prefix, chosen = context.launcher.replace("_", "-"), chosen_id(context)
    if context.launcher == "single":
        return NeedsLaunchToken(prefix, "a fresh id: one process, started by no launcher", "one process")
    if chosen is not None:
        source = f"rendezvous id {_shown(chosen)} + a token of this launch"
        return NeedsLaunchToken(f"{prefix}-{slug(chosen)}", source, "rendezvous id")
    if context.rendezvous_id is not None:
        source = "a random rendezvous id + a token of this launch"
        return NeedsLaunchToken(f"{prefix}-{context.rendezvous_id[:8]}", source, "rendezvous id")
    row: Row = "no rendezvous id" if context.launcher == "torchrun" else "no agent"
    return NeedsLaunchToken(prefix, "a token of this launch: it has no rendezvous id", row)


def slug(text: str) -> str:
    """``text`` shortened to what an external id may contain; for readers only, since different texts may share one.

    >>> slug("my job/7"), slug("作業")
    ('my-job-7', 'x')
    """
    return re.sub(r"[^A-Za-z0-9._]+", "-", text)[:_SLUG_LENGTH].strip("-") or "x"


def _shown(rendezvous_id: str) -> str:
    return repr(rendezvous_id) if len(rendezvous_id) <= 80 else f"{rendezvous_id[:80]!r}..."


def _no_stable_id(context: LaunchContext) -> NoStableIdError:
    seen = "no rendezvous id was given"
    if context.rendezvous_id is not None:
        seen = f"the rendezvous id {context.rendezvous_id!r} looks random, a new one on every launch"
    return NoStableIdError(
        "resume=True needs a name of this job that is the same on every launch, and there is none: PLUTO_RUN_ID is "
        f"unset, no scheduler's job id is set (SLURM_JOB_ID, for example), and {seen}.\n"
        "Export the same PLUTO_RUN_ID (or pass run_id=) on every launch, or start torchrun with "
        "--rdzv-backend=c10d --rdzv-id=NAME."
    )
