"""A Slurm of its own for the tests: a controller and two nodes on this machine, which srun and sbatch find and use.

Both nodes are this machine under names that do not resolve, so jobs on the two must be told to meet at localhost. It
does without cgroups, systemd and accounting, and its daemons listen on loopback only (srun listens everywhere, for as
long as it runs). The configuration is for Slurm 22.05, which Debian 12 has. Needs root.
"""

from __future__ import annotations

import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "salloc", "scontrol", "scancel", "squeue", "sinfo")
NODES = ("n1", "n2")
MUNGED_FILES = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
START_SECONDS, END_SECONDS = 30.0, 15.0

# 22.05 loads a cgroup plugin even where nothing uses it, and has none that does nothing: it gets an empty folder.
CGROUP_CONF = """
CgroupPlugin=cgroup/v1
CgroupMountpoint={folder}/cgroup
CgroupAutomount=no
"""
# FirstJobId: two of these that run side by side have jobs of different numbers. config_overrides: nodes may promise
# more processors than there are. The intervals are short, or a job waits for up to 60 s.
SLURM_CONF = """
ClusterName=lab
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=bf_interval=2,batch_sched_delay=1,sched_interval=2
CommunicationParameters=NoAddrCache,NoCtldInAddrAny,NoInAddrAny
SlurmdParameters=config_overrides
MpiDefault=none
FirstJobId={first_job}
ReturnToService=2
MailProg=/bin/true
PlugStackConfig=/dev/null
KillWait=3
TreeWidth=1
GresTypes=gpu
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[1]} CPUs=8 RealMemory=1000 Gres=gpu:8
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[2]} CPUs=8 RealMemory=1000 Gres=gpu:8
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""
# Any device will do for a GPU, as long as nothing has to keep jobs from the ones of others.
GRES_CONF = """
NodeName=n1,n2 Name=gpu File={folder}/gpu[0-7]
"""


def why_not() -> str | None:
    """What is missing here, and how to get it; ``None`` where Slurm can be had."""
    if os.geteuid() != 0:
        return "Slurm's daemons need root: run the tests as root, in a container say"
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if missing:
        return f"{', '.join(missing)} missing: apt-get install slurm-wlm munge"
    return None


@dataclass
class Slurm:
    """A controller and its nodes; up between ``start()`` and ``end()``."""

    folder: Path
    daemons: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def environ(self) -> dict[str, str]:
        """What Slurm's commands need in order to find it."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def run(self, *command: str) -> str:
        """What one of Slurm's commands prints.

        Raises:
            subprocess.CalledProcessError: it failed.
        """
        done = subprocess.run(
            command, env={**os.environ, **self.environ}, capture_output=True, text=True, check=True, timeout=30
        )
        return done.stdout

    def cancel_all(self) -> None:
        """End all jobs; returns when they are gone."""
        self.run("scancel", "--user=root")
        self.await_jobs(END_SECONDS)

    def await_jobs(self, seconds: float) -> None:
        """Return when no job runs or waits.

        Raises:
            RuntimeError: one still does after so many seconds.
        """
        self._wait(lambda: not self.run("squeue", "--noheader"), "its jobs do not end", seconds)

    def start(self) -> None:
        """Write what the daemons read, and start them.

        Raises:
            RuntimeError: one of them does not come up.
        """
        self._configure()
        munge = self.folder / "munge"
        places = [f"--{what}={munge / name}" for what, name in MUNGED_FILES.items()]
        self._start("munged", "--foreground", *places)
        self._wait((munge / "socket").is_socket, "munged has no socket", START_SECONDS)
        self._start("slurmctld", "-D")
        for node in NODES:
            self._start("slurmd", "-D", "-N", node)
        self._wait(self._is_idle, "its nodes do not become idle", START_SECONDS)

    def end(self) -> None:
        """End the jobs, then the daemons in reverse order, then whatever a daemon that died left behind."""
        with suppress(RuntimeError, subprocess.SubprocessError):  # a controller that is no more: see below
            self.cancel_all()
        for daemon in reversed(self.daemons):
            daemon.terminate()
            try:
                daemon.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait(END_SECONDS)
        for pid in _with_variable("SLURM_CONF", self.environ["SLURM_CONF"]):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _configure(self) -> None:
        self.folder.chmod(0o711)  # munged wants its socket to be reachable for everybody
        for name in ("state", "munge", "log", "cgroup", *(f"spool-{node}" for node in NODES)):
            (self.folder / name).mkdir(mode=0o711)
        key = self.folder / "munge" / "key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(1024))
        values = {"folder": self.folder, "ports": _free_ports(3), "first_job": random.randrange(1000, 1_000_000)}
        (self.folder / "cgroup.conf").write_text(CGROUP_CONF.format(**values))
        for gpu in range(8):
            (self.folder / f"gpu{gpu}").symlink_to("/dev/null")
        (self.folder / "gres.conf").write_text(GRES_CONF.format(**values))
        (self.folder / "slurm.conf").write_text(SLURM_CONF.format(**values))

    def _start(self, *command: str) -> None:
        with (self.folder / "log" / f"{len(self.daemons)}-{command[0]}").open("wb") as log:
            daemon = subprocess.Popen(
                command,
                env={**os.environ, **self.environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the tests, which then end the daemons in order
            )
        self.daemons.append(daemon)

    def _is_idle(self) -> bool:
        try:
            states = self.run("sinfo", "--noheader", "--Node", "--format=%T").split()
        except subprocess.CalledProcessError:  # the controller does not listen yet
            return False
        return states == ["idle"] * len(NODES)

    def _wait(self, until: Callable[[], bool], otherwise: str, seconds: float) -> None:
        give_up = time.monotonic() + seconds
        while not until():
            dead = [daemon.args for daemon in self.daemons if daemon.poll() is not None]
            if dead or time.monotonic() > give_up:
                logs = "\n".join(f"{log.name}: {log.read_text()[-2000:]}" for log in (self.folder / "log").iterdir())
                raise RuntimeError(f"Slurm: {otherwise} (ended: {dead}).\n{logs}")
            time.sleep(0.05)


@contextmanager
def two_nodes() -> Iterator[Slurm]:
    """A Slurm with two idle nodes; it, its jobs and its files are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as folder:
        slurm = Slurm(Path(folder))
        try:
            slurm.start()
            yield slurm
        finally:
            slurm.end()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def _with_variable(name: str, value: str) -> Iterator[int]:
    """The processes that were started with this variable."""
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if f"{name}={value}".encode() in environ.read_bytes().split(b"\0"):
                yield int(environ.parent.name)
