"""How is the tracker asked? Name, connection, then one authenticated request, each with its share of the time."""

from __future__ import annotations

import socket
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pluto_dist.contract.secret import Secret
from pluto_dist.doctor.asking import Asked
from pluto_dist.doctor.family import Family, Machine
from pluto_dist.doctor.tracker import TrackerSeen, answer, api_key, clock, key_accepted, reachable, round_trip
from pluto_dist.errors import AuthenticationError, ConfigurationError, TrackerError, UnexpectedAnswerError
from pluto_dist.inventory.safe_read import attempt
from pluto_dist.settings import keychain, settings
from pluto_dist.settings.settings import Settings
from pluto_dist.version import __version__

if TYPE_CHECKING:
    from pluto_dist.client.tracker_client import TrackerClient

KEYCHAIN_SHARE, NAME_SHARE, CONNECT_SHARE, ANSWER_SHARE = 0.15, 0.2, 0.2, 0.35
"""Of the timeout; the rest is for importing and for starting threads."""


def look(machine: Machine) -> TrackerSeen:
    try:
        chosen = settings.load(machine.environ)
        key, source = _key(machine, chosen)
    except ConfigurationError as error:
        return TrackerSeen(bad_settings=str(error).replace("\n", " "))
    unused = "--offline was given" if machine.offline else ""
    if chosen.mode != "online":
        unused = f"PLUTO_DIST_MODE is {chosen.mode}"
    seen = TrackerSeen(unused, key_source=source, url=chosen.url_api)
    if unused:
        return seen
    seen = _connected(seen, machine.timeout)
    return seen if seen.unreachable or key is None else _answered(seen, chosen, key, machine.timeout)


def _key(machine: Machine, chosen: Settings) -> tuple[Secret | None, str]:
    if chosen.api_key is not None:
        names = next(variable.names for variable in settings.VARIABLES if variable.setting == "api_key")
        return chosen.api_key, next(name for name in names if machine.environ.get(name))
    stored = keychain.stored_key(min(keychain.SECONDS, machine.timeout * KEYCHAIN_SHARE))
    if stored is None:
        return None, ""
    return settings.load({}, api_key=stored).api_key, "the keychain (pluto login)"


def _connected(seen: TrackerSeen, timeout: float) -> TrackerSeen:
    """Whether the tracker, or the proxy that requests would use, can be connected to."""
    proxy = _proxy(seen.url)
    parts = urlsplit(proxy or seen.url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    seen = replace(seen, peer=f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}")
    named = Asked(partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM))
    found, error = attempt(partial(named.answer, timeout * NAME_SHARE))
    if error is not None:
        why = f"no name server answers within {timeout * NAME_SHARE:g} s" if isinstance(error, TimeoutError) else error
        return replace(seen, unreachable=f"{host} does not resolve ({getattr(why, 'strerror', None) or why})")
    seen = replace(seen, addresses=tuple(dict.fromkeys(str(entry[4][0]) for entry in found or ())))
    connecting = Asked(partial(socket.create_connection, (host, port), timeout * CONNECT_SHARE))
    # Of several addresses each may take that long; they are not waited for.
    connection, error = attempt(partial(connecting.answer, timeout * CONNECT_SHARE + 0.1))
    if connection is not None:
        connection.close()
        return seen
    late = isinstance(error, TimeoutError) and not getattr(error, "errno", None)
    why = f"no answer within {timeout * CONNECT_SHARE:g} s" if late else getattr(error, "strerror", None) or str(error)
    return replace(seen, unreachable=f"no connection to port {port} ({why})")


def _proxy(url: str) -> str | None:
    """The proxy that requests takes from this process's environment, as the client's session does."""
    from requests.utils import get_environ_proxies, select_proxy

    found: str | None = select_proxy(url, get_environ_proxies(url, no_proxy=None))
    return found if found is None or "://" in found else f"http://{found}"


def _answered(seen: TrackerSeen, chosen: Settings, key: Secret, timeout: float) -> TrackerSeen:
    """Asks twice, for the first answer pays for the connection."""
    from pluto_dist.client.tracker_client import TrackerClient

    client = TrackerClient(chosen.url_api, chosen.url_py, key, user_agent=f"pluto-dist/{__version__} (doctor)")
    deadline = time.monotonic() + timeout * ANSWER_SHARE
    try:
        _validate(client, chosen.url_api, deadline)
        began = time.monotonic()
        client.validate(deadline=deadline)
        seen = replace(seen, round_trip=time.monotonic() - began)
    except TrackerError as error:
        seen = replace(seen, failure=error)
    finally:
        client.close()
    told = client.server_time
    # An HTTP date has whole seconds; where the answer had none, the client has this machine's own time.
    skew = told + 0.5 - time.time() if told and told == int(told) else None
    return replace(seen, is_answered=told > 0, skew=skew)


def _validate(client: TrackerClient, url: str, deadline: float) -> None:
    """Has the key validated, in three tries: the hosted server refuses a good key now and then.

    Raises:
        TrackerError: the last refusal, or anything but the contract's ``"valid": true``.
    """
    for wait in (0.3, 0.6, None):
        try:
            told = client.validate(deadline=deadline)
        except AuthenticationError:
            if wait is None:
                raise
            client.pause(wait)
        else:
            break
    if not (isinstance(told, dict) and told.get("valid") is True):
        raise UnexpectedAnswerError(
            f"{url} answered JSON that is not a tracker's: {str(told)[:100]}\n"
            "Check that PLUTO_URL_API is the address of a Pluto API."
        )


FAMILY = Family(
    look,
    (
        ("API key", api_key),
        ("tracker", reachable),
        ("tracker's answer", answer),
        ("key accepted", key_accepted),
        ("round trip", round_trip),
        ("clock", clock),
    ),
)
