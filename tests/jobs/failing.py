"""Small jobs, each in a forked child, of which a file call, a thread or an allocation of the package fails.

Started as a script it imports torch once, reads cases from its input, one JSON per line, and forks a child for each,
which runs a small job to the end of its process. In that child every file call of Python that ``pluto_dist`` makes,
itself or through a library, goes through :class:`FaultyFiles`, which knows from where in the package it is made.
:class:`NoThread` and :class:`NoMemory` do the same for threads and for the package's functions.
"""

from __future__ import annotations

import argparse
import atexit
import builtins
import fcntl
import gc
import io
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

ERRNOS = (
    "ENOSPC", "EDQUOT", "EIO", "ESTALE", "EROFS", "EACCES", "EPERM", "ENOTDIR", "EISDIR", "ENAMETOOLONG", "ELOOP",
    "ENOENT", "ENOLCK", "EMFILE",
)  # fmt: skip
CALLS: tuple[tuple[Any, tuple[str, ...]], ...] = (
    (os, ("open", "read", "write", "pread", "pwrite", "close", "fsync", "fstat", "stat", "lstat", "statvfs", "access")),
    (os, ("mkdir", "rmdir", "unlink", "remove", "rename", "replace", "link", "symlink", "readlink", "chmod", "utime")),
    (os, ("scandir", "listdir", "ftruncate", "memfd_create", "pipe", "set_blocking", "getcwd")),
    (fcntl, ("flock",)),
    (io, ("open",)),
    (builtins, ("open",)),
)
PACKAGE = f"{os.sep}pluto_dist{os.sep}"
JOBS = (
    "job",
    "one_worker",
    "_meanwhile",
    "_launch",
    "_relay",
    "_supervised",
)  # no part of the package
CASE_SECONDS = 60.0


class FaultyFiles:
    """The calls by site (``module.py:function call``); those of ``site`` fail.

    Args:
        site: that fails; "" for none.
        number: the errno.
    """

    def __init__(self, site: str, number: int) -> None:
        self.seen: dict[str, int] = {}
        self._site, self._number = site, number

    def check(self, call: str, path: object = None) -> None:
        """Count a call, and fail it if that is its turn."""
        site = _site(sys._getframe(2), call)
        if site is None:
            return
        self.seen[site] = self.seen.get(site, 0) + 1
        if site == self._site:
            raise OSError(self._number, os.strerror(self._number), path if isinstance(path, (str, bytes)) else None)

    def wrapped(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **named: Any) -> Any:
            if name != "close":
                self.check(name, str(arguments[0]) if arguments else None)
            result = call(*arguments, **named)
            if name == "close":
                self.check(name)  # the descriptor is closed whatever close() answers
            if isinstance(result, io.IOBase):
                return _File(result, self)
            return _Folder(result, self) if name == "scandir" else result

        return called


def _site(frame: FrameType | None, call: str) -> str | None:
    """Where in the package a call is made; ``None`` if the caller is another."""
    while frame is not None:
        code = frame.f_code
        if PACKAGE in code.co_filename:
            inner = code.co_filename.rpartition(PACKAGE)[2]
            return None if inner.startswith("server") else f"{inner}:{code.co_name} {call}"
        if code.co_filename.startswith("<frozen importlib") or (code.co_filename == __file__ and code.co_name in JOBS):
            return None
        frame = frame.f_back
    return None


class _File:
    """An open file whose methods fail."""

    def __init__(self, file: Any, files: FaultyFiles) -> None:
        self._file, self._files = file, files

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._file, name)
        if name not in ("read", "readline", "readlines", "write", "flush", "seek", "truncate"):
            return found

        def called(*arguments: Any) -> Any:
            self._files.check(f"file.{name}")
            return found(*arguments)

        return called

    def close(self) -> None:
        self._file.close()
        self._files.check("file.close")

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._files.check("file.close")

    def __iter__(self) -> Any:
        self._files.check("file.read")
        return iter(self._file)


class _Folder:
    """What ``os.scandir`` returns; its entries fail too."""

    def __init__(self, entries: Any, files: FaultyFiles) -> None:
        self._entries, self._files = entries, files

    def __enter__(self) -> _Folder:
        return self

    def __exit__(self, *_: object) -> None:
        self._entries.close()

    def close(self) -> None:
        self._entries.close()

    def __iter__(self) -> Any:
        for entry in self._entries:
            self._files.check("scandir.next")
            yield _Entry(entry, self._files)


class _Entry:
    def __init__(self, entry: Any, files: FaultyFiles) -> None:
        self._entry, self._files = entry, files
        self.name, self.path = entry.name, entry.path

    def __fspath__(self) -> str:
        return str(self.path)

    def __getattr__(self, name: str) -> Any:
        self._files.check(f"entry.{name}")
        return getattr(self._entry, name)


def install(case: dict[str, Any]) -> None:
    """Let what the case names fail in this process; without a site nothing fails, and at exit the sites are written."""
    if case["fails"] == "file":
        layer: Any = FaultyFiles(case["site"], case["errno"])
        for owner, names in CALLS:
            for name in names:
                setattr(owner, name, layer.wrapped(name, getattr(owner, name)))
    else:
        layer = {"thread": NoThread, "memory": NoMemory}[case["fails"]](case["site"])
    if case["site"] == "":
        atexit.register(lambda: Path(case["folder"], f"sites-{os.getpid()}.json").write_text(json.dumps(layer.seen)))


class NoThread:
    """Threads by name; that of ``site`` cannot be started."""

    def __init__(self, site: str) -> None:
        self.seen: dict[str, int] = {}
        start = threading.Thread.start

        def started(thread: threading.Thread) -> None:
            name = thread.name.rpartition("-")[0] if thread.name.startswith("Thread-") else thread.name
            if "pluto" in name:
                self.seen[name] = self.seen.get(name, 0) + 1
            if name == site or (site == "all" and "pluto" in name):
                raise RuntimeError("can't start new thread")
            start(thread)

        threading.Thread.start = started  # type: ignore[method-assign]


class NoMemory:
    """Functions of the package (``thread | module.py:function``); in that of ``site`` memory runs out, once."""

    def __init__(self, site: str) -> None:
        self.seen: dict[str, int] = {}
        self._site = site
        threading.setprofile(self._on_event)
        sys.setprofile(self._on_event)

    def _on_event(self, frame: FrameType, event: str, _: object) -> None:
        name = frame.f_code.co_filename
        if event != "call" or PACKAGE not in name or f"{PACKAGE}server" in name:
            return
        site = f"{threading.current_thread().name} | {name.rpartition(PACKAGE)[2]}:{frame.f_code.co_name}"
        self.seen[site] = self.seen.get(site, 0) + 1
        if site == self._site and self.seen[site] == 1:
            raise MemoryError


# The jobs of a case.


def _relay(port: int, target: str) -> None:
    """Listen on ``port``, as the tracker does that comes back: what is sent goes to ``target``."""
    import socket
    from urllib.parse import urlsplit

    parts = urlsplit(target)
    listener = socket.create_server(("127.0.0.1", port))

    def pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def serve() -> None:
        while True:
            near, _ = listener.accept()
            far = socket.create_connection((parts.hostname or "", parts.port or 80))
            for pair in ((near, far), (far, near)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()


def _launch(folder: Path) -> None:
    """This process as the one worker of torchrun, with the store and the folder that its agent would have made."""
    import torch.distributed as dist

    global _store  # noqa: PLW0603  # as long as the process
    _store = dist.TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
    attempt = folder / "launch" / "none_abc" / "attempt_0" / "0"
    attempt.mkdir(parents=True)
    (folder / "launch").chmod(0o700)
    (folder / "launch" / "none_abc").chmod(0o700)
    one = dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE"), "1")
    zero = dict.fromkeys(("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "TORCHELASTIC_RESTART_COUNT"), "0")
    os.environ.update(
        **one, **zero, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(_store.port), TORCHELASTIC_USE_AGENT_STORE="True",
        TORCHELASTIC_MAX_RESTARTS="0", TORCHELASTIC_RUN_ID="none",
        TORCHELASTIC_ERROR_FILE=str(attempt / "error.json"),
    )  # fmt: skip


def job(case: dict[str, Any]) -> None:
    """A small training: its last line says that it is over, and with what result."""
    from training import Training, package

    training, scenario, mode = Training(), case["scenario"], None
    if scenario == "worker":
        _launch(Path(case["folder"]))
    if scenario == "outage":
        os.environ["PLUTO_DIST_TIMEOUT"] = "1"
        target, os.environ["PLUTO_URL_API"] = os.environ["PLUTO_URL_API"], f"http://127.0.0.1:{case['port']}"
        os.environ["PLUTO_URL_PY"] = os.environ["PLUTO_URL_API"]
    if scenario == "offline":
        mode = "offline"
    if scenario != "launcher":
        install(case)
    _meanwhile(case, "before init()")
    run = package().init(project=case["project"], config={"lr": 1}, mode=mode)
    if scenario == "outage":
        _relay(case["port"], target)
    _meanwhile(case, "after init()")
    training.steps(100)
    run.update_config({"loss": 0.5})
    _meanwhile(case, "after update_config()")
    run.finish()
    _meanwhile(case, "after finish()")
    print(f"the training is over: {training}", flush=True)


def _meanwhile(case: dict[str, Any], moment: str) -> None:
    """What happens to the job at ``moment``: a command is run, or no file can be opened from then on."""
    if case.get("moment") == moment and case.get("command"):
        subprocess.run(case["command"], shell=True, check=True)
    elif case.get("moment") == moment:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))


def _supervised(case: dict[str, Any]) -> None:
    """The job under `pluto-dist run`, whose one worker is a forked child instead of torch's: as it is, and quick."""
    import torch.distributed.run

    from pluto_dist.launcher import agent
    from pluto_dist.settings.settings import load

    def one_worker(_: object) -> None:
        _launch(Path(case["folder"]))
        if (pid := os.fork()) == 0:
            _end(job, case)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
            raise RuntimeError("the worker failed")

    torch.distributed.run.run = one_worker
    settings = load(os.environ, project=case["project"])
    install(case)
    agent.run(argparse.Namespace(), settings)


def _case(case: dict[str, Any]) -> None:
    """What a child does before its job: it has a folder and an output of its own."""
    folder = Path(case["folder"])
    output = os.open(folder / "output", os.O_WRONLY | os.O_CREAT, 0o600)
    for number in (1, 2):
        os.dup2(output, number)
    os.close(output)
    os.environ.update(case["environ"])
    os.chdir(folder)
    under_launcher = case["scenario"] == "launcher" and "WITHOUT" not in os.environ
    (_supervised if under_launcher else job)(case)


def _end(work: Callable[[dict[str, Any]], None], case: dict[str, Any], leave: Callable[[int], Any] = os._exit) -> None:
    """Call ``work``, and end this child as the interpreter does, but for the destructors of torch, which take 0.5 s."""
    code = 0
    try:
        work(case)
    except BaseException:  # noqa: BLE001  # whatever it is, it is printed, and the exit code shows it
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    leave(code)


def main() -> None:
    import torch.distributed  # noqa: F401  # as a training does
    import training  # noqa: F401

    import pluto_dist.api  # noqa: F401

    gc.freeze()  # else each child copies what it collects
    print("ready", flush=True)
    for line in sys.stdin:
        case = json.loads(line)
        if (pid := os.fork()) == 0:
            _end(_case, case)
        code, until = None, time.monotonic() + CASE_SECONDS
        while code is None:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > until:
                os.kill(pid, signal.SIGKILL)
                until += CASE_SECONDS
            else:
                time.sleep(0.01)
        print(json.dumps(code), flush=True)


if __name__ == "__main__":
    main()
