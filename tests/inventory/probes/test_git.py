"""The state of a repository: from its files and from git, and from programs in git's place."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from inventory.machine import write
from inventory.probes.real_git import ENVIRON, run
from pluto_dist.inventory.probes import git
from pluto_dist.inventory.records import Git


def with_status(folder: Path, seconds: float = 20, **environ: str) -> Git | None:
    return git.start_status(folder, ENVIRON | environ, seconds)(time.monotonic() + seconds)


def test_all_fields(repository):
    """Root, branch, commit, dirty flag and remote, from a folder inside the repository."""
    found = with_status(repository / "src", GIT_DIR="/nowhere", GIT_WORK_TREE="/")

    commit = run(repository, "rev-parse", "HEAD")
    assert found == Git(str(repository), "main", commit, dirty=False, url="https://github.com/o/r.git")


@pytest.mark.parametrize(
    ("change", "dirty"),
    [({"train.py": "x = 2\n"}, True), ({"new.py": ""}, False), ({".git/index.lock": ""}, False)],
    ids=["a tracked file changed", "an untracked file", "another git holds the lock"],
)
def test_dirty_means_changes_in_tracked_files(repository, change, dirty):
    """Untracked files do not count, and the lock of another git neither blocks the call nor is removed."""
    write(repository, change)
    found = with_status(repository)

    assert found is not None and found.dirty is dirty
    assert (repository / ".git/index.lock").exists() is (".git/index.lock" in change)


@pytest.mark.parametrize("state", ["branch", "detached", "packed", "worktree", "submodule", "slash in branch"])
def test_the_commit_is_read_without_git(repository, tmp_path, state):
    """The files give the same result as git, in every layout of a repository."""
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
    found = git.read(place)

    assert found is not None and found.commit == run(place, "rev-parse", "HEAD")
    assert found.branch == run(place, "branch", "--show-current")
    assert found.root == run(place, "rev-parse", "--show-toplevel")


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
def test_malformed_repositories_have_no_commit(tmp_path, files):
    """Only a commit id is reported, regardless of where a reference points."""
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
    """The URL of origin, else of the first remote; with git's syntax of sections, keys, quotes and comments."""
    write(repository, {".git/config": config})
    found = git.read(repository)

    assert found is not None and found.url == url


def fake_git(folder: Path, script: str) -> dict[str, str]:
    """Creates a program ``git``; returns the PATH on which it is the first."""
    folder.mkdir()
    (folder / "git").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "git").chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def test_a_hung_git_is_killed_with_its_children(repository, tmp_path):
    """After the time limit the result is what the files contain, and neither git nor its children are left."""
    variables = fake_git(tmp_path / "bin", f"echo $$ >> {tmp_path}/pids; sleep 600 & echo $! >> {tmp_path}/pids; wait")
    began = time.monotonic()
    found = with_status(repository, seconds=0.5, **variables)
    seconds = time.monotonic() - began

    assert found == git.read(repository) and found is not None and found.commit
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
def test_a_git_that_fails(repository, tmp_path, script):
    """If git does not trust the repository, crashes or prints garbage, the result is what the files contain."""
    found = with_status(repository, **fake_git(tmp_path / "bin", script))

    assert found == git.read(repository) and found is not None and found.commit == run(repository, "rev-parse", "HEAD")


def test_without_git(repository, tmp_path):
    """If git is not installed, the commit is read from the files."""
    found = with_status(repository, PATH=str(tmp_path))

    assert found is not None and found.commit and found.dirty is None


def test_git_inherits_no_key_and_does_not_prompt(repository, tmp_path):
    """The key is not in git's environment; git takes no lock, asks for no password and runs in its own session."""
    variables = fake_git(
        tmp_path / "bin", f'env >> {tmp_path}/environ; cut "-d " -f6 /proc/$$/stat >> {tmp_path}/sessions; echo "$@"'
    )
    with_status(
        repository, PLUTO_API_KEY="mlps_s3cr3t", MLOP_API_TOKEN="s3cr3t", PLUTO_DIST_SERVER_KEY="s3cr3t", **variables
    )

    seen = (tmp_path / "environ").read_text()
    assert "s3cr3t" not in seen
    assert seen.count("GIT_OPTIONAL_LOCKS=0\n") == seen.count("GIT_TERMINAL_PROMPT=0\n") == 1
    (session,) = (tmp_path / "sessions").read_text().split()
    assert int(session) != os.getsid(0)
