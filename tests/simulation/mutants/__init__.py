"""Small faults of the package, one at a time, which show what the simulator's invariants can see.

``scripts/mutants`` runs the simulator with each of them.
"""

from __future__ import annotations

from simulation.mutants import client, launcher, lifecycle_begin, lifecycle_end, rendezvous
from simulation.mutants.mutant import Mutant

MUTANTS: tuple[Mutant, ...] = (
    *lifecycle_begin.MUTANTS,
    *lifecycle_end.MUTANTS,
    *rendezvous.MUTANTS,
    *client.MUTANTS,
    *launcher.MUTANTS,
)
