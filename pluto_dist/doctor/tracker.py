"""Does the tracker take what a job here would send it? Pure: ``reaching`` is who asks it.

A check that has nothing to judge because an earlier one failed says so, and is no second problem.
"""

from __future__ import annotations

from dataclasses import dataclass

from pluto_dist.doctor.finding import Finding, not_applicable, ok, problem, warning
from pluto_dist.errors import AuthenticationError, PlutoDistError

SLOW_SECONDS = 1.0
SKEW_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class TrackerSeen:
    """What asking gave, as far as it went.

    Attributes:
        unused: why no tracker is asked: "--offline was given", ...; empty where one is.
        bad_settings: what cannot be used of them.
        key_source: where the key comes from.
        url: the tracker's origin.
        peer: whom this machine connects to: the tracker, or a proxy.
        addresses: of ``peer``.
        unreachable: why there is no connection to it.
        failure: what its answer lacked.
        is_answered: it answered, in whatever way.
        round_trip: seconds.
        skew: seconds that its clock is ahead of ours; ``None`` where it does not tell its time.
    """

    unused: str = ""
    bad_settings: str = ""
    key_source: str = ""
    url: str = ""
    peer: str = ""
    addresses: tuple[str, ...] = ()
    unreachable: str = ""
    failure: PlutoDistError | None = None
    is_answered: bool = False
    round_trip: float | None = None
    skew: float | None = None


def api_key(seen: TrackerSeen) -> Finding:
    if seen.bad_settings:
        return problem(seen.bad_settings, "Correct it in the job's environment.")
    if seen.key_source:
        return ok(f"from {seen.key_source}")
    if seen.unused:
        return not_applicable(seen.unused)
    return problem(
        "none: init() would go on offline", "Set PLUTO_API_KEY, or `pluto login` where keyring is installed."
    )


def reachable(seen: TrackerSeen) -> Finding:
    if seen.unused or not seen.url:
        return not_applicable(seen.unused or "see API key")
    saw = seen.url if seen.peer == seen.url else f"{seen.url} through the proxy {seen.peer}"
    if seen.unreachable:
        return problem(
            f"{saw}: {seen.unreachable}", "Check PLUTO_URL_API, and HTTPS_PROXY and NO_PROXY if there is a proxy."
        )
    return ok(f"{saw} ({', '.join(seen.addresses)})")


def answer(seen: TrackerSeen) -> Finding:
    """TLS, HTTP and the contract: redirects, web pages and errors of the server come out here."""
    if not seen.is_answered and seen.failure is None:
        return _not_asked(seen)
    if seen.failure is None or isinstance(seen.failure, AuthenticationError):
        return ok("speaks the tracker's contract")
    saw, _, fix = str(seen.failure).partition("\n")
    return problem(saw, _fix_of_tls(saw) or fix or "Check PLUTO_URL_API.")


def _fix_of_tls(saw: str) -> str:
    if "not yet valid" in saw or "has expired" in saw:
        return "Correct this machine's clock, or renew the server's certificate."
    if "CERTIFICATE_VERIFY_FAILED" in saw:
        return "If a CA of your own signed it: REQUESTS_CA_BUNDLE=/path/to/ca.pem. Else check PLUTO_URL_API."
    if "WRONG_VERSION_NUMBER" in saw or "record layer failure" in saw:
        return "That port speaks plain http: write http:// in PLUTO_URL_API, or the port that speaks TLS."
    return ""


def key_accepted(seen: TrackerSeen) -> Finding:
    if isinstance(seen.failure, AuthenticationError):
        saw, _, fix = str(seen.failure).partition("\n")
        return problem(saw, fix)
    return ok("accepted") if seen.failure is None and seen.is_answered else _not_asked(seen)


def round_trip(seen: TrackerSeen) -> Finding:
    if seen.round_trip is None:
        return _not_asked(seen)
    saw = f"{1000 * seen.round_trip:.0f} ms"
    if seen.round_trip > SLOW_SECONDS:
        return warning(saw, "init() waits for one answer; init(wait=False) does not.")
    return ok(saw)


def clock(seen: TrackerSeen) -> Finding:
    """A clock that is far off makes every certificate look expired, and puts the run's times into another day."""
    if seen.skew is None:
        return not_applicable("the tracker did not tell its time") if seen.is_answered else _not_asked(seen)
    if abs(seen.skew) <= SKEW_SECONDS:
        return ok("agrees with the tracker's")
    saw = f"{abs(seen.skew):.0f} s {'behind' if seen.skew > 0 else 'ahead of'} the tracker's"
    return warning(saw, "timedatectl set-ntp true")


def _not_asked(seen: TrackerSeen) -> Finding:
    if seen.unused:
        return not_applicable(seen.unused)
    return not_applicable(
        "see tracker" if seen.unreachable else "see tracker's answer" if seen.failure else "see API key"
    )
