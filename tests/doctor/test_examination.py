"""``pluto-dist doctor``: it asks real servers, ends in time whatever hangs, and shows no secret."""

from __future__ import annotations

import json
import os
import pty
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from email.utils import formatdate

import pytest
import trustme
from click.testing import CliRunner
from client.misbehaving import Misbehaving, reply, reply_json, stall

from pluto_dist.cli import main
from pluto_dist.doctor import FAMILIES, Finding, Machine, disk, examine, network, reaching
from pluto_dist.doctor.family import Family
from pluto_dist.doctor.finding import ok, problem
from pluto_dist.server import LocalServer

KEY = "mlps_hidden_key"
VALID = {"valid": True}


def tracker(url: str, key: str = KEY, timeout: float = 20.0, **environ: str) -> dict[str, Finding]:
    machine = Machine({"PLUTO_API_KEY": key, "PLUTO_URL_API": url, **environ}, timeout=timeout)
    return dict(examine(machine, (reaching.FAMILY,)).findings)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """A proxy of the machine's own has no part in these tests."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


def test_a_tracker_that_is_well():
    """With the embedded tracker and its key everything is ok; with another key exactly that is the problem."""
    with LocalServer() as server:
        good = tracker(server.url, server.api_key)
        bad = tracker(server.url)
    assert {finding.verdict for finding in good.values()} == {"ok"}
    assert {name for name, finding in bad.items() if finding.verdict == "problem"} == {"key accepted"}
    assert KEY not in str(bad)


@pytest.mark.parametrize(
    ("answer", "name", "saw", "fix"),
    [
        (
            reply(308, Location="https://new.example.com/api"),
            "tracker's answer",
            "redirects",
            "https://new.example.com",
        ),
        (reply(200, b"<html>Pluto</html>", Content_Type="text/html"), "tracker's answer", "not JSON", "web page"),
        (reply_json({"status": "up"}), "tracker's answer", "not a tracker's", "PLUTO_URL_API"),
        (reply(503), "tracker's answer", "503", "who runs that server"),
        (reply(404), "tracker's answer", "404", ""),
        (reply_json(VALID, Date=formatdate(time.time() - 3600, usegmt=True)), "clock", "s ahead of", "set-ntp"),
        (reply(401, KEY.encode()), "key accepted", "401", "PLUTO_API_KEY"),
    ],
)
def test_a_server_that_misbehaves(answer, name, saw, fix):
    """Each fault has one finding that names it and its fix; the others do not repeat it, nor show the key."""
    with Misbehaving(answer) as server:
        found = tracker(server.url)
    assert [key for key, finding in found.items() if finding.fix] == [name]
    assert saw in found[name].saw and fix in found[name].fix
    assert KEY not in str(found)


def test_a_good_key_that_is_refused_once():
    """The hosted server answers 401 to a good key now and then: that is no finding."""
    with Misbehaving(reply(401), reply_json(VALID)) as server:
        assert tracker(server.url)["key accepted"].verdict == "ok"


def test_a_server_without_a_clock():
    """An answer without a date is no clock that agrees."""
    with Misbehaving(reply_json(VALID)) as server:
        found = tracker(server.url)
    assert found["clock"].verdict == "not applicable" and found["round trip"].verdict == "ok"


def test_servers_that_do_not_answer():
    """A closed port, one that takes no connection, one that takes it and is silent, and a name that is none."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert "Connection refused" in tracker(f"http://127.0.0.1:{port}")["tracker"].saw
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.socket() as first, socket.socket() as more:
        for each in (first, more):  # the kernel keeps so many, and lets the next ones wait
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        found = tracker(f"http://127.0.0.1:{full.getsockname()[1]}", timeout=3.0)
        assert "no answer within 0.6 s" in found["tracker"].saw and found["clock"].saw == "see tracker"
    with Misbehaving(stall) as server:
        found = tracker(server.url, timeout=3.0)
        assert found["tracker"].verdict == "ok" and "cannot be reached" in found["tracker's answer"].saw
    assert "does not resolve" in tracker("http://tracker.invalid")["tracker"].saw


@pytest.mark.parametrize(
    ("case", "fix"), [("untrusted", "REQUESTS_CA_BUNDLE"), ("expired", "clock"), ("plain", "http://")]
)
def test_tls(tmp_path, monkeypatch, case, fix):
    """What is wrong with TLS is told apart: an unknown authority, an old certificate, a server without TLS."""
    authority = trustme.CA()
    yesterday = datetime.now(timezone.utc) - timedelta(days=1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", not_after=yesterday if case == "expired" else None).configure_cert(context)
    if case == "expired":
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        answering = threading.Thread(target=answer, args=(listener, None if case == "plain" else context))
        answering.start()
        found = tracker(f"https://127.0.0.1:{listener.getsockname()[1]}")
        listener.shutdown(socket.SHUT_RDWR)
        answering.join(10)
    assert found["tracker's answer"].verdict == "problem"
    assert fix in found["tracker's answer"].fix, found


def answer(listener: socket.socket, context: ssl.SSLContext | None) -> None:
    """Shakes hands as TLS does and goes no further; without a context, answers in plain HTTP to whatever comes."""
    with suppress(OSError):  # the listener is closed
        while True:
            connection, _ = listener.accept()
            with connection, suppress(OSError):  # the client refuses; that is the point
                if context is not None:
                    context.wrap_socket(connection, server_side=True).close()
                elif connection.recv(4096):
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


def test_a_proxy(monkeypatch):
    """A proxy is named without its password, and is what is connected to."""
    with Misbehaving(reply_json(VALID)) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("//", "//ada:hunter2@"))
        found = tracker("http://tracker.invalid")
    assert f"through the proxy {proxy.url}" in found["tracker"].saw
    assert found["key accepted"].verdict == "ok"
    assert "hunter2" not in str(found)


def test_a_key_from_the_keychain(tmp_path, monkeypatch):
    """A key that `pluto login` stored is found, and its source named; one that is slow to come costs its share."""
    (tmp_path / "keyring.py").write_text(f"import time\ndef get_password(*_): return {KEY!r}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "keyring", raising=False)
    with Misbehaving(reply_json(VALID)) as server:
        found = examine(Machine({"PLUTO_URL_API": server.url}, timeout=20.0), (reaching.FAMILY,))
        assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    monkeypatch.delitem(sys.modules, "keyring", raising=False)
    assert dict(found.findings)["API key"].saw == "from the keychain (pluto login)"
    assert KEY not in str(found)


def test_what_hangs_or_fails_costs_nothing_else():
    """A look that hangs, one that raises and a check that fails are findings; the others are made."""
    never = threading.Event()

    def broken(_: object) -> Finding:
        raise ZeroDivisionError("a mistake")

    families = [
        Family(lambda _: never.wait(60), (("hangs", lambda _: ok("")), ("also", lambda _: ok(""))), "Wait."),
        Family(lambda _: [].pop(), (("raises", lambda _: ok("")),)),
        Family(lambda _: 7, (("fails", broken), ("works", lambda seen: ok(f"saw {seen}")))),
    ]
    found = dict(examine(Machine({}, timeout=0.3), families).findings)
    never.set()
    assert found["hangs"] == problem("cannot be seen: no answer within 0.3 s", "Wait.")
    assert found["also"].saw == "see hangs"
    assert "pop from empty list" in found["raises"].saw
    assert "ZeroDivisionError" in found["fails"].saw
    assert found["works"].saw == "saw 7"


def test_no_secret_in_any_finding():
    """Were a check to show the key or a password in a URL, it would be cut out."""
    leak = Family(lambda machine: machine, (("leak", lambda m: ok(f"{m.environ} http://u:pass@host https://a@b")),))
    (_, found), *_ = examine(Machine({"MLOP_API_TOKEN": f" {KEY}\n"}), (leak,)).findings
    assert KEY not in found.saw and "pass" not in found.saw and "http://***@host" in found.saw


def test_this_machine(tmp_path):
    """Looks at the real interfaces and disk: the loopback is up, a folder that is yet to be made can be."""
    seen = network.look(Machine({"GLOO_SOCKET_IFNAME": "lo"}))
    loopback = next(each for each in seen.interfaces if each.name == "lo")
    assert loopback.is_up and "127.0.0.1" in loopback.addresses
    assert network.gloo_interface(seen).verdict == "ok"
    name = network.look_at_rendezvous(Machine({"MASTER_ADDR": "nobody.invalid"}))
    assert network.rendezvous(name).verdict == "problem"
    spool = disk.look(Machine({"PLUTO_DIR": str(tmp_path / "new")}))
    assert spool.folder == tmp_path / "new" / "pluto-dist" / "spool" and spool.refused is None and spool.filesystem
    assert list(tmp_path.iterdir()) == []
    assert disk.look(Machine({"PLUTO_DIR": "/proc/1"})).refused


def test_nodes_are_counted_as_the_launcher_has_them():
    """One node, several, and a shell in which no job runs yet."""
    launch = {"TORCHELASTIC_RUN_ID": "1", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4"}
    groups = {"GROUP_RANK": "0", "GROUP_WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    assert network.look(Machine({})).nodes is None
    assert network.look(Machine(launch | {"GROUP_RANK": "0", "GROUP_WORLD_SIZE": "1"})).nodes == 1
    assert network.look(Machine(launch | groups)).nodes == 2


def invoke(*arguments: str, **environ: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["doctor", *arguments], env={"PLUTO_API_KEY": KEY, **environ})
    return done.exit_code, done.output


def test_the_command():
    """Text and JSON say the same; the exit code is 1 where there is a problem, and 0 where there is none."""
    code, text = invoke("--offline")
    assert code == 0 and "--offline was given" in text and KEY not in text
    code, text = invoke("--offline", "--json", RANK="3")
    told = json.loads(text)
    assert code == 1 and told["verdict"] == "problem"
    names = [check["name"] for check in told["checks"]]
    assert names == [name for family in FAMILIES for name, _ in family.checks]
    assert told["checks"][0]["saw"].startswith("init() would raise LauncherError: RANK is set")


def test_a_table_on_a_terminal():
    """On a terminal it is a coloured table with the same words."""
    ours, theirs = pty.openpty()
    environ = {**os.environ, "PLUTO_API_KEY": KEY, "COLUMNS": "160", "TERM": "xterm"}
    code = "from pluto_dist.cli import main; main(['doctor', '--offline'])"
    with subprocess.Popen([sys.executable, "-c", code], stdout=theirs, env=environ) as running:
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # Linux's way to say that the other end is closed
            while chunk := os.read(ours, 4096):
                shown += chunk
        assert running.wait(60) == 0
    os.close(ours)
    assert b"disk for an outage" in shown and b"\x1b[32mok" in shown and KEY.encode() not in shown
