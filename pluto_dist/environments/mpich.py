"""Hydra, the mpirun of MPICH and of Intel MPI: the variables that it sets for each rank.

The names are those that MPICH 4.0.2 and 5.0.2 and Intel MPI 2021.18 set (a rank's environment compared with
mpirun's), on one node and on two. PMI_RANK and PMI_SIZE belong to a protocol, not to hydra: other process managers
that use it are recognised too, without hydra's local rank and size. srun uses it (``--mpi=pmi2``) but sets more in
variables of its own, so it is left to ``slurm``.
"""

from __future__ import annotations

from collections.abc import Mapping

from pluto_dist.environments.context import LaunchContext
from pluto_dist.environments.process_facts import ProcessFacts
from pluto_dist.environments.variables import master_address, on_nodes, place, seen


def detect(environ: Mapping[str, str], process: ProcessFacts) -> LaunchContext | None:
    """The launch that hydra's variables describe; ``None`` for ``mpirun -n 1``.

    >>> detect({"PMI_RANK": "1", "PMI_SIZE": "2"}, ProcessFacts()).topology.rank
    1

    Raises:
        LauncherError: the variables contradict each other.
    """
    if process.spawned or _comes_from_srun(environ):
        return None
    found = place(environ, "PMI_RANK", "PMI_SIZE", start="mpirun")
    if found is None:
        return None
    return LaunchContext(
        launcher="hydra",
        topology=on_nodes(environ, *found, "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
        hosted_address=master_address(environ),
        # The descriptor too: within a rank of another mpirun, the inner proxy has that rank's number in its
        # environment, and the rank of the same number would take it for one of its own. The outer rank's
        # descriptor is open in the inner proxy, so the ones it hands out have other numbers.
        worker_marks=("PMI_RANK", "PMI_FD"),
        variables=seen(environ, "I_MPI_HYDRA_UUID"),
    )


def _comes_from_srun(environ: Mapping[str, str]) -> bool:
    # Slurm 22.05 sets PMI_RANK, PMI_SIZE and PMI_FD, not MPI_LOCALRANKID; hydra's proxies, which srun starts in an
    # allocation, hand SLURM_STEP_ID on to ranks that have all of them.
    return "SLURM_STEP_ID" in environ and "MPI_LOCALRANKID" not in environ
