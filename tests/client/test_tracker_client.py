"""The tracker's client against a real HTTP server that misbehaves: what is raised, what was sent, and when it ends."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from email.utils import formatdate
from typing import Any

import pytest
from urllib3.connection import HTTPConnection

from client.misbehaving import (
    RUN,
    Answer,
    Misbehaving,
    drip,
    gzipped,
    raw,
    reply,
    reply_json,
    reset,
    run,
    stall,
    truncated,
)
from pluto_dist.client.tracker_client import ANSWER_LIMIT, TrackerClient
from pluto_dist.contract.run_requests import (
    CreateRunRequest,
    CreateRunResponse,
    ResumeRunRequest,
    UpdateConfigRequest,
    UpdateStatusRequest,
)
from pluto_dist.contract.secret import Secret
from pluto_dist.errors import (
    AuthenticationError,
    PlutoDistError,
    RequestRefusedError,
    TrackerUnavailableError,
    UnexpectedAnswerError,
)

KEY = "mlps_k3y-k3y-k3y-k3y-k3y-k3y"
REQUEST = CreateRunRequest("ddp", "digits", "job-7", config='{"lr": 0.1}', tags=("a",))
UNAUTHORIZED = reply_json({"error": "Unauthorized", "message": "Key not found"}, 401)


def soon(seconds: float = 10.0) -> float:
    return time.monotonic() + seconds


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy between a test and its server."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def client_of() -> Iterator[Callable[..., TrackerClient]]:
    """Clients of the given addresses, closed with the test."""
    made: list[TrackerClient] = []

    def new(url_api: str, url_py: str | None = None, key: str = KEY) -> TrackerClient:
        made.append(
            TrackerClient(url_api, url_py or url_api, Secret(key), user_agent="pluto-dist/test (rank 0 of 1; here)")
        )
        return made[-1]

    yield new
    for client in made:
        client.close()


def test_what_is_sent(client_of):
    """One POST with the record as JSON, the bearer key, and a name for the server's log."""
    with Misbehaving(run()) as server:
        answer = client_of(server.url).create(REQUEST, deadline=soon())

    assert answer == CreateRunResponse.from_json(RUN)
    (seen,) = server.requests
    assert (seen.method, seen.path) == ("POST", "/api/runs/create")
    assert json.loads(seen.body) == REQUEST.to_json()
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert seen.headers["content-type"] == "application/json"
    assert seen.headers["user-agent"] == "pluto-dist/test (rank 0 of 1; here)"


CALLS: dict[str, tuple[Callable[[TrackerClient], Any], Answer, str, dict[str, Any] | None]] = {
    "resume": (
        lambda client: client.resume(ResumeRunRequest(run_id=7), deadline=soon()),
        run(resumed=True),
        "POST /api/runs/resume",
        {"runId": 7},
    ),
    "status": (
        lambda client: client.details(7, deadline=soon()),
        reply_json({"status": "FAILED"}),
        "GET /api/runs/details/7",
        None,
    ),
    "end": (
        lambda client: client.update_status(UpdateStatusRequest(7, "COMPLETED"), deadline=soon()),
        reply_json({"success": True}),
        "POST /api/runs/status/update",
        {"runId": 7, "status": "COMPLETED", "statusMetadata": None},
    ),
    "config": (
        lambda client: client.update_config(UpdateConfigRequest(7, "{}"), deadline=soon()),
        reply_json({"success": True}),
        "POST /api/runs/config/update",
        {"runId": 7, "config": "{}"},
    ),
}


@pytest.mark.parametrize(("call", "answer", "line", "body"), CALLS.values(), ids=CALLS)
def test_the_other_calls(client_of, call, answer, line, body):
    """Each call goes to its path, once."""
    with Misbehaving(answer) as server:
        call(client_of(server.url))
    (seen,) = server.requests
    assert f"{seen.method} {seen.path}" == line
    assert (json.loads(seen.body) if seen.body else None) == body


def test_heartbeats_go_to_their_own_address(client_of):
    """A sign of life goes to url_py and to nothing else; its answer tells the status."""
    with Misbehaving(run()) as api, Misbehaving(reply_json({"status": "CANCELLED", "triggers": None})) as py:
        answer = client_of(api.url, py.url).heartbeat(7, deadline=soon())
    assert answer.status == "CANCELLED"
    assert api.requests == []
    (seen,) = py.requests
    assert (seen.method, seen.path, json.loads(seen.body)) == ("POST", "/api/runs/trigger", {"runId": 7})


def test_status_of_an_unknown_run(client_of):
    """A run that the tracker does not know has no status; that is no error."""
    with Misbehaving(reply_json({"error": "Run not found"}, 404)) as server:
        assert client_of(server.url).details(7, deadline=soon()) is None


@pytest.mark.parametrize("body", [{}, [], {"status": None}, {"status": 5}, None])
def test_details_without_a_status(client_of, body):
    """Details of another shape are unexpected, not a status."""
    with Misbehaving(reply_json(body)) as server, pytest.raises(UnexpectedAnswerError):
        client_of(server.url).details(7, deadline=soon())


FAILS_ONCE = {
    "500": reply_json({"error": "Internal Server Error"}, 500),
    "502 HTML": reply(502, b"<html>bad gateway</html>", Content_Type="text/html"),
    "503": reply(503),
    "504": reply(504),
    "408": reply(408),
    "429": reply(429),
    "429 Retry-After seconds": reply(429, Retry_After="1"),
    "429 Retry-After 0": reply(429, Retry_After="0"),
    "429 Retry-After date": reply(429, Retry_After=formatdate(time.time() - 5, usegmt=True)),
    "429 Retry-After garbage": reply(429, Retry_After="soon, I hope"),
    "429 Retry-After negative": reply(429, Retry_After="-5"),
    "503 Retry-After of no date": reply(503, Retry_After="Mon, 99 Foo 99999 99:99:99 GMT"),
    "reset": reset,
    "closed": raw(b""),
    "no HTTP": raw(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "truncated": truncated(json.dumps(RUN).encode()),
    "broken chunks": raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n"),
    "not gzip": reply(200, b"{}", Content_Encoding="gzip"),
    "401": UNAUTHORIZED,
}


@pytest.mark.parametrize("failure", FAILS_ONCE.values(), ids=FAILS_ONCE)
def test_what_is_tried_again(client_of, failure):
    """A failure that may pass is tried again, with the same body; the second answer counts."""
    with Misbehaving(failure, run()) as server:
        answer = client_of(server.url).create(REQUEST, deadline=soon())
    assert answer.run_id == 7
    assert len(server.requests) == 2
    assert server.requests[0].body == server.requests[1].body


@pytest.mark.parametrize(
    ("value", "least"),
    [("1", 0.9), (formatdate(time.time() + 3600, usegmt=True), None), ("3600", None)],
    ids=["1 s", "a date", "an hour"],
)
def test_retry_after_is_obeyed(client_of, value, least):
    """The next try waits as long as the server asks; where that is beyond the deadline, there is none."""
    with Misbehaving(reply(429, Retry_After=value), run()) as server:
        began = time.monotonic()
        if least is None:
            with pytest.raises(TrackerUnavailableError, match="429"):
                client_of(server.url).create(REQUEST, deadline=soon(5))
            assert len(server.requests) == 1
        else:
            client_of(server.url).create(REQUEST, deadline=soon())
            assert time.monotonic() - began >= least


@pytest.mark.parametrize("failure", [reply(500), reply(429, Retry_After="0"), reset], ids=["500", "0 s", "reset"])
def test_retries_are_few(client_of, failure):
    """A server that keeps failing is asked a handful of times, not as often as it answers."""
    with Misbehaving(failure) as server, pytest.raises(TrackerUnavailableError):
        client_of(server.url).create(REQUEST, deadline=soon(1.5))
    assert 2 <= len(server.requests) <= 20


BEYOND = {
    "500": (reply_json({"error": "Failed to create run"}, 500), "Failed to create run"),
    "429": (reply(429), "429"),
    "reset": (reset, "cannot be reached"),
    "stall": (stall, "cannot be reached"),
    "truncated": (truncated(b"{"), "cannot be reached"),
    "dripping body": (drip(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n" + b" " * 999, 0.02), "cannot be reached"),
    "dripping headers": (drip(b"HTTP/1.1 200 OK\r\n" + b"X-Filler: 1\r\n" * 90, 0.02), "cannot be reached"),
}


@pytest.mark.parametrize(("failure", "told"), BEYOND.values(), ids=BEYOND)
def test_the_deadline_is_kept(client_of, failure, told):
    """However the server fails, and however slowly, the call ends soon after its deadline and says why."""
    with Misbehaving(failure) as server:
        began = time.monotonic()
        with pytest.raises(TrackerUnavailableError, match=told):
            client_of(server.url).create(REQUEST, deadline=soon(1.5))
        assert time.monotonic() - began < 30


def test_nobody_listens(client_of):
    """A refused connection is tried until the deadline; the error names the address and what to check."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, not listening: refuses
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(TrackerUnavailableError) as caught:
            client_of(url).create(REQUEST, deadline=soon(1.5))
    assert 0.2 < time.monotonic() - began < 30
    assert url in str(caught.value)
    assert "PLUTO_URL_API" in str(caught.value)


@contextmanager
def refuses() -> Iterator[str]:
    """An address that refuses connections."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, not listening
        yield f"127.0.0.1:{closed.getsockname()[1]}"


@contextmanager
def never_accepts() -> Iterator[str]:
    """An address whose queue of connections is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, ExitStack() as stack:
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("way", [refuses, never_accepts, "a proxy"], ids=["refused", "no answer", "a proxy"])
def test_an_error_names_no_object(client_of, monkeypatch, way, scheme):
    """The error names host and port, and what failed; no object and its address, whatever urllib3 is installed."""
    if "__str__" in vars(HTTPConnection):  # urllib3 2.6 and newer
        monkeypatch.delattr(HTTPConnection, "__str__")
    with (refuses if way == "a proxy" else way)() as address:
        url = f"{scheme}://{address}"
        if way == "a proxy":
            url = f"{scheme}://tracker.invalid"
            monkeypatch.setenv(f"{scheme}_proxy", f"http://{address}")
        with pytest.raises(TrackerUnavailableError) as caught:
            client_of(url).create(REQUEST, deadline=soon(1.5), retry=False)
    assert " at 0x" not in str(caught.value)
    words = {refuses: "Connection refused", never_accepts: "timed out", "a proxy": "proxy: Failed to establish"}
    assert re.match(rf"{re.escape(url)} cannot be reached \([^()]*{words[way]}", str(caught.value))


def test_a_deadline_in_the_past_still_ends(client_of):
    """A call that comes too late makes at most one try."""
    with Misbehaving(stall) as server, pytest.raises(TrackerUnavailableError):
        client_of(server.url).create(REQUEST, deadline=time.monotonic() - 1)
    assert len(server.requests) <= 1


def test_a_key_that_stays_refused(client_of):
    """401 is tried twice more, then it is AuthenticationError, long before the deadline."""
    with Misbehaving(UNAUTHORIZED) as server:
        began = time.monotonic()
        with pytest.raises(AuthenticationError, match="Key not found") as caught:
            client_of(server.url).create(REQUEST, deadline=soon(120))
        assert time.monotonic() - began < 30
    assert len(server.requests) == 3
    assert "PLUTO_API_KEY" in str(caught.value)


def test_refusals_between_failures_count_together(client_of):
    """401s that alternate with 500s still end after three."""
    down = reply(500)
    with Misbehaving(UNAUTHORIZED, down, UNAUTHORIZED, down, UNAUTHORIZED, run()) as server:
        with pytest.raises(AuthenticationError):
            client_of(server.url).create(REQUEST, deadline=soon(20))
        assert len(server.requests) == 5


ISSUES = [
    {"code": "too_small", "path": ["tags", 3], "message": "String too short"},
    {"path": [], "message": "Required"},
]
REFUSED = {
    "A": (400, {"error": "Invalid JSON format in request body"}, "Invalid JSON format in request body"),
    "B": (403, {"error": "Forbidden", "message": "not your project"}, "Forbidden: not your project"),
    "C": (400, {"success": False, "error": {"issues": ISSUES, "name": "ZodError"}}, "tags.3: String too short"),
    "404": (404, {"error": "Run not found"}, "Run not found"),
    "409": (409, {"error": "ambiguous display id"}, "ambiguous"),
    "413": (413, {}, "413"),
    "201": (201, RUN, "201"),
    "204": (204, None, "204"),
    "C without issues": (400, {"error": {"name": "ZodError"}}, "400"),
    "C with null issues": (400, {"error": {"issues": None}}, "400"),
    "C with a number for issues": (400, {"error": {"issues": 5}}, "400"),
    "C with odd issues": (400, {"error": {"issues": [1, None, {"path": 5, "message": {}}]}}, "400"),
    "an error that is a list": (400, {"error": [1, 2]}, "400"),
    "a bare string": (400, "no", "400"),
    "null": (400, None, "400"),
    "numbers": (400, {"error": 5, "message": 6}, "400"),
}


@pytest.mark.parametrize(("status", "body", "told"), REFUSED.values(), ids=REFUSED)
def test_what_no_retry_can_mend(client_of, status, body, told):
    """Another 4xx, in any of the server's three shapes or none, is one request and an error with its words."""
    with Misbehaving(reply_json(body, status)) as server:
        with pytest.raises(RequestRefusedError, match=told) as caught:
            client_of(server.url).create(REQUEST, deadline=soon())
        assert caught.value.status == status
        assert len(server.requests) == 1


@pytest.mark.parametrize("content", [b"404 Not Found", b"\xff\xfe", b"", b"[" * 100_000, b"9" * 5000])
def test_errors_that_are_no_json(client_of, content):
    """What came instead of JSON is shown, cut to a line."""
    with Misbehaving(reply(404, content)) as server, pytest.raises(RequestRefusedError) as caught:
        client_of(server.url).create(REQUEST, deadline=soon())
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_never_followed(client_of, status):
    """The other host receives nothing, the key least of all; the error names the address to set."""
    with Misbehaving(run()) as other, Misbehaving(reply(status, Location=f"{other.url}/api/runs/create")) as server:
        with pytest.raises(UnexpectedAnswerError, match="redirects") as caught:
            client_of(server.url).create(REQUEST, deadline=soon())
        assert f"PLUTO_URL_API={other.url}" in str(caught.value)
        assert len(server.requests) == 1
    assert other.requests == []


@pytest.mark.parametrize("location", ["/login", "", "http://[::1", "http://me:pw@x/", "//", "javascript:alert(1)"])
def test_redirects_to_nowhere(client_of, location):
    """Whatever the Location holds, the error is the same kind, and repeats no password."""
    with Misbehaving(reply(302, Location=location)) as server, pytest.raises(UnexpectedAnswerError) as caught:
        client_of(server.url).create(REQUEST, deadline=soon())
    assert "pw" not in str(caught.value)


UNEXPECTED = {
    "HTML": reply(200, b"<!doctype html><title>Sign in</title>", Content_Type="text/html"),
    "nothing": reply(200),
    "text": reply(200, b"OK"),
    "a list": reply_json([RUN]),
    "null": reply_json(None),
    "another shape": reply_json({"runId": 642064977}),
    "an error with 200": reply_json({"error": {"issues": 3}}),
    "run id as text": run(runId="7"),
    "run id null": run(runId=None),
    "run id true": run(runId=True),
    "run id a fraction": run(runId=7.5),
    "run id NaN": run(runId=float("nan")),
    "run id infinite": run(runId=float("inf")),
    "url a number": run(url=5),
    "resumed as text": run(resumed="false"),
    "NaN": reply(200, b"NaN"),
    "nested": reply(200, b"[" * 200_000),
    "a number of many digits": reply(200, b"9" * 5000),
    "invalid UTF-8": reply(200, b'{"runId": "\xff\xfe"}'),
    "huge": reply(200, b" " * (ANSWER_LIMIT + 10) + b"{}"),
}


@pytest.mark.parametrize("answer", UNEXPECTED.values(), ids=UNEXPECTED)
def test_answers_that_are_not_the_contracts(client_of, answer):
    """200 with anything else than the contract's record is an error, and is not tried again."""
    with Misbehaving(answer) as server:
        with pytest.raises(UnexpectedAnswerError):
            client_of(server.url).create(REQUEST, deadline=soon())
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        gzipped(RUN),
        run(extra={"deep": [1]}),
        run(number=None, displayId=None),
        reply(200, json.dumps(RUN, indent=2).encode()),
    ],
    ids=["gzip", "unknown fields", "nulls", "white space"],
)
def test_answers_that_will_do(client_of, answer):
    """Compression, fields of a later contract and blanks do no harm."""
    with Misbehaving(answer) as server:
        assert client_of(server.url).create(REQUEST, deadline=soon()).run_id == 7


# Where a server may hand the key back.
ECHOES: dict[str, Answer] = {
    "error": reply_json({"error": f"no such key: {KEY}"}, 400),
    "message": reply_json({"error": "Unauthorized", "message": f"Key {KEY} not found"}, 401),
    "issue": reply_json({"error": {"issues": [{"path": [KEY], "message": f"bad {KEY}"}]}}, 400),
    "text": reply(404, f"Bearer {KEY}".encode()),
    "cut text": reply(404, b"x" * 190 + KEY.encode()),
    "cut error": reply_json({"error": "x" * 490 + KEY}, 400),
    "500": reply(500, KEY.encode()),
    "html": reply(200, f"<p>{KEY}</p>".encode()),
    "field": run(runId=KEY),
    "location": reply(302, Location=f"http://{KEY}.example.com/x?key={KEY}"),
    "status line": raw(f"{KEY}\r\n\r\n".encode()),
    "chunk": raw(f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{KEY}\r\n".encode()),
    "header": raw(f"HTTP/1.1 200 OK\r\n{KEY}\r\nContent-Length: {KEY}\r\n\r\n".encode()),
}


@pytest.mark.parametrize("where", ECHOES)
def test_the_key_is_in_no_error(client_of, where):
    """Wherever a server echoes the key, neither the error nor its traceback repeats any good part of it."""
    with Misbehaving(ECHOES[where]) as server, pytest.raises(PlutoDistError) as caught:
        client_of(server.url).create(REQUEST, deadline=soon(1))
    assert "k3y-k" not in str(caught.value)
    assert "k3y-k" not in repr(caught.value)
    shown = "".join(traceback.format_exception(caught.value))
    assert KEY not in shown


@pytest.mark.parametrize("key", ["mlps_k3y-k3y\n", "mlps_k3y-k3y\r\nX-Injected: 1", "mlps_k3y-k3y-\u200b"])
def test_a_key_that_no_header_can_carry(client_of, key):
    """A key with a line break or other alphabets is a deliberate error, without the key, and injects no header."""
    with Misbehaving(UNAUTHORIZED) as server:
        with pytest.raises(PlutoDistError) as caught:
            client_of(server.url, key=key).create(REQUEST, deadline=soon(1))
        assert not any("x-injected" in seen.headers for seen in server.requests)
    assert "k3y-k" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("location", ["~/.netrc", "NETRC"])
def test_netrc_does_not_replace_the_key(client_of, tmp_path, monkeypatch, location):
    """The bearer key is sent although a netrc file has a login for the host."""
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login me password hunter2\ndefault login me password hunter2\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    if location == "NETRC":
        monkeypatch.setenv("NETRC", str(netrc))
    else:
        monkeypatch.delenv("NETRC", raising=False)
    with Misbehaving(run()) as server:
        client_of(server.url).create(REQUEST, deadline=soon())
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_stop_ends_a_wait_at_once(client_of):
    """A call that waits for its next try ends when the client is stopped."""
    with Misbehaving(reply(503, Retry_After="20")) as server:
        client = client_of(server.url)
        caught: list[BaseException] = []

        def call() -> None:
            try:
                client.create(REQUEST, deadline=soon(60))
            except PlutoDistError as error:
                caught.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        until = soon()
        while not server.requests and time.monotonic() < until:
            time.sleep(0.01)
        client.stop()
        thread.join(5)
        assert not thread.is_alive()
    assert isinstance(caught[0], TrackerUnavailableError)
    assert len(server.requests) <= 2


@pytest.mark.parametrize(
    ("answer", "error"),
    [(reply(500), TrackerUnavailableError), (UNAUTHORIZED, AuthenticationError)],
    ids=["500", "401"],
)
def test_a_stopped_client_makes_one_try(client_of, answer, error):
    """After stop() a call is made once, and its failure is final."""
    with Misbehaving(answer) as server:
        client = client_of(server.url)
        client.stop()
        with pytest.raises(error):
            client.create(REQUEST, deadline=soon(30))
    assert len(server.requests) == 1


def test_a_display_id_of_another_project(client_of):
    """A tracker that answers with another project's run of the same display id names no run of this one."""
    theirs, ours = ({"id": number, "projectName": name} for number, name in ((5, "other"), (6, "digits")))
    with Misbehaving(reply_json(theirs), reply_json(ours)) as server:
        client = client_of(server.url)
        with pytest.raises(RequestRefusedError, match="names no run of project 'digits'"):
            client.number_of("DIG-1", "digits", deadline=soon(5))
        assert client.number_of("DIG-1", "digits", deadline=soon(5)) == 6
