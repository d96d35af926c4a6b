"""State of the repository that the code is in, read from its files and with one call of ``git status``.

Every node reads the commit from the files (0.2 ms); the run's creator also calls git to find out whether a file was
changed, which takes 6 ms and more. Git may be missing, not trust the repository, or hang on its filesystem: the result
is then what the files contain. Neither diffs nor names of authors are read.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pluto_dist.background import start_thread
from pluto_dist.inventory import redaction
from pluto_dist.inventory.records import Git
from pluto_dist.inventory.safe_read import value_or_none
from pluto_dist.serialization.text import record_text

SECONDS = 5.0  # how long git may take
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REFERENCE = re.compile(r"ref: (refs/(?!.*\.\.)[^\s\x00]+)")
# git takes no lock that the user's git would wait for, asks for no password, runs no program that the repository sets.
_NON_INTERACTIVE = {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "", "LC_ALL": "C"}
_LOCATION_VARIABLES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")  # set in hooks, and may name another repository
STATUS = (
    *("git", "-c", "core.fsmonitor=", "--no-pager"),
    *("status", "--porcelain=v2", "--branch", "-uno", "--ignore-submodules=dirty"),
)
_SECTION = re.compile(r"\[\s*([\w.-]+)(?:\s+\"((?:[^\"\\]|\\.)*)\")?\s*\]")
_URL = re.compile(r"url\s*=\s*(?:\"([^\"]*)\"|([^\s\"#;]+))\s*(?:[#;].*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class WorkTree:
    """A working tree. ``git_dir`` is its .git folder; ``common_dir`` is shared by all working trees of a repository."""

    root: Path
    git_dir: Path
    common_dir: Path


def find_work_tree(start: Path) -> WorkTree | None:
    """The working tree that contains ``start``."""
    for root in (start, *start.parents):
        git_dir = root / ".git"
        if git_dir.is_file():  # a linked working tree, or a submodule
            git_dir = root / git_dir.read_text().partition("gitdir:")[2].strip()
        if (git_dir / "HEAD").is_file():
            common = value_or_none((git_dir / "commondir").read_text)
            return WorkTree(root, git_dir, git_dir / common.strip() if common else git_dir)
    return None


def read(start: Path) -> Git | None:
    """Root, branch, commit and remote of the repository that contains ``start``, without running git."""
    tree = value_or_none(lambda: find_work_tree(start))
    if tree is None:
        return None
    head = value_or_none(lambda: (tree.git_dir / "HEAD").read_text().strip()) or ""
    reference = _REFERENCE.fullmatch(head)
    commit = value_or_none(lambda: _resolved(tree, reference[1])) if reference else head
    return Git(
        root=record_text(str(tree.root)),
        branch=record_text(reference[1].removeprefix("refs/heads/")) if reference else "",
        commit=commit if commit and _COMMIT.fullmatch(commit) else None,
        url=value_or_none(lambda: _url((tree.common_dir / "config").read_text(errors="replace"))),
    )


def _resolved(tree: WorkTree, reference: str) -> str | None:
    for folder in (tree.git_dir, tree.common_dir):
        if (folder / reference).is_file():
            return (folder / reference).read_text().strip()
    with (tree.common_dir / "packed-refs").open(encoding="utf-8", errors="replace") as lines:
        return next((line.split(" ")[0] for line in lines if line.rstrip("\n").endswith(f" {reference}")), None)


def start_status(start: Path, environ: Mapping[str, str], seconds: float = SECONDS) -> Callable[[float], Git | None]:
    """Starts ``git status`` for the repository that contains ``start``; the returned function waits for the result.

    Args:
        start: a folder.
        environ: the environment for git; variables that may hold a secret are removed.
        seconds: the time limit; after it git is killed.

    Returns:
        A function that takes the time (monotonic clock) until which to wait, and returns what :func:`read` does if git
        has not finished by then or failed.
    """
    unchecked = read(start)
    if unchecked is None or unchecked.root is None:
        return lambda _: None
    results: list[Git] = []
    until = time.monotonic() + seconds
    kept = {name: value for name, value in environ.items() if name not in _LOCATION_VARIABLES}
    inherited = {**redaction.without_secrets(kept), **_NON_INTERACTIVE}

    def work() -> None:
        results.append(_checked(unchecked, inherited, until))

    thread = start_thread(work, "pluto-dist-git", lost="whether the work tree is clean is not recorded")

    def wait(latest: float) -> Git:
        if thread is not None:
            thread.join(max(0.0, latest - time.monotonic()))
        return results[0] if results else unchecked

    return wait


def _checked(unchecked: Git, environ: Mapping[str, str], until: float) -> Git:
    process = value_or_none(partial(_start, Path(unchecked.root or ""), environ))
    status = value_or_none(partial(_output, process, until)) if process else None
    return unchecked if status is None else _with_status(unchecked, status)


def _start(root: Path, environ: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        STATUS,
        cwd=root,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        errors="replace",
        start_new_session=True,  # its children can be killed with it, and ctrl-C reaches only the training
    )


def _output(process: subprocess.Popen[str], until: float) -> str | None:
    """The output of ``process``, or ``None`` if it failed or did not end in time."""
    try:
        output, _ = process.communicate(timeout=max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=1)
        return None
    return output if process.returncode == 0 else None


def _with_status(unchecked: Git, status: str) -> Git:
    """Adds the output of ``git status --porcelain=v2 --branch``: "# branch.oid …", "# branch.head …", changed files."""
    lines = status.splitlines()
    branch = dict(line[2:].split(" ", 1) for line in lines if line.startswith("# branch.") and line.count(" ") > 1)
    commit, head = branch.get("branch.oid", ""), branch.get("branch.head")
    if not _COMMIT.fullmatch(commit):
        return unchecked
    return replace(
        unchecked,
        commit=commit,
        branch="" if head == "(detached)" else record_text(head) or unchecked.branch,
        dirty=any(line and not line.startswith("#") for line in lines),
    )


def _url(config: str) -> str | None:
    r"""The URL of the remote "origin", else of the first remote, without user and password; from a repository's config.

    Included files and rewriting rules (``insteadOf``) are ignored.

    >>> _url('[remote "fork"]\n\turl = git@h:a/r.git\n[remote "origin"]\n\turl = https://me:pw@h/o/r.git # ours\n')
    'https://h/o/r.git'
    """
    urls: dict[str, str] = {}
    section: re.Match[str] | None = None
    for line in map(str.strip, config.splitlines()):
        section = _SECTION.match(line) or section
        found = _URL.fullmatch(line)
        if found and section and section[1].lower() == "remote" and section[2]:
            urls.setdefault(section[2], found[1] or found[2] or "")
    chosen = urls.get("origin") or next(iter(urls.values()), None)
    return record_text(redaction.url(chosen)) if chosen else None
