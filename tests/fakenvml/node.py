"""A machine with the fake NVIDIA library, on which Python programs run with the real pynvml."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pluto_dist
from fakenvml.build import Call, environ, read_log, write_profile
from pluto_dist.inventory.records import GpuReport, NodeInventory

PROJECT = Path(pluto_dist.__file__).parents[1]

COLLECT = """
import json, time
from pluto_dist.inventory.probes.collect import collect
began = time.monotonic()
inventory = collect({deadline})
print(json.dumps([inventory.to_json(), time.monotonic() - began]))
"""


@dataclass(frozen=True)
class Observed:
    """The inventory of a process, the duration of ``collect`` in seconds, and the calls of the driver."""

    inventory: NodeInventory
    seconds: float
    calls: list[Call]

    @property
    def gpus(self) -> GpuReport:
        return self.inventory.gpus

    def functions(self) -> list[str]:
        return [call.function for call in self.calls]


@dataclass(frozen=True)
class FakeNode:
    """A machine whose NVIDIA library is the one in ``library``."""

    library: Path
    folder: Path

    def python(self, code: str, profile: str | None = None, *lines: str | bytes) -> tuple[str, list[Call]]:
        """Runs ``code`` on this machine; returns its output and the calls of the driver."""
        log = self.folder / "calls.log"
        log.unlink(missing_ok=True)
        written = write_profile(self.folder / "node.profile", profile, *lines)
        variables = {**os.environ, **environ(self.library, written, log), "PYTHONPATH": str(PROJECT)}
        command = [sys.executable, "-W", "error", "-c", code]
        done = subprocess.run(
            command, env=variables, capture_output=True, text=True, timeout=60, check=False, cwd=self.folder
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout, read_log(log)

    def collect(self, profile: str | None, *lines: str | bytes, deadline: float = 10.0) -> Observed:
        output, calls = self.python(COLLECT.format(deadline=deadline), profile, *lines)
        inventory, seconds = json.loads(output)
        return Observed(NodeInventory.from_json(inventory), seconds, calls)
