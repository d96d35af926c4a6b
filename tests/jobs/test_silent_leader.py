"""A leader that dies while the others wait for it: they are in one run all the same, and soon.

The tracker's side decides when it dies: a proxy before it kills rank 0 as its create-run call comes in, or after
the tracker has answered but before rank 0 hears of it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from running import FORWARDED, Tracker

pytestmark = [pytest.mark.multiprocess, pytest.mark.both_trackers, pytest.mark.timeout(240)]
TIMEOUT = 10.0


class Killer(ThreadingHTTPServer):
    """A reverse proxy before ``tracker`` that kills the first rank 0 to create, ``when`` told."""

    def __init__(self, tracker: Tracker, when: str) -> None:
        self.tracker, self.when, self.victims = tracker, when, 0
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), Relay)

    def kill(self, user_agent: str, pids: Path) -> bool:
        """Whether the sender was rank 0 of the first attempt, and is dead now."""
        with self.lock:
            if self.victims or "(rank 0 of" not in user_agent:
                return False
            self.victims += 1
            os.kill(int(pids.read_text()), signal.SIGKILL)
            return True


class Relay(BaseHTTPRequestHandler):
    server: Killer
    pids = Path()

    def do_POST(self) -> None:
        self.relay("POST", self.rfile.read(int(self.headers["Content-Length"])))

    def do_GET(self) -> None:
        self.relay("GET", None)

    def relay(self, method: str, content: bytes | None) -> None:
        creates = self.path == "/api/runs/create"
        if creates and self.server.when == "before create" and self.server.kill(self.headers["User-Agent"], self.pids):
            return
        kept = {name: self.headers[name] for name in FORWARDED if name in self.headers}
        url = self.server.tracker.server.url + self.path
        answer = requests.request(method, url, data=content, headers=kept, timeout=30)
        if creates and self.server.when == "before publish" and self.server.kill(self.headers["User-Agent"], self.pids):
            return
        self.send_response(answer.status_code)
        self.send_header("Content-Type", answer.headers["Content-Type"])
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        with suppress(BrokenPipeError):
            self.wfile.write(answer.content)

    def log_message(self, format: str, *args: object) -> None:
        """The tracker keeps a log; this need not."""


MOMENTS = [
    pytest.param("before create", marks=pytest.mark.exhaustive),
    pytest.param("before publish", marks=pytest.mark.exhaustive),
    "after",
]


@pytest.fixture(params=MOMENTS)
def killer(request: pytest.FixtureRequest, tracker: Tracker, tmp_path: Path) -> Iterator[Killer]:
    server = Killer(tracker, request.param)
    Relay.pids = tmp_path / "pid-of-rank-0"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(10)


RANK = """
import os, signal, time
from pathlib import Path
import pluto_dist
from reporting import report
first = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
if os.environ["RANK"] == "0" and first:
    Path(os.environ["PIDS"]).write_text(str(os.getpid()))
began = time.monotonic()
run = pluto_dist.init(project="silent", timeout=float(os.environ["SECONDS"]))
report(run, seconds=time.monotonic() - began, first=first)
if os.environ["RANK"] == "0" and first and os.environ["WHEN"] == "after":
    while len(list(Path(os.environ["REPORTS"]).glob("*.json"))) < 4:
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGKILL)
if first and os.environ.get("AGENT"):
    time.sleep(60)  # until the agent stops this attempt
time.sleep(1)
"""


def environ_of(killer: Killer) -> dict[str, str]:
    own = {"WHEN": killer.when, "PIDS": str(Relay.pids), "SECONDS": str(TIMEOUT)}
    return killer.tracker.environ() | {"PLUTO_URL_API": f"http://127.0.0.1:{killer.server_port}"} | own


def test_without_an_agent_the_others_stand_in(killer, torchrun):
    """No agent ends the others when rank 0 dies: one of them creates the run, or finds it created; one run, no hang."""
    crowd = [sys.executable, str(Path(__file__).parent / "crowd.py"), "4", RANK]
    job = torchrun.finish(torchrun.start_command(crowd, environ_of(killer)), 120)

    survivors = [report for report in job.reports if report["rank"] != 0]
    (run,) = killer.tracker.runs("silent")
    assert {report["id"] for report in survivors} == {run["id"]}, job.output
    assert len(survivors) == 3
    assert {report["resumed"] for report in survivors} == {False}
    waited = max(report["seconds"] for report in survivors)
    assert waited < TIMEOUT
    print(f"ROW | killed {killer.when} | no agent | the others waited {waited:.1f} s of at most {TIMEOUT:.0f} | 1 run")


@pytest.mark.exhaustive
def test_under_torchrun_the_next_attempt_goes_on(killer, torchrun):
    """The agent starts all ranks again: the same run, resumed only if a script had lived in it."""
    environ = environ_of(killer) | {"AGENT": "1", "SECONDS": "60"}  # the agent is faster than a rank that stands in
    job = torchrun(RANK, "--max-restarts=1", environ=environ, nproc=4, seconds=120)

    assert job.returncode == 0, job.output
    (run,) = killer.tracker.runs("silent")
    again = [report for report in job.reports if not report["first"]]
    assert [report["rank"] for report in again] == [0, 1, 2, 3]
    assert {report["id"] for report in job.reports} == {run["id"]}
    assert {report["resumed"] for report in again} == {killer.when == "after"}
    assert [change["to"] for change in run["statusHistory"]] == ["RUNNING", "COMPLETED"]
    waited = max(report["seconds"] for report in again)
    print(f"ROW | killed {killer.when} | torchrun | the next attempt waited {waited:.1f} s | 1 run")


@pytest.mark.exhaustive
def test_a_sender_of_heartbeats_that_dies_is_stood_in_for(tracker, torchrun):
    """Rank 0 is killed and nobody ends the others: one of them beats from then on, and only one."""
    source = (
        "import os, signal, time, pluto_dist\n"
        "run = pluto_dist.init(project='silent')\n"
        "time.sleep(3)\n"
        "if os.environ['RANK'] == '0': os.kill(os.getpid(), signal.SIGKILL)\n"
        "time.sleep(16)\n"
    )
    crowd = [sys.executable, str(Path(__file__).parent / "crowd.py"), "4", source]
    environ = tracker.environ() | {"PLUTO_DIST_HEARTBEAT": "1"}
    torchrun.finish(torchrun.start_command(crowd, environ), 120)
    senders = [line.split(" ")[0] for line in tracker.log() if "/trigger" in line]
    print(f"ROW | heartbeats, in order, by their sender's connection: {senders}")
    assert len(set(senders)) == 2
    assert senders == sorted(senders, key=senders.index)
    assert senders.count(senders[-1]) >= 3
