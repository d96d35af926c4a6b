"""Which code does the job run? Commit, packages and variables: of a real git, and of what stands in its place."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from inventory.machine import write
from pluto_dist.inventory.probes import git, packages, software
from pluto_dist.inventory.probes import process as creator
from pluto_dist.inventory.probes.collect import collect
from pluto_dist.inventory.probes.sources import Sources, shared_environment
from pluto_dist.inventory.records import Git, HostReport, SoftwareReport
from pluto_dist.settings.converters import FAMILIES

IDENTITY = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
ENVIRON = {**os.environ, **IDENTITY, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}


def run(folder: Path, *words: str) -> str:
    command = ["git", "-c", "protocol.file.allow=always", *words]
    done = subprocess.run(command, cwd=folder, env=ENVIRON, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit and a remote whose URL has a password."""
    root = tmp_path / "code"
    write(root, {"train.py": "x = 1\n", "src/model.py": ""})
    run(root, "init", "-q", "-b", "main")
    run(root, "add", ".")
    run(root, "commit", "-q", "-m", "first")
    run(root, "remote", "add", "fork", "/srv/r.git")
    run(root, "remote", "add", "origin", "https://me:s3cr3t@github.com/o/r.git")
    return root


def asked(folder: Path, seconds: float = 20, **environ: str) -> Git | None:
    return git.ask(folder, ENVIRON | environ, seconds)(time.monotonic() + seconds)


def test_git_is_told_as_it_is(repository):
    """Root, branch, commit, cleanliness and remote, from a folder inside of the repository."""
    told = asked(repository / "src", GIT_DIR="/nowhere", GIT_WORK_TREE="/")

    commit = run(repository, "rev-parse", "HEAD")
    assert told == Git(str(repository), "main", commit, dirty=False, url="https://github.com/o/r.git")


@pytest.mark.parametrize(
    ("change", "dirty"),
    [({"train.py": "x = 2\n"}, True), ({"new.py": ""}, False), ({".git/index.lock": ""}, False)],
    ids=["a tracked file changed", "an untracked file", "another git holds the lock"],
)
def test_dirty_is_a_tracked_file_that_changed(repository, change, dirty):
    """Untracked files do not count, and a lock neither hinders the question nor is touched."""
    write(repository, change)
    told = asked(repository)

    assert told is not None and told.dirty is dirty
    assert (repository / ".git/index.lock").exists() is (".git/index.lock" in change)


@pytest.mark.parametrize("state", ["branch", "detached", "packed", "worktree", "submodule", "slash in branch"])
def test_the_commit_is_read_without_git(repository, tmp_path, state):
    """What is read by hand is what git says, in every layout of a repository."""
    place = repository
    if state == "detached":
        run(repository, "checkout", "-q", "--detach")
    elif state == "packed":
        run(repository, "pack-refs", "--all")
    elif state == "worktree":
        place = tmp_path / "linked"
        run(repository, "worktree", "add", "-q", "-b", "other", str(place))
    elif state == "submodule":
        outer = tmp_path / "outer"
        outer.mkdir()
        run(outer, "init", "-q")
        run(outer, "submodule", "--quiet", "add", str(repository), "inner")
        place = outer / "inner"
    elif state == "slash in branch":
        run(repository, "checkout", "-q", "-b", "user/topic")
    told = git.read(place)

    assert told is not None and told.commit == run(place, "rev-parse", "HEAD")
    assert told.branch == run(place, "branch", "--show-current")
    assert told.root == run(place, "rev-parse", "--show-toplevel")


@pytest.mark.parametrize(
    "files",
    [
        {},
        {".git/HEAD": "ref: ../../../etc/passwd\n"},
        {".git/HEAD": "ref: refs/../../outside\n", "outside": "a" * 40},
        {".git/HEAD": "ref: refs/heads/main\n", ".git/refs/heads/main": "s3cr3t\n"},
        {".git/HEAD": "s3cr3t\n"},
        {".git/HEAD": "ref: refs/heads/unborn\n"},
        {".git": "gitdir: /nowhere\n"},
    ],
)
def test_what_is_no_repository_has_no_commit(tmp_path, files):
    """A file that is no commit's name is not told, wherever a reference points."""
    found = git.read(write(tmp_path / "x", files) if files else tmp_path)

    assert found is None or found.commit is None


@pytest.mark.parametrize(
    ("config", "url"),
    [
        ("", None),
        ('[remote "up"]\n\turl = git@h:o/r.git\n', "git@h:o/r.git"),
        ('[Remote "origin"]\n  URL="https://h/o/r.git"  ; ours\n', "https://h/o/r.git"),
        ('[remote "a"]\nurl=https://h/a\n[remote "origin"]\nurl=https://h/b\nurl=https://h/c\n', "https://h/b"),
        ('[remote "origin"]\n\tpushurl = https://h/p\n', None),
        ('[url "https://s3cr3t@h/"]\n\turl = https://h/x\n[branch "origin"]\n\turl = https://h/y\n', None),
        ('[remote "origin"]\n\turl = /srv/r.git\n[remote "b"]\n\turl = https://h/b\n', None),
        ('[remote "origin"]\n\turl = https://me:s3cr3t@h/r\n', "https://h/r"),
    ],
)
def test_the_remote_is_read_from_the_config(repository, config, url):
    """origin's, or the only one's; in git's spelling of sections, keys, quotes and comments."""
    write(repository, {".git/config": config})
    told = git.read(repository)

    assert told is not None and told.url == url


def fake_git(folder: Path, script: str) -> dict[str, str]:
    """A ``git`` that is found first; the variable that leads to it."""
    folder.mkdir()
    (folder / "git").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "git").chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def test_a_hung_git_is_ended_with_all_that_it_started(repository, tmp_path):
    """After its time the answer is what was read by hand, and neither git nor its children are left."""
    ours = fake_git(tmp_path / "bin", f"echo $$ >> {tmp_path}/pids; sleep 600 & echo $! >> {tmp_path}/pids; wait")
    began = time.monotonic()
    told = asked(repository, seconds=0.5, **ours)
    seconds = time.monotonic() - began

    assert told == git.read(repository) and told is not None and told.commit
    assert seconds < 10
    pids = [int(line) for line in (tmp_path / "pids").read_text().split()]
    until = time.monotonic() + 20
    while any(map(is_alive, pids)) and time.monotonic() < until:
        time.sleep(0.02)
    assert len(pids) == 2 and not any(map(is_alive, pids))


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("script", ["exit 128", "echo garbage", "kill -SEGV $$", "printf '# branch.oid (initial)\\n'"])
def test_a_git_that_fails_costs_nothing_else(repository, tmp_path, script):
    """No repository that git trusts, a crash, nonsense: the commit stands as it was read."""
    told = asked(repository, **fake_git(tmp_path / "bin", script))

    assert told == git.read(repository) and told is not None and told.commit == run(repository, "rev-parse", "HEAD")


def test_no_git_is_no_error(repository, tmp_path):
    """Where git is not installed the commit is told all the same."""
    told = asked(repository, PATH=str(tmp_path))

    assert told is not None and told.commit and told.dirty is None


def test_git_inherits_no_key_and_asks_nobody(repository, tmp_path):
    """The key is not in git's environment; git takes no lock, asks for no password and has a session of its own."""
    ours = fake_git(
        tmp_path / "bin", f'env >> {tmp_path}/environ; cut "-d " -f6 /proc/$$/stat >> {tmp_path}/sessions; echo "$@"'
    )
    asked(repository, PLUTO_API_KEY="mlps_s3cr3t", MLOP_API_TOKEN="s3cr3t", PLUTO_DIST_SERVER_KEY="s3cr3t", **ours)

    seen = (tmp_path / "environ").read_text()
    assert "s3cr3t" not in seen
    assert seen.count("GIT_OPTIONAL_LOCKS=0\n") == seen.count("GIT_TERMINAL_PROMPT=0\n") == 1
    (session,) = (tmp_path / "sessions").read_text().split()
    assert int(session) != os.getsid(0)


def test_packages_by_their_folders_are_importlibs(tmp_path):
    """Names and versions from folders are those that importlib.metadata reads in 200 times the time."""
    theirs: dict[str, str] = {}
    for found in importlib.metadata.distributions():
        theirs.setdefault(packages.normalised(found.metadata["Name"]), found.version)

    assert packages.installed(sys.path) == tuple(f"{name}=={theirs[name]}" for name in sorted(theirs))


def test_packages_of_every_kind_of_folder(tmp_path):
    """Wheels, eggs and names with dashes; the first on the path counts, and what is no package is passed over."""
    first, second = tmp_path / "first", tmp_path / "second"
    for name in ("Flash_Attn-2.6.3+cu12.dist-info", "ruamel.yaml-0.18-py3.11.egg-info", "notes.txt", "torch", "x.pth"):
        (first / name).mkdir(parents=True)
    for name in ("flash_attn-1.0.dist-info", "old-style-name-1.2.dist-info", "-1.dist-info"):
        (second / name).mkdir(parents=True)

    told = packages.installed([str(first), str(second), str(tmp_path / "missing"), str(first)])
    assert told == ("flash-attn==2.6.3+cu12", "old-style-name==1.2", "ruamel-yaml==0.18")
    assert packages.fingerprint(told) != packages.fingerprint(told[1:])


def test_what_differs_by_nature_is_not_in_the_hash():
    """Ranks, ports, files and ids differ between nodes that are alike; a setting of NCCL does not."""
    alike = {"NCCL_DEBUG": "INFO", "OMP_NUM_THREADS": "8"}
    own = {"TORCHELASTIC_ERROR_FILE": "/tmp/1", "TORCHELASTIC_RUN_ID": "7", "TORCHELASTIC_RESTART_COUNT": "2"}
    own |= {"CUDA_VISIBLE_DEVICES": "3", "NCCL_HOSTID": "x", "HOME": "/root", "NCCL_FOO_TOKEN": "s3cr3t"}

    assert shared_environment(alike | own) == shared_environment(alike)
    assert shared_environment(alike | {"NCCL_IB_HCA": "mlx5"}) != shared_environment(alike)


@pytest.mark.parametrize("left_out", [*FAMILIES, "all"])
def test_each_family_can_be_left_out(left_out, repository, monkeypatch):
    """A family that is switched off leaves nothing in a node's inventory nor in the creator's description."""
    monkeypatch.chdir(repository)
    wanted = frozenset(() if left_out == "all" else set(FAMILIES) - {left_out})
    sources = Sources(wanted, ENVIRON | {"NCCL_DEBUG": "INFO"})
    node, process = collect(10, sources), creator.describe(sources)()
    told = {
        "argv": process.cmdline and process.exe and process.pid,
        "env": process.environ and node.software.env,
        "git": process.git and node.software.commit,
        "gpu": node.gpus.count is not None,
        "host": node.host.memory,
        "network": "network" in wanted,  # a machine may have none
        "packages": process.requirements and node.software.packages,
        "software": node.software.python,
    }

    assert {family for family, value in told.items() if value} == wanted
    if left_out == "all":
        assert (node.host, node.software, process.to_json()) == (HostReport(), SoftwareReport(), {})
    assert node.hostname
    assert node.host.nics == () or "network" in wanted


def test_a_script_elsewhere_is_found(repository, tmp_path, monkeypatch):
    """Where the working directory is in no repository, the script's is asked."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(repository / "train.py")])

    assert software.probe(Sources()).commit == run(repository, "rev-parse", "HEAD")


def test_a_long_command_line_is_cut(monkeypatch):
    """A sweep with ten thousand arguments does not fill the document; the cut is marked."""
    monkeypatch.setattr(sys, "orig_argv", ["python", "train.py", *["--option=" + "x" * 2000] * 10_000])
    told = creator.describe(Sources(frozenset({"argv"})))().cmdline

    assert told[:2] == ("python", "train.py") and told[-1] == "..."
    assert sum(map(len, told)) < 10_000
