"""Two hosts on one machine: a network namespace each, joined by a virtual cable.

Each host has an address, a name, an ``/etc/hosts`` and process numbers of its own. Needs root and iproute2.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

NETWORK = "10.231.78"
NAMES = ("node-a", "node-b")


def why_not() -> str | None:
    """What is missing here, and how to get it; ``None`` where two hosts can be made."""
    if os.geteuid() != 0:
        return "two hosts need root: run the tests as root, in a container say"
    if not shutil.which("ip") or not shutil.which("unshare"):
        return "two hosts need iproute2 and util-linux: apt-get install iproute2 util-linux"
    return None


@dataclass(frozen=True)
class Host:
    """One of the two; ``address`` is reachable from the other."""

    name: str
    address: str
    namespace: str

    def start(
        self, command: Sequence[str], environ: dict[str, str], cwd: Path, output: int | IO[str] = subprocess.PIPE
    ) -> subprocess.Popen[str]:
        """Run ``command`` on this host; killing what is returned kills all of it."""
        inside = ["ip", "netns", "exec", self.namespace, "unshare", "--uts", "--pid", "--fork", "--mount-proc"]
        named = ["--kill-child", "sh", "-c", 'hostname "$0"; exec "$@"', self.name, *command]
        return subprocess.Popen(
            [*inside, *named],
            env={**environ, "GLOO_SOCKET_IFNAME": "cable"},
            cwd=cwd,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """The two hosts; they, and whatever still runs on them, are gone afterwards."""
    tag = uuid.uuid4().hex[:6]
    hosts = [Host(name, f"{NETWORK}.{n}", f"pd-{tag}-{n}") for n, name in enumerate(NAMES, start=1)]
    try:
        for host in hosts:
            ip("netns", "add", host.namespace)
            etc = Path("/etc/netns", host.namespace)  # ip netns exec mounts these over /etc
            etc.mkdir(parents=True)
            lines = ["127.0.0.1 localhost", *(f"{other.address} {other.name}" for other in hosts)]
            (etc / "hosts").write_text("\n".join(lines) + "\n")
        first, second = (host.namespace for host in hosts)
        ip("link", "add", "cable", "netns", first, "type", "veth", "peer", "name", "cable", "netns", second)
        for host in hosts:
            ip("-n", host.namespace, "addr", "add", f"{host.address}/24", "dev", "cable")
            for device in ("cable", "lo"):
                ip("-n", host.namespace, "link", "set", device, "up")
        yield hosts[0], hosts[1]
    finally:
        for host in hosts:
            _remove(host)


def ask(host: Host, environ: dict[str, str], path: str) -> dict[str, Any]:
    """What the tracker answers, asked from its own host."""
    code = (
        "import os, sys, requests\n"
        "key = {'Authorization': 'Bearer ' + os.environ['PLUTO_API_KEY']}\n"
        "answer = requests.get(os.environ['PLUTO_URL_API'] + sys.argv[1], headers=key, timeout=60)\n"
        "print(answer.text)\n"
    )
    process = host.start([sys.executable, "-c", code, path], {**os.environ, **environ}, Path.cwd())
    output, _ = process.communicate(timeout=30)
    answer: dict[str, Any] = json.loads(output.splitlines()[-1])
    return answer


def _remove(host: Host) -> None:
    inside = subprocess.run(["ip", "netns", "pids", host.namespace], capture_output=True, text=True, check=False)
    for pid in inside.stdout.split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    subprocess.run(["ip", "netns", "del", host.namespace], capture_output=True, check=False)
    shutil.rmtree(Path("/etc/netns", host.namespace), ignore_errors=True)


def ip(*arguments: str) -> None:
    """Run iproute2's command."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=10)
