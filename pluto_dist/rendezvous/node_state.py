"""Short texts that the workers of one node keep on disk for as long as their launch lives.

A store may end with the rank or the agent that hosts it; what names the launch must not. So every node keeps the
launch's token, the tracker's number of its run and the last failure in a folder that only its own agent's workers find:

- the folder that the agent made for itself, of mode 0700, three levels above TORCHELASTIC_ERROR_FILE: torchrun makes
  one per agent and keeps it over attempts (torch 2.5 to 2.13);
- without one (``--log-dir=/dev/null``, mpirun, srun): a folder of this user's, named after the agent, which is the
  nearest ancestor process that lacks this worker's variables.

Without either nothing is kept, and only a shared store keeps a launch together. The same folder gives the attempt its
nonce. Nothing in it is secret, and readers check the form of what they read.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
import tempfile
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, unquote

from pluto_dist import private_files
from pluto_dist.environments.context import LaunchContext
from pluto_dist.environments.process_facts import process_name, stat_of, variables_of

_PREFIX = ".pluto_dist_"
_LIMIT = 8192
_GENERATIONS = 64


class NodeState:
    """Short texts by name, in a private folder; without a folder nothing is kept, and every ``get`` is ``None``.

    Args:
        path: the folder, already found private, or ``None``.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    @property
    def is_persistent(self) -> bool:
        """Whether what is set can be read again."""
        return self._path is not None

    def get(self, name: str) -> str | None:
        """The text of ``name``; ``None`` if it is not set, or not readable text."""
        if self._path is not None:
            with suppress(OSError, ValueError):  # not there, another user's, or too long
                return _text(private_files.read(self._file(self._path, name), _LIMIT * 4))
        return None

    def set_default(self, name: str, text: str) -> str:
        """Set ``name`` unless it is set; its text afterwards, which is the same in all processes of the node."""
        if self._path is not None:
            with suppress(OSError):  # a full or read-only disk: each process has its own
                private_files.create(self._file(self._path, name), _content(text))
                return self.get(name) or text
        return text

    def set(self, name: str, text: str) -> None:
        """Set ``name``, in place of what was there."""
        if self._path is not None and self.get(name) != text:
            with suppress(OSError):  # a full or read-only disk: nothing is kept
                private_files.write(self._file(self._path, name), _content(text))

    def names(self, prefix: str) -> list[str]:
        """The names that are set and begin with ``prefix``."""
        with suppress(OSError):  # as in get
            files = () if self._path is None else self._path.glob(f"{_PREFIX}{quote(prefix, safe='')}*")
            return sorted(unquote(file.name[len(_PREFIX) :]) for file in files)
        return []

    def _file(self, folder: Path, name: str) -> Path:
        return folder / f"{_PREFIX}{quote(name, safe='')}"


def _content(text: str) -> bytes:
    return text[:_LIMIT].encode("utf-8", "replace")


def _text(content: bytes) -> str | None:
    text = content.decode("utf-8", errors="replace")
    return text if 0 < len(text) <= _LIMIT and text.isprintable() else None


def find(context: LaunchContext) -> NodeState:
    """The folder of this worker's agent."""
    if not hasattr(os, "getuid"):
        return NodeState(None)  # Windows: no owner to check
    if (
        context.launch_folder is not None
        and is_supervised(context)
        and private_files.is_private(Path(context.launch_folder))
    ):
        return NodeState(Path(context.launch_folder))
    agents = None if context.attempt_folder is None else Path(context.attempt_folder).parent
    if agents is not None and private_files.is_private(agents):
        return NodeState(agents)
    if context.worker_marks and (agent := _agent(context.worker_marks)) is not None:
        return NodeState(_own_folder(agent))
    return NodeState(None)


def is_supervised(context: LaunchContext) -> bool:
    """Whether the agent above this worker is `pluto-dist run`, and is alive.

    A worker may start a launch of its own, whose workers inherit its variables but have another agent.
    """
    if context.supervisor is None:
        return False
    with suppress(OSError, ValueError, IndexError):  # no /proc
        return (agent := _agent_pid(context.worker_marks)) is not None and process_name(agent) == context.supervisor
    return context.supervisor.split(" ")[0] == str(os.getppid())


def attempt_nonce(context: LaunchContext) -> str:
    """A nonce of this node's attempt, without blanks: equal on its workers, another one in the next attempt.

    The agent removes and makes the attempt's folder at every start of its workers, which is the only sign that
    torchrun gives (torch 2.13: the restart count does not rise when another node failed). Without a private folder
    the restart count is used instead, and a new attempt is seen only by the nodes whose count rose.
    """
    fallback = f"restart-{context.restart_count or 0}"
    if context.attempt_folder is None or not hasattr(os, "getuid"):
        return fallback
    attempt = Path(context.attempt_folder)
    if not private_files.is_private(attempt.parent):
        return fallback
    nonce = NodeState(attempt).set_default("attempt", secrets.token_hex(8))
    return nonce if NodeState(attempt).get("attempt") == nonce and nonce.isalnum() else fallback


def _own_folder(agent: str) -> Path | None:
    """A private folder named ``agent``, in this user's private folder among the temporary ones."""
    try:
        ours = Path(tempfile.gettempdir()) / f"pluto_dist-{os.getuid()}"
        for folder in (ours, ours / hashlib.sha256(agent.encode()).hexdigest()[:24]):
            with suppress(FileExistsError):
                folder.mkdir(mode=0o700)
            if not private_files.is_private(folder):
                return None  # another user was here first
    except OSError:
        return None  # no temporary folder, or one that cannot be written
    return folder


def _agent(marks: tuple[str, ...]) -> str | None:
    """Name of the process that started this node's workers, unique over machines and boots."""
    try:
        pid = _agent_pid(marks)
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = Path("/proc/self/ns/pid").readlink()
        return None if pid is None else f"{boot} {namespace} {socket.gethostname()} {process_name(pid)}"
    except (OSError, ValueError, IndexError):
        return None  # no /proc


def _agent_pid(marks: tuple[str, ...]) -> int | None:
    mine, pid = variables_of("self", marks), os.getppid()
    if any(mark in mine for mark in marks):  # else it was started without them, as by multiprocessing
        for _ in range(_GENERATIONS):
            if pid == 0 or _is_agent(pid, marks, mine):
                break
            pid = stat_of(pid)[0]
    return pid or None


def _is_agent(pid: int, marks: tuple[str, ...], mine: dict[str, str]) -> bool:
    try:
        theirs = variables_of(str(pid), marks)
    except PermissionError:
        return True  # another user's: a scheduler's daemon
    return any(theirs.get(mark) != mine.get(mark) for mark in marks)
