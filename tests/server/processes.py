"""``pluto-dist server`` as a real process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

COMMAND = [sys.executable, "-c", "from pluto_dist.cli import main; main()"]
WAIT = 30.0


class Process:
    """One ``pluto-dist server``; standard output and error go to files."""

    def __init__(self, folder: Path, *options: str, env: dict[str, str] | None = None) -> None:
        self.out, self.err = folder / "out.txt", folder / "err.txt"
        environment = {"XDG_STATE_HOME": str(folder / "state"), **(env or {})}
        base = {k: v for k, v in os.environ.items() if not k.startswith(("PLUTO_", "XDG_"))}
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [*COMMAND, "server", *options], stdout=out, stderr=err, env=base | environment
            )

    @property
    def said(self) -> str:
        return self.err.read_text()

    @property
    def shown(self) -> str:
        return self.out.read_text()

    def ready(self) -> Process:
        deadline = time.monotonic() + WAIT
        while "pluto-dist tracker: " not in self.said:
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.02)
        return self

    @property
    def url(self) -> str:
        return self.said.split("pluto-dist tracker: ")[1].split()[0]

    def end(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(WAIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(WAIT)
            raise
