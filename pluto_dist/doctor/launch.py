"""Which run would a job in this environment join?"""

from __future__ import annotations

from pluto_dist.doctor.explain import Explanation, explain
from pluto_dist.doctor.family import Family, Machine
from pluto_dist.doctor.finding import Finding, ok, problem
from pluto_dist.errors import PlutoDistError


def look(machine: Machine) -> Explanation | PlutoDistError:
    try:
        return explain(machine.environ)
    except PlutoDistError as error:
        return error


def run(seen: Explanation | PlutoDistError) -> Finding:
    """One line of what ``pluto-dist explain`` tells, or the error that ``init()`` would raise."""
    if isinstance(seen, PlutoDistError):
        saw, _, fix = str(seen).partition("\n")
        return problem(f"init() would raise {type(seen).__name__}: {saw}", fix.strip() or "pluto-dist explain")
    return ok(f"{seen.external_id} ({seen.launcher}, rank {seen.rank} of {seen.world_size}): {seen.source}")


FAMILY = Family(look, (("run", run),))
