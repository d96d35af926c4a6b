"""torchrun, torch.distributed.run and elastic_launch: the variables that their agent sets for each worker.

The names are those that torch 2.13's agent sets (a worker's environment compared with its agent's);
older releases set the same ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath

from pluto_dist.environments.context import LaunchContext
from pluto_dist.environments.process_facts import ProcessFacts
from pluto_dist.environments.topology import Topology, node_place
from pluto_dist.environments.variables import master_address, rank_and_world, seen, whole_number
from pluto_dist.errors import LauncherError
from pluto_dist.log import lacking

FOLDER_VARIABLE = "PLUTO_DIST_LAUNCH_FOLDER"  # set by `pluto-dist run` for its workers
SUPERVISOR_VARIABLE = "PLUTO_DIST_SUPERVISOR"
TRACKER_VARIABLE = "PLUTO_DIST_SUPERVISOR_TRACKER"  # the tracker that it reports to, "" for none
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_UUID_AS_INT = re.compile(r"[0-9]{36,39}")


def detect(environ: Mapping[str, str], process: ProcessFacts) -> LaunchContext | None:
    """The launch that torchrun's variables describe.

    >>> env = {"TORCHELASTIC_RUN_ID": "none", "RANK": "1", "WORLD_SIZE": "2"}
    >>> detect(env, ProcessFacts()).topology
    Topology(rank=1, world_size=2, local_rank=None, local_world_size=None, node_rank=None, node_count=None)

    Raises:
        LauncherError: the variables contradict each other.
    """
    if "TORCHELASTIC_RUN_ID" not in environ or process.spawned:
        # A process that a worker spawned inherits all of these variables and is not a worker.
        return None
    topology = _topology(environ)
    rendezvous_id = _meaningful(environ["TORCHELASTIC_RUN_ID"])
    random = rendezvous_id is not None and is_random(rendezvous_id)
    return LaunchContext(
        launcher="torchrun",
        topology=topology,
        rendezvous_id=rendezvous_id,
        rendezvous_is_random=random,
        chosen_id=_dropped_id(environ, topology) if random or rendezvous_id is None else None,
        store_address=_store_address(environ),
        hosted_address=None if _agent_shares_its_store(environ) else master_address(environ),
        attempt_folder=_attempt_folder(environ.get("TORCHELASTIC_ERROR_FILE", "")),
        restart_count=whole_number(environ, "TORCHELASTIC_RESTART_COUNT"),
        max_restarts=whole_number(environ, "TORCHELASTIC_MAX_RESTARTS"),
        launch_folder=environ.get(FOLDER_VARIABLE),
        supervisor=environ.get(SUPERVISOR_VARIABLE),
        supervisor_tracker=environ.get(TRACKER_VARIABLE),
        worker_marks=("TORCHELASTIC_RUN_ID", "MASTER_PORT"),
        variables=seen(environ, "TORCHELASTIC_RUN_ID", "PET_RDZV_ID"),
    )


def _topology(environ: Mapping[str, str]) -> Topology:
    rank, world_size = rank_and_world(environ)
    node_rank, node_count = node_place(whole_number(environ, "GROUP_RANK"), whole_number(environ, "GROUP_WORLD_SIZE"))
    return Topology(
        rank=rank,
        world_size=world_size,
        local_rank=whole_number(environ, "LOCAL_RANK"),
        local_world_size=whole_number(environ, "LOCAL_WORLD_SIZE"),
        node_rank=node_rank,
        node_count=node_count,
    )


def is_random(rendezvous_id: str) -> bool:
    """Whether torchrun may have made this id up.

    Single-node torchrun (torch 2.12 on) makes a uuid4; an empty ``--rdzv-id`` becomes the integer of one.
    A user's uuid (a pod's, for example) cannot be distinguished from torchrun's and counts as random too.

    >>> is_random("cc9f1e1c-3a4b-4a53-9d2e-0d5f0f4f6a10"), is_random("123")
    (True, False)
    """
    return bool(_UUID.fullmatch(rendezvous_id) or _UUID_AS_INT.fullmatch(rendezvous_id))


def _meaningful(rendezvous_id: str) -> str | None:
    # "none" is torchrun's default if an id is needed and none was given.
    return None if rendezvous_id.strip() in ("", "none") else rendezvous_id


def _dropped_id(environ: Mapping[str, str], topology: Topology) -> str | None:
    # Single-node torchrun drops the user's id unless a backend or a port is given; only PET_RDZV_ID keeps
    # it. On several nodes that variable may differ from node to node, so it is not used there.
    return _meaningful(environ.get("PET_RDZV_ID", "")) if topology.node_count == 1 else None


def _agent_shares_its_store(environ: Mapping[str, str]) -> bool:
    # "False" with TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 and with an etcd rendezvous: rank 0 then hosts a store
    # at MASTER_ADDR:MASTER_PORT in init_process_group, a new one for every attempt.
    return environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _store_address(environ: Mapping[str, str]) -> tuple[str, int] | None:
    if not _agent_shares_its_store(environ):
        return None
    address = master_address(environ)
    if address is None:
        raise LauncherError(
            "TORCHELASTIC_USE_AGENT_STORE is True but MASTER_ADDR or MASTER_PORT is not set "
            f"(MASTER_ADDR is {environ.get('MASTER_ADDR')!r}).\nPass torchrun's variables on to the script unchanged."
        )
    return address


def _attempt_folder(error_file: str) -> str | None:
    # <log dir>/<run id>_<random>/attempt_<restart count>/<local rank>/error.json, made by the agent, which
    # removes and makes the attempt's folder at every start of its workers. /dev/null with --log-dir=/dev/null.
    path = PurePath(error_file)
    if path.is_absolute() and path.name == "error.json" and path.parent.parent.name.startswith("attempt_"):
        return str(path.parent.parent)
    if path.is_absolute() and path.suffix:
        lacking("attempt_N/RANK/error.json in torch's folder", "TORCHELASTIC_RESTART_COUNT alone tells attempts apart")
    return None
