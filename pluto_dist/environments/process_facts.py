"""Facts about this process that its environment variables alone do not give.

``init()`` gathers them once; launchers get them beside the environment. This is the one module here that looks at
the process itself.

A process with an open run describes itself to its children in :data:`PARENT_VARIABLE`, so that a child knows how it is
related to the run, however it was started.

>>> gather({})
ProcessFacts(group=None, spawned=False, starts_ranks=False, is_importing=False, parent=None, began_alone=False)
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pluto_dist.environments.topology import Topology
from pluto_dist.serialization import codec
from pluto_dist.serialization.text import parse_digits

PARENT_VARIABLE = "PLUTO_DIST_PARENT"
PARENT_KEY = "parent"  # of the same text in the store of a process without a launcher
STORE_NAME = "pluto_dist"  # of that store's file in memory
# Variables that differ between two ranks, or between two launches on one machine: those of a child that were not
# its parent's are of a launch of its own.
PLACE_VARIABLES = (
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_ERROR_FILE",
    "OMPI_COMM_WORLD_RANK", "PMIX_NAMESPACE", "PMI_RANK", "PMI_FD", "MV2_COMM_WORLD_RANK", "JSM_NAMESPACE_RANK",
    "HOROVOD_RANK", "SLURM_STEP_ID", "SLURM_PROCID", "FLUX_TASK_RANK", "FLUX_JOB_ID",
)  # fmt: skip
_SET_BY_ELASTIC_AGENT = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_ERROR_FILE", "RANK")
_text = codec.text_of(8192)


@dataclass(frozen=True, slots=True)
class ParentRun:
    """A process with an open run, as its children see it.

    Attributes:
        process: its pid and start time, see :func:`process_name`.
        run_id: the run's id.
        place: its :data:`PLACE_VARIABLES`.
        store: a file by which ranks that it starts itself can join the run; "" if it is a rank of a launcher.
        is_direct: whether it is this process's own parent, and not an older ancestor.
    """

    process: str
    run_id: str
    place: tuple[tuple[str, str], ...] = ()
    store: str = ""
    is_direct: bool = False

    def to_text(self) -> str:
        """The value of :data:`PARENT_VARIABLE`."""
        fields = {"process": self.process, "run_id": self.run_id, "place": dict(self.place), "store": self.store}
        return json.dumps(fields)


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """What a launcher's ``detect`` is given beside the environment.

    Attributes:
        group: this process in torch.distributed's default process group, or ``None`` if there is none.
        spawned: whether ``multiprocessing`` started this process and the launcher's variables in its
            environment are its parent's (torch.multiprocessing.spawn inside a worker, for example).
        starts_ranks: whether that was torch.multiprocessing's ``spawn`` or ``start_processes``, which start ranks.
        is_importing: whether ``multiprocessing`` is running the script's top level again in a child.
        parent: the nearest ancestor that has an open run, if any has.
        began_alone: whether an earlier run of this process began without a launcher.
    """

    group: Topology | None = None
    spawned: bool = False
    starts_ranks: bool = False
    is_importing: bool = False
    parent: ParentRun | None = None
    began_alone: bool = False


def gather(environ: Mapping[str, str], group: Topology | None = None, *, began_alone: bool = False) -> ProcessFacts:
    """The facts about this process."""
    spawned = is_spawned(environ)
    parent = parent_run(environ) or (parent_run({PARENT_VARIABLE: _text_in_store()}) if spawned else None)
    return ProcessFacts(group, spawned, _starts_ranks(), _is_importing(), parent, began_alone)


def is_spawned(environ: Mapping[str, str]) -> bool:
    """Whether multiprocessing started this process with its parent's launcher variables.

    torch's elastic agent starts Python functions through multiprocessing too, but sets the variables in the
    worker itself: they then differ from those that the kernel gave the process. Without /proc the answer is yes
    for every child of multiprocessing.
    """
    if multiprocessing.parent_process() is None:
        return False
    try:
        given = variables_of("self", _SET_BY_ELASTIC_AGENT)
    except OSError:
        return True
    return all(name not in environ or given.get(name) == environ[name] for name in _SET_BY_ELASTIC_AGENT)


def _starts_ranks() -> bool:
    # torch.multiprocessing.spawn._wrap is the target of every process that these two start (torch 2.5 to 2.13).
    target = getattr(multiprocessing.current_process(), "_target", None)
    return getattr(target, "__module__", None) == "torch.multiprocessing.spawn"


def _is_importing() -> bool:
    # Set while spawn, forkserver and loky import the parent's __main__ (CPython 3.10 to 3.14). The forkserver itself
    # does so too, and has no parent_process().
    return getattr(multiprocessing.current_process(), "_inheriting", False) is True


def describe_parent(run_id: str, store: str, environ: Mapping[str, str]) -> str:
    """This process, with its open run, as a value of :data:`PARENT_VARIABLE`."""
    return ParentRun(process_name(os.getpid()), run_id, place_of(environ), store).to_text()


def place_of(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The :data:`PLACE_VARIABLES` that are set, with their values."""
    return tuple((name, environ[name]) for name in PLACE_VARIABLES if name in environ)


def parent_run(environ: Mapping[str, str]) -> ParentRun | None:
    """The ancestor with an open run that is named in ``environ``; ``None`` if there is none, or if it has ended.

    A process on another machine may have inherited the variable: there the ancestor is not found.
    """
    try:
        fields = json.loads(environ.get(PARENT_VARIABLE, ""))
        found = codec.decode_fields(fields, PARENT_VARIABLE, _DECODERS, _DECODERS)
    except ValueError:
        return None
    pid = parse_digits(found["process"].partition(" ")[0], most=9)
    if pid is None or pid == os.getpid() or process_name(pid) != found["process"]:
        return None
    return ParentRun(**found, is_direct=pid == os.getppid())


def _text_in_store() -> str:
    """What the parent in the sense of multiprocessing keeps in its store; "" if it keeps nothing there.

    A forkserver hands its children the environment of its own start, which may have been before the parent's run.
    """
    parent = multiprocessing.parent_process()
    with suppress(OSError, ValueError):  # no /proc, another user's, or half a line
        for descriptor in Path(f"/proc/{'self' if parent is None else parent.pid}/fd").iterdir():
            if os.fspath(descriptor.readlink()).startswith(f"/memfd:{STORE_NAME} "):
                values = dict(json.loads(line) for line in descriptor.read_text().splitlines())
                return str(values.get(PARENT_KEY, ""))
    return ""


_DECODERS: dict[str, codec.Decode] = {
    "process": _text,
    "run_id": _text,
    "place": codec.pairs(_text, 8192),
    "store": _text,
}


def process_name(pid: int) -> str:
    """A name of process ``pid`` that no other process of this boot has; its pid alone without /proc."""
    with suppress(OSError, ValueError, IndexError):
        return f"{pid} {stat_of(pid)[1]}"
    return str(pid)


def variables_of(pid: str, names: Iterable[str]) -> dict[str, str]:
    """Those of the variables ``names`` that process ``pid`` ("self" for this one) was started with.

    Raises:
        OSError: no /proc, or another user's process.
    """
    wanted = b"|".join(re.escape(name.encode()) for name in names)
    # No list of all variables: one of them is the API key, and a traceback may show the locals of this frame.
    found = re.findall(rb"(?:\A|(?<=\0))(" + wanted + rb")=([^\0]*)", Path(f"/proc/{pid}/environ").read_bytes())
    return {name.decode(): value.decode(errors="surrogateescape") for name, value in found}


def stat_of(pid: int) -> tuple[int, str]:
    """Parent and start time (in clock ticks since boot) of process ``pid``."""
    fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    return int(fields[1]), fields[19]


def hydra_job() -> int | None:
    """The number of Hydra's job, of several that it runs one after the other in this process (``--multirun``)."""
    module = sys.modules.get("hydra.core.hydra_config")
    if module is None or not module.HydraConfig.initialized():
        return None
    number = sys.modules["omegaconf"].OmegaConf.select(module.HydraConfig.get(), "job.num", throw_on_missing=False)
    return number if isinstance(number, int) else None
