"""Ranks of a benchmark: started, told to do the same thing at the same moment, and ended.

Both sides of it: :class:`Crew` in the benchmark, :func:`serve` in each rank. They speak lines of JSON over a
Unix socket; a rank that waits for its next task uses no CPU, and one whose benchmark is gone exits. Only the
standard library, because ranks run in environments that lack this project's packages.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

SOCKET = "PLUTO_DIST_BENCH_SOCKET"
HEAD_START = 0.15  # seconds from telling the first rank to the moment when all start
Task = Callable[[dict[str, Any]], dict[str, Any]]
Name = int | str  # of a rank: its number, or the part it plays


class Crew:
    """``size`` ranks. Whatever they print goes to ``<folder>/<name>.log``.

    Args:
        folder: where socket and log are kept.
        name: for messages.
        size: how many ranks will report.
    """

    def __init__(self, folder: Path, name: str, size: int) -> None:
        self.name, self.size = name, size
        self.pids: dict[Name, int] = {}
        self._log = folder / f"{name}.log"
        self._output = self._log.open("wb")
        self._listener = socket.socket(socket.AF_UNIX)
        self._path = folder / f"{name}.sock"
        self._listener.bind(str(self._path))
        self._listener.listen(size)
        self._ranks: dict[Name, tuple[socket.socket, Any]] = {}
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def start(self, command: list[str], environ: Mapping[str, str], folder: Path) -> None:
        """Start a process that is a rank, or starts ranks."""
        self._started.append(
            subprocess.Popen(
                command,
                env={**environ, SOCKET: str(self._path)},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
            )
        )

    def meet(self, seconds: float) -> None:
        """Wait until all ranks are there.

        Raises:
            RuntimeError: they are not, within ``seconds``.
        """
        until = time.monotonic() + seconds
        while len(self._ranks) < self.size:
            self._listener.settimeout(1.0)
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                if time.monotonic() > until or any(process.poll() for process in self._started):
                    raise RuntimeError(f"{len(self._ranks)} of {self.size} ranks came: {self._tail()}") from None
                continue
            connection.settimeout(seconds)
            lines = connection.makefile("r", encoding="utf-8")
            hello = json.loads(lines.readline())
            self._ranks[hello["rank"]] = (connection, lines)
            self.pids[hello["rank"]] = hello["pid"]

    def ask(
        self, task: str, *, seconds: float = 120, only: Iterable[Name] | None = None, **words: Any
    ) -> dict[Name, Any]:
        """Have the ranks (or some of them) do ``task`` at the same moment; what each answered.

        Raises:
            RuntimeError: a rank failed, or did not answer within ``seconds``.
        """
        chosen = sorted(self._ranks if only is None else only)
        message = {"task": task, "at": time.monotonic() + HEAD_START, **words}
        for rank in chosen:
            self._ranks[rank][0].sendall(json.dumps(message).encode() + b"\n")
        answers, until = {}, time.monotonic() + seconds
        for rank in chosen:
            connection, lines = self._ranks[rank]
            connection.settimeout(max(0.1, until - time.monotonic()))
            try:
                line = lines.readline()
            except TimeoutError:
                raise RuntimeError(f"{self.name}: rank {rank} took longer than {seconds:.0f} s at {task!r}") from None
            answers[rank] = json.loads(line or '{"error": "it is gone"}')
            if "error" in answers[rank]:
                raise RuntimeError(f"{self.name}: rank {rank} at {task!r}: {answers[rank]['error']}\n{self._tail()}")
        return answers

    def end(self) -> None:
        """End all ranks: those that do not leave when their socket closes are killed, by their id."""
        for connection, lines in self._ranks.values():
            lines.close()
            connection.close()
        self._listener.close()
        until = time.monotonic() + 20
        for process in self._started:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, until - time.monotonic()))
        left = [process for process in self._started if process.poll() is None]
        if left:
            for pid in self.pids.values():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for process in left:
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()
            process.wait()
        self._output.close()

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-3000:]


def serve(rank: Name, tasks: Mapping[str, Task]) -> None:
    """Be a rank: do what the benchmark asks, until it closes the connection."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.environ[SOCKET])
        connection.sendall(json.dumps({"rank": rank, "pid": os.getpid()}).encode() + b"\n")
        for line in connection.makefile("r", encoding="utf-8"):
            message = json.loads(line)
            time.sleep(max(0.0, message["at"] - time.monotonic()))
            try:
                answer = tasks[message["task"]](message)
            except Exception:  # noqa: BLE001  # border: whatever it was, the benchmark tells it
                answer = {"error": traceback.format_exc()}
            connection.sendall(json.dumps(answer).encode() + b"\n")
