"""Real jobs against a real tracker: torchrun as users start it, the embedded server over HTTP."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from cluster import RENDEZVOUS
from forked import PROCESSES, Table, zygote
from running import FORWARDED, Recorded, Torchrun, Tracker
from two_hosts import Host, two_hosts, why_not

from hosted.columns import TrackerClass
from hosted.tracker import HostedTracker
from pluto_dist.server import LocalServer
from pluto_dist.server.api_keys import mint


@pytest.fixture
def tracker(tracker_class: TrackerClass) -> Iterator[Tracker]:
    with tracker_class() as server:
        yield Tracker(server)


@pytest.fixture
def torchrun(tmp_path: Path) -> Iterator[Torchrun]:
    jobs = Torchrun(tmp_path)
    yield jobs
    jobs.end_all()


@pytest.fixture
def recording_proxy(tracker: Tracker) -> Iterator[Callable[[], list[Recorded]]]:
    """A reverse proxy before the tracker. ``.url`` is its address; called, it tells what passed, in order."""
    requests_seen: list[Recorded] = []
    lock = threading.Lock()
    forward = requests.Session()
    forward.trust_env = False

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                requests_seen.append(Recorded(self.path, json.loads(content)))
            kept = {name: self.headers[name] for name in FORWARDED if name in self.headers}
            answer = requests.post(tracker.server.url + self.path, data=content, headers=kept, timeout=30)
            self.send_response(answer.status_code)
            self.send_header("Content-Type", answer.headers["Content-Type"])
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, format: str, *args: Any) -> None:
            """The tracker keeps a log; this need not."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()

    class Proxy:
        url = f"http://127.0.0.1:{server.server_port}"

        def __call__(self) -> list[Recorded]:
            with lock:
                return list(requests_seen)

    yield Proxy()
    server.shutdown()
    server.server_close()
    thread.join(10)
    forward.close()


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Table]:
    """Runs small jobs in forked children of processes that have imported torch."""
    with LocalServer() as server, ExitStack() as stack:
        made = Table(Tracker(server), tmp_path)
        for _ in range(PROCESSES):
            made.zygotes.put(stack.enter_context(zygote(server.environ())))
        yield made


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    """Two hosts with a network between them; needs root, which CI is."""
    reason = why_not()
    if reason and os.environ.get("CI"):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    with two_hosts() as both:
        yield both


@pytest.fixture
def tracker_on_host(hosts, tmp_path, tracker_class) -> Iterator[dict[str, str]]:
    """A tracker on the first host, which logs into tracker.log; the environment that points at it from both."""
    key = mint()
    (tmp_path / "key").write_text(key)
    is_hosted = tracker_class is HostedTracker
    command = [sys.executable, "-c", "from pluto_dist.cli import main; main()", "server", "-v"]
    if is_hosted:
        command = [sys.executable, "-m", "hosted", "--py-port", "8001"]
    command += ["--host", hosts[0].address, "--port", "8000", "--db", str(tmp_path / "tracker.db")]
    with (tmp_path / "tracker.log").open("w") as log:
        command += ["--api-key-file", str(tmp_path / "key")]
        environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        process = hosts[0].start(command, environ, tmp_path, output=log)
    url = f"http://{hosts[0].address}"
    py = {"PLUTO_URL_PY": f"{url}:8001"} if is_hosted else {}
    yield {"PLUTO_API_KEY": key, "PLUTO_URL_API": f"{url}:8000", **py}
    process.kill()
    process.wait(10)


@pytest.fixture
def rendezvous(hosts, tmp_path) -> Iterator[str]:
    """A rendezvous store that no agent hosts, as an operator runs it; the options that lead to it."""
    process = hosts[1].start([sys.executable, "-c", RENDEZVOUS, hosts[1].address], dict(os.environ), tmp_path)
    assert process.stdout is not None
    while "ready" not in process.stdout.readline():
        pass
    yield f"--rdzv-endpoint={hosts[1].name}:29400"
    process.kill()
    process.communicate(timeout=60)
