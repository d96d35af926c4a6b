"""What a node's workers share on disk: the nonce of their attempt, and what their agent's launch remembers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pluto_dist.environments.context import LaunchContext
from pluto_dist.environments.topology import Topology
from pluto_dist.rendezvous.node_state import NodeState, attempt_nonce

NAME = ".pluto_dist_attempt"
WORKER = """
import sys, time
from pathlib import Path
from pluto_dist.rendezvous.node_state import NodeState, attempt_nonce
from pluto_dist.environments import LaunchContext
from pluto_dist.environments.topology import Topology
context = LaunchContext("torchrun", Topology(0, 1), attempt_folder=sys.argv[1], restart_count=3)
if len(sys.argv) > 2:
    print("ready", flush=True)
    until = time.monotonic() + 30
    while not Path(sys.argv[2]).exists() and time.monotonic() < until: pass
print(attempt_nonce(context))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An attempt's folder as torchrun makes it: in a folder of mode 0700 of the agent's own."""
    agents = tmp_path / "none_x7"
    agents.mkdir(mode=0o700)
    made = agents / "attempt_0"
    made.mkdir()
    return made


def nonce(folder: Path | None, restart_count: int | None = 3) -> str:
    path = None if folder is None else str(folder)
    return attempt_nonce(LaunchContext("torchrun", Topology(0, 1), attempt_folder=path, restart_count=restart_count))


def test_all_workers_of_a_node_have_one_nonce(folder, tmp_path):
    """However many processes come at once, they read the same nonce, and nothing else is left behind."""
    go = tmp_path / "go"
    command = [sys.executable, "-c", WORKER, str(folder), str(go)]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        go.touch()
        nonces = {worker.communicate(timeout=60)[0] for worker in workers}
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate(timeout=60)
    assert len(nonces) == 1
    assert re.fullmatch(r"[0-9a-f]{16}\n", nonces.pop())
    assert [entry.name for entry in folder.iterdir()] == [NAME]
    assert (folder / NAME).stat().st_mode & 0o777 == 0o600


def test_the_nonce_stays_and_goes_with_the_folder(folder):
    """The same at every look; another once the agent has made the folder anew, whatever the restart count says."""
    first = nonce(folder)
    assert nonce(folder) == first
    (folder / NAME).unlink()
    folder.rmdir()
    folder.mkdir()
    assert nonce(folder) != first


def test_a_draft_left_behind_does_no_harm(folder):
    """A worker that was killed while writing, and whose pid came back, leaves the others one nonce."""
    (folder / f"{NAME}.{os.getpid()}").write_text("")
    assert re.fullmatch(r"[0-9a-f]{16}", nonce(folder))


def stand_in(folder: Path) -> None:
    """The restart count stands in, and nothing was written."""
    before = sorted(folder.parent.rglob("*")) if folder.parent.is_dir() else []
    assert nonce(folder) == "restart-3"
    assert nonce(folder, restart_count=None) == "restart-0"
    assert (sorted(folder.parent.rglob("*")) if folder.parent.is_dir() else []) == before


def test_no_folder():
    """Without a folder (--log-dir=/dev/null) the restart count stands in."""
    assert nonce(None) == "restart-3"
    assert nonce(None, restart_count=None) == "restart-0"


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701, 0o777, 0o1777])
def test_a_folder_that_others_can_enter(folder, mode):
    """Only a folder of mode 0700 holds what workers may believe."""
    folder.parent.chmod(mode)
    stand_in(folder)


def test_a_missing_folder(folder):
    """A folder that is gone, or never was."""
    folder.rmdir()
    stand_in(folder)
    stand_in(folder.parent.parent / "never" / "attempt_0")


def test_a_file_in_the_folders_place(folder):
    """A path that is no folder."""
    folder.rmdir()
    folder.write_text("")
    stand_in(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_folder_that_cannot_be_written(folder):
    """A read-only folder."""
    folder.chmod(0o500)
    stand_in(folder)


def test_a_disk_that_is_full(folder):
    """Where nothing can be written, the restart count stands in."""
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n" + WORKER
    command = [sys.executable, "-B", "-c", limited, str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60, check=True)
    assert done.stdout == "restart-3\n"


@pytest.mark.parametrize("target", ["file", "nothing", "loop"])
def test_a_planted_link_is_not_followed(folder, tmp_path, target):
    """A symbolic link in the nonce's place is neither read nor written through."""
    secret = tmp_path / "secret"
    if target == "file":
        secret.write_text("deadbeefdeadbeef")
    (folder / NAME).symlink_to(folder / NAME if target == "loop" else secret)
    stand_in(folder)
    assert not secret.exists() or secret.read_text() == "deadbeefdeadbeef"


def test_a_linked_parent_is_not_believed(folder, tmp_path):
    """A symbolic link in place of the agent's folder is no private folder."""
    link = tmp_path / "link"
    link.symlink_to(folder.parent)
    stand_in(link / "attempt_0")


@pytest.mark.parametrize("content", ["", "a b", "../x", "x\n", "\x00"])
def test_a_planted_nonce_of_another_form(folder, content):
    """What is no word is no nonce (blanks would break the messages that carry it)."""
    (folder / NAME).write_text(content)
    stand_in(folder)


def test_a_planted_nonce_that_is_no_text(folder):
    """Bytes that are no UTF-8 are no nonce."""
    (folder / NAME).write_bytes(b"\xff\xfe\x80")
    stand_in(folder)


# What is remembered.

WORDS = ["a", "x" * 4096, "作業", '{"reason": "boom"}']


@pytest.mark.parametrize("text", WORDS, ids=["one", "longest", "unicode", "JSON"])
def test_what_is_kept_is_recalled(tmp_path, text):
    """The last word kept is what is recalled; the file is its owner's alone."""
    folder = NodeState(tmp_path)
    folder.set("token", "before")
    folder.set("token", text)
    assert folder.get("token") == text
    assert [entry.stat().st_mode & 0o777 for entry in tmp_path.iterdir()] == [0o600]


def test_the_first_word_counts(tmp_path):
    """Of several first words the earliest stays, and every process of the node has it."""
    folder = NodeState(tmp_path)
    assert [folder.set_default("token", word) for word in ("a", "b", "c")] == ["a", "a", "a"]
    assert NodeState(tmp_path).get("token") == "a"


def test_names_are_no_paths(tmp_path):
    """A name with slashes and dots is a file in the folder, nowhere else."""
    inner = tmp_path / "inner"
    inner.mkdir()
    NodeState(inner).set("../../escaped run 1", "x")
    assert NodeState(inner).get("../../escaped run 1") == "x"
    assert [entry.parent for entry in tmp_path.rglob("*") if entry.is_file()] == [inner]


def test_nowhere_to_keep():
    """Without a folder nothing is kept, and each process's first word is its own."""
    folder = NodeState(None)
    folder.set("token", "a")
    assert (folder.is_persistent, folder.get("token"), folder.set_default("token", "b")) == (False, None, "b")


def test_a_folder_that_vanished(tmp_path):
    """A folder that somebody removed costs the memory, and nothing else."""
    folder = NodeState(tmp_path / "gone")
    folder.set("token", "a")
    assert (folder.get("token"), folder.set_default("token", "b")) == (None, "b")


@pytest.mark.parametrize("target", ["file", "nothing"])
def test_a_planted_link_is_neither_read_nor_followed(tmp_path, target):
    """A symbolic link in a memory's place is not read, and what it leads to is not written."""
    secret = tmp_path / "secret"
    if target == "file":
        secret.write_text("a" * 20)
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / ".pluto_dist_token").symlink_to(secret)
    assert NodeState(kept).get("token") is None
    NodeState(kept).set("token", "b" * 20)
    assert NodeState(kept).get("token") == "b" * 20
    assert not secret.exists() or secret.read_text() == "a" * 20


def test_a_disk_that_is_full_remembers_nothing(tmp_path):
    """Where nothing can be written, nothing is kept, and no draft is left behind."""
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from pathlib import Path\nfrom pluto_dist.rendezvous.node_state import NodeState\n"
        "folder = NodeState(Path(sys.argv[1]))\nfolder.set('token', 'a')\n"
        "print(folder.get('token'), folder.set_default('token', 'b'))\n"
    )
    command = [sys.executable, "-B", "-c", code, str(tmp_path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60, check=True)
    assert done.stdout == "None b\n"
    assert list(tmp_path.iterdir()) == []


# Whose memory: the agent is the nearest ancestor without this worker's variables.

FIND = """
import sys
from pluto_dist.rendezvous.node_state import find
from pluto_dist.environments import LaunchContext
from pluto_dist.environments.topology import Topology
print(find(LaunchContext("mpi", Topology(0, 2), worker_marks=("MARK", "RANK")))._path)
"""
AGENT = """
import os, subprocess, sys
for rank, line in enumerate(sys.argv[1:]):
    subprocess.run(["sh", "-c", line], env={**os.environ, "MARK": "x", "RANK": str(rank)}, check=True)
"""


def agent(tmp_path: Path, *lines: str, **environ: str) -> list[str]:
    """What the workers of one agent find; ``$W`` in a line is a worker."""
    worker = tmp_path / "worker.py"
    worker.write_text(FIND)
    command = [sys.executable, "-c", AGENT, *(line.replace("$W", f"'{sys.executable}' '{worker}'") for line in lines)]
    environ = {**os.environ, "TMPDIR": str(tmp_path), **environ}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environ, timeout=60, check=True)
    return done.stdout.splitlines()


def test_workers_of_one_agent_share_a_folder(tmp_path):
    """Workers find one private folder, also through a shell between them and their agent; another agent has another."""
    found = agent(tmp_path, "$W", "exec $W", "true && $W; exit $?")
    assert len(set(found)) == 1
    folder = Path(found[0])
    assert folder.parent == tmp_path / f"pluto_dist-{os.getuid()}"
    assert {path.stat().st_mode & 0o777 for path in (folder, folder.parent)} == {0o700}
    assert agent(tmp_path, "$W") != found[:1]


def test_an_agent_that_is_a_worker_itself(tmp_path):
    """An agent inside another launch's worker carries that launch's variables, with other values: it is the agent."""
    inside = agent(tmp_path, "$W", MARK="outer", RANK="7")
    assert inside != agent(tmp_path, "$W", MARK="outer", RANK="7")
    assert Path(inside[0]).is_dir()


@pytest.mark.parametrize("planted", ["a folder that others can enter", "a link", "a file"])
def test_a_planted_folder_is_not_used(tmp_path, planted):
    """What somebody else put in the place of this user's folder is not believed: nothing is remembered."""
    place = tmp_path / f"pluto_dist-{os.getuid()}"
    if planted == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        place.symlink_to(tmp_path / "elsewhere")
    elif planted == "a file":
        place.write_text("")
    else:
        place.mkdir()
        place.chmod(0o777)
    assert agent(tmp_path, "$W") == ["None"]


def test_no_temporary_folder(tmp_path):
    """Where nothing can be made among the temporary files, nothing is remembered."""
    worker = "import tempfile; tempfile.tempdir = '/proc/nowhere'\n" + FIND
    command = [sys.executable, "-c", worker]
    environ = {**os.environ, "MARK": "x"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environ, timeout=60, check=True)
    assert done.stdout == "None\n"
