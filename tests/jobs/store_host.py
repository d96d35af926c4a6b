"""A job whose ranks' store is on a host that fails at a moment of the job's life.

The first of two hosts is well: the tracker and the measured rank are there. The second one hosts the store, behind a
relay, and another rank. The relay can hold the n-th message of the measured rank until the fault has come.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from running import NO_RESOLVER, wait_for
from two_hosts import Host, ip

TIMEOUT = 6.0  # of init(), in these jobs
FAULTS = ("frozen", "cut off", "dropped", "garbage", "zeros")
GARBAGE = {"garbage": b"HTTP/1.1 400 Bad Request\r\n\r\n" * 4, "zeros": bytes(256)}

STORE = """
import os, socket, sys, threading, time
from datetime import timedelta
from pathlib import Path
from torch.distributed import TCPStore

folder, lock = Path(sys.argv[1]), threading.Lock()

def garbage():
    with lock:
        try:
            return (folder / "garbage").read_bytes()
        except OSError:
            return None

def hold():
    # Count a message of the measured rank; hold the one that the test asks for until it lets it go.
    with lock:
        left = folder / "hold"
        if not left.exists():
            return
        number = int(left.read_text()) - 1
        left.write_text(str(number)) if number else left.unlink()
        if not number:
            (folder / "at").touch()
    while not number and not (folder / "go").exists():
        time.sleep(0.01)

def pump(source, target, is_request):
    try:
        while chunk := source.recv(65536):
            if is_request:
                hold()
            answer = garbage()
            if answer is None:
                target.sendall(chunk)
            elif is_request:
                source.sendall(answer)
    except OSError:
        pass
    for each in (source, target):
        try:
            each.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

def serve(listener, port):
    while True:
        client, _ = listener.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server = socket.create_connection(("127.0.0.1", port))
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=pump, args=(client, server, True), daemon=True).start()
        threading.Thread(target=pump, args=(server, client, False), daemon=True).start()

stores = []
while sys.stdin.readline():  # a store of its own for each job
    store = TCPStore("0.0.0.0", 0, None, True, timedelta(seconds=900), wait_for_workers=False)
    listener = socket.create_server(("0.0.0.0", 0))
    threading.Thread(target=serve, args=(listener, store.port), daemon=True).start()
    stores.append(store)
    print(listener.getsockname()[1], store.port, flush=True)
"""

RANK = """
import atexit, os, signal, sys, time
from pathlib import Path
import torch.distributed
from training import Training
training = Training()
atexit.register(lambda: note("over", time.time()))  # the last of all, before Python takes torch down
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background ignores
folder, place, way = Path(os.environ["CONTROL"]), os.environ["PLACE"], os.environ["WAY"]
measured = "MEASURED" in os.environ
def note(name, value):
    if measured:
        with (folder / "notes").open("a") as file:
            file.write(f"{name}={value:.2f}\\n")
def timed(name, call):
    began = time.monotonic()
    try:
        return call()
    finally:
        note(name, time.monotonic() - began)
def at(name):
    if measured and place == name:
        (folder / "at").touch()
        while not (folder / "go").exists():
            time.sleep(0.01)
(folder / "notes").touch() if measured else None
class Plain:  # the same job without this package: a client of the store
    def __init__(self):
        from datetime import timedelta
        seconds = timedelta(seconds=float(os.environ["PLUTO_DIST_TIMEOUT"]))
        address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        self.store = torch.distributed.TCPStore(*address, None, False, seconds)
        self.store.set("plain", "1")
    def update_config(self, config): pass
    def finish(self): pass
if "PLAIN" in os.environ:
    init = Plain
else:
    import pluto_dist, requests
    init = pluto_dist.init
at("before init")
try:
    run = timed("init", init)
except KeyboardInterrupt:
    if way != "goes on":
        raise
    run = timed("init again", init)
if not measured:
    (folder / "other").touch()
    time.sleep(600)
while not (folder / "other").exists() and not (folder / "at").exists():
    time.sleep(0.02)
time.sleep(0.2)
at("before update_config")
timed("update_config", lambda: run.update_config({"a": 1}))
at("in training")
training.steps(100)
print(training, flush=True)
time.sleep(60 if way == "is stopped" else 2 + 2 * int(os.environ["SECONDS"]) if place == "in training" else 0)
at("before the end")
if place == "in finish":
    (folder / "hold").write_text(os.environ["MESSAGE"])
if way == "finishes":
    timed("finish", run.finish)
    at("after finish")
note("ends", time.time())
if way == "raises":
    raise ValueError("boom")
if way == "sys.exit(3)":
    sys.exit(3)
if way == "raises in with":
    with run:
        raise ValueError("boom")
if way == "os._exit(4)":
    os._exit(4)
"""


@dataclass(frozen=True)
class Moment:
    """When the fault comes, and how the job ends.

    Attributes:
        place: in the measured rank's script; in "init" and "finish" at one of its messages to the store.
        way: how the script ends: "finishes", "ends", "raises", ...
        message: the number of that message.
        signal: sent a second after the fault has come.
        seconds: how long the fault lasts; 0 for ever.
    """

    place: str
    way: str = "finishes"
    message: int = 0
    signal: signal.Signals | None = None
    seconds: int = 0

    @property
    def code(self) -> int:
        """The process's exit code."""
        if self.signal is not None and self.way != "goes on":
            return -self.signal
        return {"raises": 1, "raises in with": 1, "sys.exit(3)": 3, "os._exit(4)": 4}.get(self.way, 0)

    @property
    def status(self) -> str:
        """What the run is in the end."""
        return "TERMINATED" if self.signal is not None else "FAILED" if self.code else "COMPLETED"

    def __str__(self) -> str:
        message = f", message {self.message}" if self.message else ""
        return f"{self.place}{message}: {self.way if self.signal is None else f'{self.signal.name}, {self.way}'}"


@dataclass(frozen=True)
class Played:
    """What became of the measured rank.

    Attributes:
        seconds: how long each call took; "exit" is from the end of its script, or from the signal, to its last exit
            function, if it comes to that.
    """

    seconds: dict[str, float]
    code: int
    output: str
    project: str


@dataclass
class StoreHost:
    """Two hosts, and a store on the second one that serves one job after the other.

    Attributes:
        ports: of the relay, and of the store itself.
        control: the folder by which the test, the relay and the ranks of the current job know of each other.
    """

    hosts: tuple[Host, Host]
    folder: Path
    environ: dict[str, str]
    store: subprocess.Popen[str]
    ports: tuple[int, int] = (0, 0)
    jobs: int = 0

    @property
    def control(self) -> Path:
        return self.folder / "control"

    def play(self, moment: Moment, fault: str, *, rank: int = 0, plain: bool = False) -> Played:
        """A job in which ``fault`` comes at ``moment`` of this rank, and stays."""
        self._next_job()
        more = {"PLAIN": "1"} if plain else {}
        other = self._start(self.hosts[1], 1 - rank, moment, more)
        if moment.place == "in init":
            (self.control / "hold").write_text(str(moment.message))
        measured = self._start(self.hosts[0], rank, moment, more | {"MEASURED": "1"})
        try:
            wait_for(lambda: (self.control / "at").exists() or measured.poll() is not None, str(moment), 180)
            assert measured.poll() is None, f"the rank ended before this moment: {moment}"
            self.begin(fault)
            (self.control / "go").touch()
            if moment.seconds:
                time.sleep(moment.seconds)
                self.end(fault)
            if moment.signal is not None:
                time.sleep(1)
            signalled = time.time()
            if moment.signal is not None:
                measured.send_signal(moment.signal)
            output, _ = measured.communicate(timeout=240)
            ended = time.time()
        finally:
            self.end(fault)
            for process in (measured, other):
                process.kill()
                process.communicate()
        lines = [line.split("=") for line in (self.control / "notes").read_text().splitlines()]
        seconds = {name: float(value) for name, value in lines}
        began = max(signalled, seconds.pop("ends", 0.0))
        return Played(
            seconds | {"exit": seconds.pop("over", ended) - began}, measured.returncode, output, f"job-{self.jobs}"
        )

    def begin(self, fault: str) -> None:
        """Let the fault come."""
        well, faulty = self.hosts
        if fault in GARBAGE:
            (self.control / "garbage").write_bytes(GARBAGE[fault])
        elif fault == "frozen":
            self._signal(signal.SIGSTOP)
        elif fault == "cut off":
            ip("-n", faulty.namespace, "link", "set", "cable", "down")
        elif fault == "dropped":  # its packets go to nobody
            nobody = ("lladdr", "02:00:00:00:00:99", "dev", "cable", "nud", "permanent")
            ip("-n", faulty.namespace, "neigh", "replace", well.address, *nobody)

    def end(self, fault: str) -> None:
        """Let it be over."""
        well, faulty = self.hosts
        if fault == "frozen":
            self._signal(signal.SIGCONT)
        elif fault == "cut off":
            ip("-n", faulty.namespace, "link", "set", "cable", "up")
        elif fault == "dropped":
            with suppress(subprocess.CalledProcessError):  # it has not come
                ip("-n", faulty.namespace, "neigh", "del", well.address, "dev", "cable")

    def _next_job(self) -> None:
        shutil.rmtree(self.control, ignore_errors=True)
        self.control.mkdir()
        self.jobs += 1
        assert self.store.stdin is not None
        assert self.store.stdout is not None
        self.store.stdin.write("\n")
        self.store.stdin.flush()
        relay, store = self.store.stdout.readline().split()
        self.ports = int(relay), int(store)

    def _start(self, host: Host, rank: int, moment: Moment, more: dict[str, str]) -> subprocess.Popen[str]:
        """A rank on ``host``; the process is the rank itself."""
        port = self.ports[0 if "MEASURED" in more else 1]
        worker = {
            "TORCHELASTIC_RUN_ID": "none",
            "TORCHELASTIC_RESTART_COUNT": "0",
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "MASTER_ADDR": self.hosts[1].address,
            "MASTER_PORT": str(port),
            "RANK": str(rank),
            "GROUP_RANK": str(rank),
            "WORLD_SIZE": "2",
            "GROUP_WORLD_SIZE": "2",
            "LOCAL_RANK": "0",
            "LOCAL_WORLD_SIZE": "1",
        }
        told = {"CONTROL": self.control, "PLACE": moment.place, "WAY": moment.way, "MESSAGE": moment.message}
        told["SECONDS"] = moment.seconds
        script = {name: str(value) for name, value in told.items()}
        settings = {
            "PLUTO_DIST_TIMEOUT": str(TIMEOUT),
            "PLUTO_DIST_HEARTBEAT": "1",
            "PLUTO_PROJECT": f"job-{self.jobs}",
            "PLUTO_DIR": str(self.folder / f"state of {host.name}"),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(__file__).parent),
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PLUTO_", "PET_"))}
        inside = ["ip", "netns", "exec", host.namespace, "unshare", "--uts", "sh", "-c", 'hostname "$0"; exec "$@"']
        return subprocess.Popen(
            [*inside, host.name, sys.executable, "-c", RANK],
            env=kept | NO_RESOLVER | self.environ | worker | script | settings | more,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def _signal(self, number: signal.Signals) -> None:
        inside = ["ip", "netns", "pids", self.hosts[1].namespace]
        for pid in subprocess.run(inside, capture_output=True, text=True, check=True).stdout.split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), number)


@contextmanager
def store_host(hosts: tuple[Host, Host], folder: Path, environ: dict[str, str]) -> Iterator[StoreHost]:
    """The store of the second host, served until the block is left."""
    control = folder / "control"
    control.mkdir()
    command = ["ip", "netns", "exec", hosts[1].namespace, sys.executable, "-c", STORE, str(control)]
    process = subprocess.Popen(
        command, env=os.environ | NO_RESOLVER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield StoreHost(hosts, folder, environ, process)
    finally:
        process.kill()
        process.communicate()
