"""Which commit is the code at? Read from the repository's files, and one question to git itself.

Every node reads the commit by hand (0.2 ms); the node of the run's creator also asks git whether a file was
changed, which takes it 6 ms and more. There may be no git, a repository that it does not trust, or a filesystem on
which it hangs: what was read by hand stands then. Neither diffs nor names of people are looked at.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pluto_dist.inventory import redaction
from pluto_dist.inventory.records import Git
from pluto_dist.inventory.safe_read import attempt, value_or_none
from pluto_dist.serialization.text import clean_text

SECONDS = 5.0  # how long git may take
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REFERENCE = re.compile(r"ref: (refs/(?!.*\.\.)[^\s\x00]+)")
# No lock that the user's own git would wait for, nobody to ask for a password, no program that the repository names.
_QUIET = {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "", "LC_ALL": "C"}
_OTHER_PLACES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")  # set in a hook; the repository is the one found
STATUS = (
    *("git", "-c", "core.fsmonitor=", "--no-pager"),
    *("status", "--porcelain=v2", "--branch", "-uno", "--ignore-submodules=dirty"),
)
_SECTION = re.compile(r"\[\s*([\w.-]+)(?:\s+\"((?:[^\"\\]|\\.)*)\")?\s*\]")
_URL = re.compile(r"url\s*=\s*(?:\"([^\"]*)\"|([^\s\"#;]+))\s*(?:[#;].*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Checkout:
    """A repository's working tree. ``folder`` is its .git, ``shared`` that of the main one of several trees."""

    root: Path
    folder: Path
    shared: Path


def find(start: Path) -> Checkout | None:
    """The working tree that ``start`` is in."""
    for root in (start, *start.parents):
        folder = root / ".git"
        if folder.is_file():  # a linked working tree, or a submodule
            folder = root / folder.read_text().partition("gitdir:")[2].strip()
        if (folder / "HEAD").is_file():
            common = value_or_none((folder / "commondir").read_text)
            return Checkout(root, folder, folder / common.strip() if common else folder)
    return None


def read(start: Path) -> Git | None:
    """Root, branch, commit and remote of the repository that ``start`` is in, without asking git."""
    checkout = value_or_none(lambda: find(start))
    if checkout is None:
        return None
    head = value_or_none(lambda: (checkout.folder / "HEAD").read_text().strip()) or ""
    reference = _REFERENCE.fullmatch(head)
    commit = value_or_none(lambda: _resolved(checkout, reference[1])) if reference else head
    return Git(
        root=clean_text(str(checkout.root)),
        branch=clean_text(reference[1].removeprefix("refs/heads/")) if reference else "",
        commit=commit if commit and _COMMIT.fullmatch(commit) else None,
        url=value_or_none(lambda: _url((checkout.shared / "config").read_text(errors="replace"))),
    )


def _resolved(checkout: Checkout, reference: str) -> str | None:
    for folder in (checkout.folder, checkout.shared):
        if (folder / reference).is_file():
            return (folder / reference).read_text().strip()
    with (checkout.shared / "packed-refs").open(encoding="utf-8", errors="replace") as lines:
        return next((line.split(" ")[0] for line in lines if line.rstrip("\n").endswith(f" {reference}")), None)


def ask(start: Path, environ: Mapping[str, str], seconds: float = SECONDS) -> Callable[[float], Git | None]:
    """Starts asking git about the repository that ``start`` is in; what it returns waits for the answer.

    Args:
        start: a folder.
        environ: what git inherits, but for the variables that may hold a secret.
        seconds: how long git may take; then it is ended.

    Returns:
        A function of a time (monotonic clock) until which it waits. What git has not answered then is what was
        read by hand.
    """
    mine = read(start)
    if mine is None or mine.root is None:
        return lambda _: None
    answers: list[Git] = []
    until = time.monotonic() + seconds
    kept = {name: value for name, value in environ.items() if name not in _OTHER_PLACES}
    inherited = {**redaction.without_secrets(kept), **_QUIET}

    def work() -> None:
        answers.append(_answered(mine, Path(mine.root or ""), inherited, until))

    asker = threading.Thread(target=work, name="pluto-dist-git", daemon=True)
    _, refused = attempt(asker.start)

    def answer(latest: float) -> Git:
        if refused is None:
            asker.join(max(0.0, latest - time.monotonic()))
        return answers[0] if answers else mine

    return answer


def _answered(mine: Git, root: Path, environ: Mapping[str, str], until: float) -> Git:
    process = value_or_none(partial(_start, root, environ))
    status = value_or_none(partial(_output, process, until)) if process else None
    return mine if status is None else _with_status(mine, status)


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
        start_new_session=True,  # so that what git starts ends with it, and ctrl-C is the training's
    )


def _output(process: subprocess.Popen[str], until: float) -> str | None:
    """What ``process`` printed, or ``None`` where it failed or did not end in time."""
    try:
        output, _ = process.communicate(timeout=max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=1)
        return None
    return output if process.returncode == 0 else None


def _with_status(mine: Git, status: str) -> Git:
    """What "git status --porcelain=v2 --branch" says: "# branch.oid …", "# branch.head …", a line a changed file."""
    lines = status.splitlines()
    branch = dict(line[2:].split(" ", 1) for line in lines if line.startswith("# branch.") and line.count(" ") > 1)
    commit, head = branch.get("branch.oid", ""), branch.get("branch.head")
    if not _COMMIT.fullmatch(commit):
        return mine
    return replace(
        mine,
        commit=commit,
        branch="" if head == "(detached)" else clean_text(head) or mine.branch,
        dirty=any(line and not line.startswith("#") for line in lines),
    )


def _url(config: str) -> str | None:
    r"""The URL of the remote "origin", else of the first one, without user and password; from a repository's config.

    What the file includes, and what others rewrite it to (``insteadOf``), is not looked at.

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
    return clean_text(redaction.url(chosen)) if chosen else None
