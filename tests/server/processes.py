"""``pluto-dist server`` as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

COMMAND = [sys.executable, "-c", "from pluto_dist.cli import main; main()"]
TIMEOUT_S = 30.0


class ServerProcess:
    """One ``pluto-dist server``, with standard output and error in files."""

    def __init__(self, folder: Path, *options: str, env: dict[str, str] | None = None) -> None:
        self._stdout, self._stderr = folder / "out.txt", folder / "err.txt"
        environment = {"XDG_STATE_HOME": str(folder / "state"), **(env or {})}
        base = {k: v for k, v in os.environ.items() if not k.startswith(("PLUTO_", "XDG_"))}
        with self._stdout.open("wb") as out, self._stderr.open("wb") as err:
            self.process = subprocess.Popen(
                [*COMMAND, "server", *options], stdout=out, stderr=err, env=base | environment
            )

    @property
    def stdout(self) -> str:
        return self._stdout.read_text()

    @property
    def stderr(self) -> str:
        return self._stderr.read_text()

    def wait_until_ready(self) -> ServerProcess:
        deadline = time.monotonic() + TIMEOUT_S
        while "pluto-dist tracker: " not in self.stderr:
            assert self.process.poll() is None, self.stderr
            assert time.monotonic() < deadline, self.stderr
            time.sleep(0.02)
        return self

    @property
    def url(self) -> str:
        return self.stderr.split("pluto-dist tracker: ")[1].split()[0]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(TIMEOUT_S)
            raise
