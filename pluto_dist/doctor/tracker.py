"""Checks the tracker: API key, connection, contract, authentication, heartbeats, latency and clock.

``probe`` resolves the name, connects, and sends authenticated requests, each with a share of the timeout. The checks
are pure; one that does not apply because an earlier one failed refers to it and is not another problem.
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pluto_dist.contract.secret import Secret
from pluto_dist.doctor.examination import DaemonCall
from pluto_dist.doctor.finding import CheckGroup, Finding, Machine, not_applicable, ok, problem, warning
from pluto_dist.errors import (
    AuthenticationError,
    ConfigurationError,
    PlutoDistError,
    RequestRefusedError,
    TrackerError,
    TrackerUnavailableError,
    UnexpectedAnswerError,
)
from pluto_dist.inventory.safe_read import attempt
from pluto_dist.settings import keychain, settings
from pluto_dist.settings.settings import Settings

if TYPE_CHECKING:
    from pluto_dist.client.tracker_client import TrackerClient

SLOW_SECONDS = 1.0
SKEW_SECONDS = 30.0
KEYCHAIN_SHARE, NAME_SHARE, CONNECT_SHARE, ANSWER_SHARE = 0.15, 0.2, 0.2, 0.35
"""Shares of the timeout; the rest is for imports and for starting threads."""


@dataclass(frozen=True, slots=True)
class TrackerFacts:
    """The results of the requests to the tracker, up to the first failure.

    Attributes:
        unused: why no request is sent: "--offline was given", ...; empty if requests are sent.
        bad_settings: the error in the settings.
        key_source: the variable or store that the API key comes from.
        url: the tracker's origin.
        peer: the server that this machine connects to: the tracker, or a proxy.
        addresses: the addresses of ``peer``.
        unreachable: why there is no connection to it.
        failure: the error of the request.
        heartbeat_url: the origin that takes heartbeats.
        heartbeat_failure: the error of a heartbeat.
        is_answered: whether there was any response.
        round_trip: seconds.
        skew: seconds that the tracker's clock is ahead of this machine's; ``None`` if its response has no date.
    """

    unused: str = ""
    bad_settings: str = ""
    key_source: str = ""
    url: str = ""
    peer: str = ""
    addresses: tuple[str, ...] = ()
    unreachable: str = ""
    failure: PlutoDistError | None = None
    heartbeat_url: str = ""
    heartbeat_failure: PlutoDistError | None = None
    is_answered: bool = False
    round_trip: float | None = None
    skew: float | None = None


def probe(machine: Machine) -> TrackerFacts:
    try:
        chosen = settings.load(machine.environ)
        key, source = _key(machine, chosen)
    except ConfigurationError as error:
        return TrackerFacts(bad_settings=str(error).replace("\n", " "))
    unused = "--offline was given" if machine.offline else ""
    if chosen.mode != "online":
        unused = f"PLUTO_DIST_MODE is {chosen.mode}"
    facts = TrackerFacts(unused, key_source=source, url=chosen.url_api, heartbeat_url=chosen.url_py)
    if unused:
        return facts
    facts = _connected(facts, machine.timeout)
    return facts if facts.unreachable or key is None else _authenticated(facts, chosen, key, machine.timeout)


def _key(machine: Machine, chosen: Settings) -> tuple[Secret | None, str]:
    if chosen.api_key is not None:
        return chosen.api_key, next(iter(machine.keys))
    stored = keychain.stored_key(min(keychain.SECONDS, machine.timeout * KEYCHAIN_SHARE))
    if stored is None:
        return None, ""
    return settings.load({}, api_key=stored).api_key, "the keychain (pluto login)"


def _connected(facts: TrackerFacts, timeout: float) -> TrackerFacts:
    """Connects to the tracker, or to the proxy that requests would use."""
    proxy = _proxy(facts.url)
    parts = urlsplit(proxy or facts.url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    facts = replace(facts, peer=f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}")
    lookup = DaemonCall(partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM))
    found, error = attempt(partial(lookup.result, timeout * NAME_SHARE))
    if error is not None:
        why = f"no name server answers within {timeout * NAME_SHARE:g} s" if isinstance(error, TimeoutError) else error
        return replace(facts, unreachable=f"{host} does not resolve ({getattr(why, 'strerror', None) or why})")
    facts = replace(facts, addresses=tuple(dict.fromkeys(str(entry[4][0]) for entry in found or ())))
    connect = DaemonCall(partial(socket.create_connection, (host, port), timeout * CONNECT_SHARE))
    # With several addresses each may take that long; the call is abandoned after the time of one.
    connection, error = attempt(partial(connect.result, timeout * CONNECT_SHARE + 0.1))
    if connection is not None:
        connection.close()
        return facts
    late = isinstance(error, TimeoutError) and not getattr(error, "errno", None)
    why = f"no answer within {timeout * CONNECT_SHARE:g} s" if late else getattr(error, "strerror", None) or str(error)
    return replace(facts, unreachable=f"no connection to port {port} ({why})")


def _proxy(url: str) -> str | None:
    """The proxy that requests and the client's session read from this process's environment."""
    from requests.utils import get_environ_proxies, select_proxy

    found: str | None = select_proxy(url, get_environ_proxies(url, no_proxy=None))
    return found if found is None or "://" in found else f"http://{found}"


def _authenticated(facts: TrackerFacts, chosen: Settings, key: Secret, timeout: float) -> TrackerFacts:
    """Sends two requests, of which the second one is measured without the time of the connection; and a heartbeat."""
    from pluto_dist.client.tracker_client import TrackerClient, user_agent

    client = TrackerClient(chosen.url_api, chosen.url_py, key, user_agent=user_agent("doctor"))
    deadline, server_time = time.monotonic() + timeout * ANSWER_SHARE, 0.0
    try:
        _validate(client, chosen.url_api, deadline)
        began = time.monotonic()
        client.validate(deadline=deadline)
        facts = replace(facts, round_trip=time.monotonic() - began)
        server_time = client.server_time
        facts = replace(facts, heartbeat_failure=_heartbeat_failure(client, deadline))
    except TrackerError as error:
        facts = replace(facts, failure=error)
    finally:
        client.close()
    server_time = server_time or client.server_time
    # An HTTP date has whole seconds; without one, the client has this machine's time, with its fraction.
    skew = server_time + 0.5 - time.time() if server_time and server_time == int(server_time) else None
    return replace(facts, is_answered=server_time > 0, skew=skew)


def _heartbeat_failure(client: TrackerClient, deadline: float) -> PlutoDistError | None:
    """Why a heartbeat would not be taken; asks with one of a run that no tracker has, which changes nothing."""
    asked = DaemonCall(partial(client.heartbeat, 0, deadline=deadline))
    _, error = attempt(partial(asked.result, max(0.1, deadline - time.monotonic() + 0.2)))
    if error is None or isinstance(error, RequestRefusedError):
        return None
    if isinstance(error, TrackerError):
        return error
    return TrackerUnavailableError(f"heartbeats are not taken: {error or 'no answer in time'}\nCheck PLUTO_URL_PY.")


def _validate(client: TrackerClient, url: str, deadline: float) -> None:
    """Has the key validated, in three attempts: the hosted server sometimes rejects a valid key.

    Raises:
        TrackerError: the last rejection, or a response other than the contract's ``"valid": true``.
    """
    for wait in (0.3, 0.6, None):
        try:
            answer = client.validate(deadline=deadline)
        except AuthenticationError:
            if wait is None:
                raise
            client.pause(wait)
        else:
            break
    if not (isinstance(answer, dict) and answer.get("valid") is True):
        raise UnexpectedAnswerError(
            f"{url} answered JSON that is not a tracker's: {str(answer)[:100]}\n"
            "Check that PLUTO_URL_API is the address of a Pluto API."
        )


def api_key(facts: TrackerFacts) -> Finding:
    if facts.bad_settings:
        return problem(facts.bad_settings, "Correct it in the job's environment.")
    if facts.key_source:
        return ok(f"from {facts.key_source}")
    if facts.unused:
        return not_applicable(facts.unused)
    return problem(
        "none: init() would continue offline", "Set PLUTO_API_KEY, or run `pluto login` if keyring is installed."
    )


def reachable(facts: TrackerFacts) -> Finding:
    if facts.unused or not facts.url:
        return not_applicable(facts.unused or "see API key")
    saw = facts.url if facts.peer == facts.url else f"{facts.url} through the proxy {facts.peer}"
    if facts.unreachable:
        return problem(
            f"{saw}: {facts.unreachable}", "Check PLUTO_URL_API, and HTTPS_PROXY and NO_PROXY if there is a proxy."
        )
    return ok(f"{saw} ({', '.join(facts.addresses)})")


def contract(facts: TrackerFacts) -> Finding:
    """TLS, HTTP and the contract: reports redirects, web pages and errors of the server."""
    if not facts.is_answered and facts.failure is None:
        return _skipped(facts)
    if facts.failure is None or isinstance(facts.failure, AuthenticationError):
        return ok("speaks the tracker's contract")
    saw, _, fix = str(facts.failure).partition("\n")
    return problem(saw, _fix_of_tls(saw) or fix or "Check PLUTO_URL_API.")


def _fix_of_tls(saw: str) -> str:
    if "not yet valid" in saw or "has expired" in saw:
        return "Correct this machine's clock, or renew the server's certificate."
    if "CERTIFICATE_VERIFY_FAILED" in saw:
        return "If a private CA signed it: REQUESTS_CA_BUNDLE=/path/to/ca.pem. Otherwise check PLUTO_URL_API."
    if "WRONG_VERSION_NUMBER" in saw or "record layer failure" in saw:
        return "That port serves plain http: write http:// in PLUTO_URL_API, or the port that serves TLS."
    return ""


def key_accepted(facts: TrackerFacts) -> Finding:
    if isinstance(facts.failure, AuthenticationError):
        saw, _, fix = str(facts.failure).partition("\n")
        return problem(saw, fix)
    return ok("accepted") if facts.failure is None and facts.is_answered else _skipped(facts)


def heartbeats(facts: TrackerFacts) -> Finding:
    """Whether the service that takes heartbeats, which may have another address, is where the settings say."""
    if facts.round_trip is None:
        return _skipped(facts)
    if facts.heartbeat_failure is None:
        return ok("taken" if facts.heartbeat_url == facts.url else f"taken by {facts.heartbeat_url}")
    saw, _, fix = str(facts.heartbeat_failure).partition("\n")
    return problem(saw, fix or "Check PLUTO_URL_PY.")


def round_trip(facts: TrackerFacts) -> Finding:
    if facts.round_trip is None:
        return _skipped(facts)
    saw = f"{1000 * facts.round_trip:.0f} ms"
    if facts.round_trip > SLOW_SECONDS:
        return warning(saw, "init() waits for one answer; init(wait=False) does not.")
    return ok(saw)


def clock(facts: TrackerFacts) -> Finding:
    """A wrong clock makes certificates appear expired and the run's timestamps wrong."""
    if facts.skew is None:
        return not_applicable("the tracker's answer has no date") if facts.is_answered else _skipped(facts)
    if abs(facts.skew) <= SKEW_SECONDS:
        return ok("agrees with the tracker's")
    saw = f"{abs(facts.skew):.0f} s {'behind' if facts.skew > 0 else 'ahead of'} the tracker's"
    return warning(saw, "timedatectl set-ntp true")


def _skipped(facts: TrackerFacts) -> Finding:
    if facts.unused:
        return not_applicable(facts.unused)
    return not_applicable(
        "see tracker" if facts.unreachable else "see tracker's answer" if facts.failure else "see API key"
    )


GROUP = CheckGroup(
    probe,
    (
        ("API key", api_key),
        ("tracker", reachable),
        ("tracker's answer", contract),
        ("key accepted", key_accepted),
        ("heartbeats", heartbeats),
        ("round trip", round_trip),
        ("clock", clock),
    ),
)
