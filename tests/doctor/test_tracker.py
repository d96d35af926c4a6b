"""The checks of the tracker: their verdicts, and the probe of real servers."""

from __future__ import annotations

import socket
import ssl
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from email.utils import formatdate

import pytest
import trustme

from client.misbehaving import Misbehaving, reply, reply_json, stall
from client.picky import PickyTracker
from doctor.states import REFUSED, TRACKER, assert_finding, ids
from pluto_dist.doctor import Finding, Machine, examine, tracker
from pluto_dist.doctor.tracker import TrackerFacts
from pluto_dist.errors import TrackerUnavailableError, UnexpectedAnswerError
from pluto_dist.server import LocalServer

UNANSWERED = replace(TRACKER, is_answered=False, round_trip=None, skew=None)
UNREACHABLE = replace(UNANSWERED, unreachable="no connection to port 443 (Connection refused)")
NO_HEARTBEATS = replace(TRACKER, heartbeat_failure=UnexpectedAnswerError("not taken\nSet PLUTO_URL_PY"))


def failing(reason: str) -> TrackerFacts:
    return replace(UNANSWERED, failure=TrackerUnavailableError(f"{reason}\nCheck PLUTO_URL_API."))


TABLE = [
    ("API key", TRACKER, "ok", "from PLUTO_API_KEY"),
    ("API key", replace(TRACKER, key_source=""), "problem", "none"),
    ("API key", TrackerFacts(bad_settings="PLUTO_URL_API must be a URL"), "problem", "PLUTO_URL_API must be a URL"),
    ("API key", TrackerFacts("--offline was given"), "not applicable", "--offline"),
    ("tracker", TRACKER, "ok", "https://pluto.example.com (192.0.2.7)"),
    ("tracker", replace(TRACKER, peer="http://proxy:3128"), "ok", "through the proxy http://proxy:3128"),
    ("tracker", UNREACHABLE, "problem", "Connection refused"),
    ("tracker", TrackerFacts(bad_settings="x"), "not applicable", "see API key"),
    ("tracker's answer", TRACKER, "ok", "contract"),
    ("tracker's answer", REFUSED, "ok", "contract"),
    ("tracker's answer", UNREACHABLE, "not applicable", "see tracker"),
    ("tracker's answer", replace(TRACKER, failure=UnexpectedAnswerError("redirects\nset X")), "problem", "redirects"),
    ("tracker's answer", failing("SSLError: CERTIFICATE_VERIFY_FAILED"), "problem", "VERIFY"),
    ("key accepted", TRACKER, "ok", "accepted"),
    ("key accepted", REFUSED, "problem", "401"),
    ("key accepted", failing("HTTP 503"), "not applicable", "see tracker's answer"),
    ("heartbeats", TRACKER, "ok", "taken by https://pluto-py.example.com"),
    ("heartbeats", replace(TRACKER, heartbeat_url=TRACKER.url), "ok", "taken"),
    ("heartbeats", NO_HEARTBEATS, "problem", "not taken"),
    ("heartbeats", REFUSED, "not applicable", "see tracker's answer"),
    ("round trip", TRACKER, "ok", "31 ms"),
    ("round trip", replace(TRACKER, round_trip=1.9), "warning", "1900 ms"),
    ("clock", TRACKER, "ok", "agrees"),
    ("clock", replace(TRACKER, skew=86400.0), "warning", "86400 s behind"),
    ("clock", replace(TRACKER, skew=None), "not applicable", "no date"),
]


@pytest.mark.parametrize(("name", "facts", "verdict", "text"), TABLE, ids=ids(TABLE))
def test_findings(name, facts, verdict, text):
    """Each check in its good and bad states."""
    assert_finding(name, facts, verdict, text)


KEY = "mlps_hidden_key"

VALID = {"valid": True}


def findings(url: str, key: str = KEY, timeout: float = 20.0, **environ: str) -> dict[str, Finding]:
    machine = Machine({"PLUTO_API_KEY": key, "PLUTO_URL_API": url, **environ}, timeout=timeout)
    return dict(examine(machine, (tracker.GROUP,)).findings)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """The tests do not use the machine's proxy."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


def test_the_embedded_tracker():
    """With its key everything is ok; with another key exactly that is the problem."""
    with LocalServer() as server:
        good = findings(server.url, server.api_key)
        bad = findings(server.url)
    assert {finding.verdict for finding in good.values()} == {"ok"}
    assert {name for name, finding in bad.items() if finding.verdict == "problem"} == {"key accepted"}
    assert KEY not in str(bad)


def test_heartbeats_have_an_address_of_their_own():
    """The address that the settings name is asked; one that is the web service's, or nobody's, is the only problem."""
    with PickyTracker(takes_heartbeats=False) as web:
        key = web.behind.api_key
        wrong = findings(web.url, key)
        right = findings(web.url, key, PLUTO_URL_PY=web.behind.url)
        nobody = findings(web.url, key, PLUTO_URL_PY="http://127.0.0.1:1")
    assert {finding.verdict for finding in right.values()} == {"ok"}
    for found in (wrong, nobody):
        assert {name for name, finding in found.items() if finding.verdict != "ok"} == {"heartbeats"}
        assert "PLUTO_URL_PY" in found["heartbeats"].fix


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
    """Each fault causes one finding with a fix; the others do not repeat it, and none shows the key."""
    with Misbehaving(answer) as server:
        found = findings(server.url)
    assert [key for key, finding in found.items() if finding.fix] == [name]
    assert saw in found[name].saw and fix in found[name].fix
    assert KEY not in str(found)


def test_a_valid_key_that_is_rejected_once():
    """The hosted server sometimes answers 401 to a valid key; that is not a problem."""
    with Misbehaving(reply(401), reply_json(VALID)) as server:
        assert findings(server.url)["key accepted"].verdict == "ok"


def test_an_answer_without_a_date():
    """The check of the clock does not apply."""
    with Misbehaving(reply_json(VALID)) as server:
        found = findings(server.url)
    assert found["clock"].verdict == "not applicable" and found["round trip"].verdict == "ok"


def test_servers_that_do_not_answer():
    """A closed port, one that accepts no connection, one that accepts it and sends nothing, and an unknown name."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert "Connection refused" in findings(f"http://127.0.0.1:{port}")["tracker"].saw
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.socket() as first, socket.socket() as more:
        for each in (first, more):  # they fill the backlog, so that the next one waits
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        found = findings(f"http://127.0.0.1:{full.getsockname()[1]}", timeout=3.0)
        assert "no answer within 0.6 s" in found["tracker"].saw and found["clock"].saw == "see tracker"
    with Misbehaving(stall) as server:
        found = findings(server.url, timeout=3.0)
        assert found["tracker"].verdict == "ok" and "cannot be reached" in found["tracker's answer"].saw
    assert "does not resolve" in findings("http://tracker.invalid")["tracker"].saw


@pytest.mark.parametrize(
    ("case", "fix"), [("untrusted", "REQUESTS_CA_BUNDLE"), ("expired", "clock"), ("plain", "http://")]
)
def test_tls(tmp_path, monkeypatch, case, fix):
    """An unknown authority, an expired certificate and a server without TLS have different fixes."""
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
        found = findings(f"https://127.0.0.1:{listener.getsockname()[1]}")
        listener.shutdown(socket.SHUT_RDWR)
        answering.join(10)
    assert found["tracker's answer"].verdict == "problem"
    assert fix in found["tracker's answer"].fix, found


def answer(listener: socket.socket, context: ssl.SSLContext | None) -> None:
    """Completes the TLS handshake and closes; without a context, answers any request in plain HTTP."""
    with suppress(OSError):  # the listener is closed
        while True:
            connection, _ = listener.accept()
            with connection, suppress(OSError):  # the client rejects the certificate
                if context is not None:
                    context.wrap_socket(connection, server_side=True).close()
                elif connection.recv(4096):
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


def test_a_proxy(monkeypatch):
    """The connection is made to the proxy, which is shown without its password."""
    with Misbehaving(reply_json(VALID)) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("//", "//ada:hunter2@"))
        found = findings("http://tracker.invalid")
    assert f"through the proxy {proxy.url}" in found["tracker"].saw
    assert found["key accepted"].verdict == "ok"
    assert "hunter2" not in str(found)


def test_a_key_from_the_keychain(tmp_path, monkeypatch):
    """A key that `pluto login` stored is used, and the finding names its source."""
    (tmp_path / "keyring.py").write_text(f"import time\ndef get_password(*_): return {KEY!r}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "keyring", raising=False)
    with Misbehaving(reply_json(VALID)) as server:
        found = examine(Machine({"PLUTO_URL_API": server.url}, timeout=20.0), (tracker.GROUP,))
        assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    monkeypatch.delitem(sys.modules, "keyring", raising=False)
    assert dict(found.findings)["API key"].saw == "from the keychain (pluto login)"
    assert KEY not in str(found)
