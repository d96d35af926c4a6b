"""HTTP client of the tracker: one session, bounded retries, the server's three error shapes as typed errors.

Requests and answers are the records of ``contract.run_requests``. Every call has a deadline on the monotonic clock, and
sleeps only on an event, so that its owner can stop it at once.

Retried until the deadline: no connection, 408, 429 (Retry-After obeyed) and 5xx, with exponential backoff and jitter.
Retried twice: 401, which the hosted server answers now and then to a good key.
Not sent: an id that no run can have, to which the server answers 500. Sent as ``contract.storable`` makes it: the rest.
Never followed: redirects, because a redirected POST arrives as a GET, and GET /api/runs/create answers 200
with a run that does not exist.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import requests
from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError

from pluto_dist.client import responses
from pluto_dist.client.deadline import DeadlineAdapter
from pluto_dist.contract.run_ref import impossible
from pluto_dist.contract.run_requests import (
    AT_LIMIT,
    CreateRunRequest,
    CreateRunResponse,
    ResumeRunRequest,
    RunState,
    StatusEvent,
    SuccessResponse,
    TriggerRequest,
    TriggerResponse,
    UpdateConfigRequest,
    UpdateStatusRequest,
    UpdateTagsRequest,
)
from pluto_dist.contract.secret import Secret
from pluto_dist.contract.storable import body_of, storable_name
from pluto_dist.contract.validation import ContractError, Json, Record
from pluto_dist.errors import (
    AuthenticationError,
    ConfigurationError,
    RequestRefusedError,
    TrackerError,
    TrackerUnavailableError,
    UnexpectedAnswerError,
)
from pluto_dist.log import logger
from pluto_dist.settings.settings import Settings
from pluto_dist.version import __version__

R = TypeVar("R", bound=Record)

REQUEST_SECONDS = 10.0  # one try; the server takes 0.1 s, and 1.6 s for 20 MB of metadata
ANSWER_LIMIT = 8 << 20
_RETRIED = frozenset({408, 429, 500, 502, 503, 504})
_UNAUTHORIZED_TRIES = 3
HEARTBEAT_PATH = "/api/runs/trigger"
TEXT_PATHS = frozenset({"/ingest/metrics", "/ingest/logs", "/ingest/data"})  # which answer in plain text
_LINE_BREAK = "\n"  # an f-string takes no backslash before Python 3.12


@dataclass(frozen=True, slots=True)
class Lines:
    """Newline-delimited JSON for the tracker's ingest service, which answers in plain text."""

    content: bytes
    headers: Mapping[str, str]


class _Session(requests.Session):
    """A session that does not parse the target of a redirect."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002  # requests' signature
        return None


class TrackerClient:
    """One rank's connection to the tracker. Not for use by several threads at a time.

    Args:
        url_api: origin of the API.
        url_py: origin that takes heartbeats.
        api_key: the key.
        user_agent: names this rank in the server's log.

    Raises:
        ConfigurationError: no HTTP header can carry the key.
    """

    def __init__(self, url_api: str, url_py: str, api_key: Secret, *, user_agent: str) -> None:
        if not api_key.is_header_word():
            raise ConfigurationError("the API key must be one word of printable ASCII, as an HTTP header carries it")
        self._url_api, self._url_py, self._key = url_api, url_py, api_key
        self._session = _Session()
        self._adapter = DeadlineAdapter(api_key)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, self._adapter)
        self._session.auth = _as_it_is
        self._session.headers["User-Agent"] = user_agent
        self._stopped = threading.Event()
        self.server_time = 0.0  # the tracker's clock at its last answer, seconds since 1970; 0 before one
        self.clock_offset = 0.0  # seconds by which the tracker's clock was ahead of this host's then

    def create(self, request: CreateRunRequest, *, deadline: float, retry: bool = True) -> CreateRunResponse:
        """Create the run, or attach to the one that has this external id.

        Args:
            request: with an external id, a repetition of it changes nothing, so it may be retried.
            deadline: on the monotonic clock.
            retry: whether to try again at all.

        Raises:
            AuthenticationError, RequestRefusedError, UnexpectedAnswerError, TrackerUnavailableError.
        """
        return self._post("/api/runs/create", request, CreateRunResponse, deadline, retry)

    def resume(self, request: ResumeRunRequest, *, deadline: float, retry: bool = True) -> CreateRunResponse:
        """Attach to a run that exists; RequestRefusedError with status 404 if it does not."""
        for named in (request.display_id, request.run_id, request.external_id):
            _refuse_impossible(named)
        return self._post("/api/runs/resume", request, CreateRunResponse, deadline, retry)

    def details(self, run_id: int, *, deadline: float) -> RunState | None:
        """The run as the tracker has it; ``None`` if it has no such run."""
        try:
            details = self.everything(run_id, deadline=deadline)
        except RequestRefusedError as error:
            if error.status == 404:
                return None
            raise
        try:
            return RunState.from_details(details, run_id)
        except ContractError as error:
            raise UnexpectedAnswerError(f"{self._url_api} answered details of run {run_id} that are {error}") from error

    def find(self, external_id: str, project: str, *, deadline: float) -> RunState | None:
        """The run of ``project`` with this external id, which is left as it is; ``None`` if none is found.

        Only runs are found whose config has the id, as runs of this package have; the hosted tracker indexes configs
        a moment later, and may leave one out.
        """
        query = {"projectName": project, "filter": json.dumps({"config.pluto_dist.run_id": external_id}), "limit": "5"}
        try:
            listed = self._ask("GET", f"{self._url_api}/api/runs/list?{urlencode(query)}", None, deadline)
        except RequestRefusedError as error:
            logger.debug("runs cannot be looked up: %s", error)
            return None
        runs = listed.get("runs") if isinstance(listed, dict) else None
        for number in [run.get("id") for run in (runs if isinstance(runs, list) else ()) if isinstance(run, dict)]:
            state = self.details(number, deadline=deadline) if type(number) is int else None
            if state is not None and state.external_id == external_id:
                return state
        return None

    def status_history(self, run_id: int, *, deadline: float) -> tuple[StatusEvent, ...]:
        """The changes of a run's status in their order; empty if the tracker does not list them."""
        try:
            body = self._ask("GET", f"{self._url_api}/api/runs/status/history?runId={run_id}", None, deadline)
        except RequestRefusedError as error:
            if error.status == 404:
                return ()
            raise
        return StatusEvent.all_of(body)

    def everything(self, run_id: int, *, deadline: float) -> Any:
        """The details of a run as they come; RequestRefusedError with status 404 if there is none."""
        _refuse_impossible(run_id)
        return self._ask("GET", f"{self._url_api}/api/runs/details/{run_id}", None, deadline)

    def get(self, path: str, query: Mapping[str, str] | None = None, *, deadline: float) -> Any:
        """What the API answers to a ``GET`` of ``path``, as it comes."""
        return self._ask("GET", f"{self._url_api}{path}" + (f"?{urlencode(query)}" if query else ""), None, deadline)

    def delete_run(self, run_id: int, *, deadline: float) -> None:
        """Delete a run for good; RequestRefusedError with status 404 if the tracker cannot, or has no such run."""
        self._ask("DELETE", f"{self._url_api}/api/runs/{run_id}", None, deadline)

    def post(self, path: str, request: Record, *, deadline: float) -> None:
        """Post a change that needs no method of its own here."""
        self._change(path, request, deadline)

    def ingest(self, url: str, lines: Lines, *, deadline: float) -> None:
        """Send logged values to ``url``; lines that are sent again after an error may be stored twice."""
        self._ask("POST", url, lines, deadline)

    def upload_url(self, url: str, file: Json, headers: Mapping[str, str], *, deadline: float) -> str:
        """Register a file with the ingest service at ``url``; the address that takes its bytes."""
        body = Lines(json.dumps({"files": [file]}).encode(), {**headers, "Content-Type": "application/json"})
        answer = self._ask("POST", url, body, deadline)
        found = answer.get(file["logName"]) if isinstance(answer, dict) else None
        if not (isinstance(found, list) and found and isinstance(found[0], dict) and found[0]):
            raise UnexpectedAnswerError(f"{responses.origin(url)} answered no address to upload a file to")
        return str(next(iter(found[0].values())))

    def number_of(self, display_id: str, project: str, *, deadline: float) -> int:
        """The tracker's number of the run of ``project`` that people call ``display_id``; the run is left as it is.

        Raises:
            RequestRefusedError: with status 404 if there is none, 409 if there are several.
        """
        _refuse_impossible(display_id)
        query = urlencode({"projectName": storable_name(project)})
        path = f"/api/runs/details/by-display-id/{quote(display_id)}?{query}"
        try:
            details = self._ask("GET", self._url_api + path, None, deadline)
        except RequestRefusedError as error:
            told = {404: "names no run", 409: "names several runs"}.get(error.status or 0, "cannot be looked up")
            raise RequestRefusedError(f"{display_id!r} {told} of project {project!r}: {error}", error.status) from error
        number = details.get("id") if isinstance(details, dict) else None
        if type(number) is not int:
            raise UnexpectedAnswerError(f"{self._url_api} answered details of {display_id} without its number")
        if details.get("projectName") not in (None, project):  # another project's run of the same prefix and number
            raise RequestRefusedError(f"{display_id!r} names no run of project {project!r}", 404)
        return number

    def update_status(self, request: UpdateStatusRequest, *, deadline: float) -> None:
        """Post a status; the server ignores one of lower precedence than the run's."""
        self._change("/api/runs/status/update", request, deadline)

    def update_config(self, request: UpdateConfigRequest, *, deadline: float) -> None:
        """Merge into the run's config."""
        self._change("/api/runs/config/update", request, deadline)

    def update_tags(self, request: UpdateTagsRequest, *, deadline: float) -> None:
        """Replace the run's tags."""
        self._change("/api/runs/tags/update", request, deadline)

    def heartbeat(self, run_id: int, *, deadline: float) -> TriggerResponse:
        """Send a heartbeat of the run; the answer has its status.

        Raises:
            RequestRefusedError: with status 404, the tracker has no such run.
            UnexpectedAnswerError: the address does not take heartbeats, whatever else it is.
            TrackerUnavailableError: no answer.
        """
        try:
            answer = self._ask("POST", self._url_py + HEARTBEAT_PATH, TriggerRequest(run_id), deadline)
            return self._record(TriggerResponse, answer, self._url_py)
        except TrackerUnavailableError:
            raise
        except TrackerError as error:
            if isinstance(error, RequestRefusedError) and "Run not found" in str(error):
                raise
            raise UnexpectedAnswerError(
                f"heartbeats are not taken: {str(error).partition(_LINE_BREAK)[0]}\n"
                "Set PLUTO_URL_PY to the address of the tracker's py service; its web service takes none."
            ) from error

    def validate(self, *, deadline: float) -> Any:
        """The server's answer about the key, at the first try."""
        return self._ask("GET", f"{self._url_api}/api/runs/auth/validate", None, deadline, retry=False)

    def pause(self, seconds: float) -> None:
        """Wait, unless :meth:`stop` ends it."""
        self._stopped.wait(seconds)

    @property
    def is_stopped(self) -> bool:
        return self._stopped.is_set()

    def stop(self) -> None:
        """End whatever wait a call is in; later calls make one try each."""
        self._stopped.set()

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _change(self, path: str, request: Record, deadline: float) -> None:
        """Post a change; an answer without success is an error, or a proxy's page could swallow the run's end."""
        if not self._post(path, request, SuccessResponse, deadline, True).success:
            raise UnexpectedAnswerError(f"{self._url_api} answered that {path} had no success")

    def _post(self, path: str, request: Record, answer: type[R], deadline: float, retry: bool) -> R:
        told = self._ask("POST", self._url_api + path, request, deadline, retry)
        return self._record(answer, told, self._url_api)

    def _record(self, record: type[R], answer: Any, url: str) -> R:
        try:
            return record.from_json(answer)
        except ContractError as error:
            raise UnexpectedAnswerError(
                f"{responses.origin(url)} answered something that is {error}.\n"
                "Check that PLUTO_URL_API is the address of a Pluto API, not of its web page."
            ) from error

    def _ask(self, method: str, url: str, request: Record | Lines | None, deadline: float, retry: bool = True) -> Any:
        tries, unauthorized, body = 0, 0, body_of(request) if isinstance(request, Record) else request
        while True:
            try:
                return self._try(method, url, body, deadline)
            except AuthenticationError:
                unauthorized += 1
                if unauthorized == _UNAUTHORIZED_TRIES or self._stopped.is_set() or not retry:
                    raise
                wait = 0.3 * unauthorized
            except _TryAgainError as failure:
                wait = max(failure.retry_after, _backoff(tries))
                tries += 1
                if self._stopped.is_set() or not retry or time.monotonic() + wait >= deadline:
                    raise failure.final from None
            self._stopped.wait(min(wait, max(0.0, deadline - time.monotonic())))

    def _try(self, method: str, url: str, body: Json, deadline: float) -> Any:
        sent = {"data": body.content, "headers": body.headers} if isinstance(body, Lines) else {"json": body}
        seconds = max(0.1, min(REQUEST_SECONDS, deadline - time.monotonic()))
        try:
            with (
                self._adapter.within(seconds),
                self._session.request(
                    method, url, **sent, timeout=seconds, allow_redirects=False, stream=True
                ) as response,
            ):
                answer = responses.Answer.read(response, ANSWER_LIMIT + 1, self._key)
        except (requests.RequestException, HTTPError, OSError) as error:
            # requests translates urllib3's errors only until the body is read.
            failure = self._unreachable(url, error)
        else:
            return self._read(url, answer)
        raise _TryAgainError(failure)  # without the cause, which may show what the server echoed

    def _read(self, url: str, answer: responses.Answer) -> Any:
        """What ``answer`` says; an error if it is one."""
        self.server_time = answer.date()
        self.clock_offset = self.server_time - time.time()
        status, text = answer.status, responses.error_text(answer.content)
        if 300 <= status < 400:
            raise UnexpectedAnswerError(responses.redirected(url, answer.location))
        if status == 401:
            raise AuthenticationError(
                f"{responses.origin(url)} refused the API key (HTTP 401: {text}).\n"
                "Set PLUTO_API_KEY to a key of that server; PLUTO_URL_API says which server is asked."
            )
        if status in _RETRIED:
            after = answer.retry_after()
            told = f"{responses.origin(url)} answered HTTP {status}: {text}\nIf it goes on, ask who runs that server."
            raise _TryAgainError(TrackerUnavailableError(told, after), after)
        if status == 400 and text.startswith(AT_LIMIT):
            raise TrackerUnavailableError(
                f"{responses.origin(url)} takes no new run (HTTP 400: {text}).\n"
                "Delete data of the organization in the tracker, or have its limit raised."
            )
        if status != 200:
            path = urlsplit(url).path
            of_init = path == "/api/runs/create"
            advice = "\nCorrect what it names; what init() was given is sent as it is." if of_init else ""
            raise RequestRefusedError(f"{responses.origin(url)} refused {path} (HTTP {status}): {text}{advice}", status)
        if len(answer.content) > ANSWER_LIMIT:
            raise UnexpectedAnswerError(f"{responses.origin(url)} answered more than {ANSWER_LIMIT} bytes")
        if answer.media_type == "text/plain" and urlsplit(url).path in TEXT_PATHS:
            return answer.content.decode(errors="replace")
        try:
            return json.loads(answer.content)
        except (ValueError, RecursionError) as error:
            raise UnexpectedAnswerError(
                f"{responses.origin(url)} answered HTTP 200 with something that is not JSON: {text}\n"
                "Check that PLUTO_URL_API is the address of a Pluto API, not of its web page or of a proxy."
            ) from error

    def _unreachable(self, url: str, error: Exception) -> TrackerUnavailableError:
        reason = self._key.masked(_words(error)) or type(error).__name__
        variable = "PLUTO_URL_PY" if url == self._url_py + HEARTBEAT_PATH else "PLUTO_URL_API"
        return TrackerUnavailableError(
            f"{responses.origin(url)} cannot be reached ({reason[:300]}).\n"
            f"Check {variable}, and HTTPS_PROXY and NO_PROXY if there is a proxy."
        )


def _words(error: Exception) -> str:
    """What went wrong, without the connections and pools that requests and urllib3 name in it.

    >>> from urllib3.exceptions import ProtocolError
    >>> _words(requests.ConnectionError(ProtocolError("Connection aborted.", ConnectionResetError(104, "by peer"))))
    'Connection aborted: [Errno 104] by peer'
    """
    cause = error.args[0] if error.args else error
    cause = getattr(cause, "reason", cause)
    parts = cause.args if isinstance(cause, HTTPError) else (cause,)
    words = [str(part).rpartition("): ")[2].rstrip(".") for part in parts if not isinstance(part, HTTPConnection)]
    return ": ".join(words)


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """The session's auth, so that it takes none from a ``~/.netrc``: the connection adds the key."""
    return request


_chance = random.SystemRandom()  # the generator of the module `random` is the script's, which may have seeded it


def _backoff(tries: int) -> float:
    """Seconds to wait after so many earlier tries: none at first, then doubled up to 8 s, with jitter."""
    return min(8.0, 0.2 * 2.0 ** min(tries, 8) + 0.5 * _chance.random()) if tries else 0.0


class _TryAgainError(Exception):
    """A try that may be repeated; ``final`` is what to raise when no time is left."""

    def __init__(self, final: TrackerError, retry_after: float = 0.0) -> None:
        super().__init__(str(final))
        self.final, self.retry_after = final, retry_after


def from_settings(settings: Settings, who: str) -> TrackerClient | None:
    """A client of the tracker in ``settings``; ``None`` if there is no key, or none is to be asked.

    Args:
        settings: of the user.
        who: this process, for the server's log.
    """
    if settings.mode != "online" or settings.api_key is None:
        return None
    return TrackerClient(settings.url_api, settings.url_py, settings.api_key, user_agent=user_agent(who))


def user_agent(who: str) -> str:
    """The User-Agent of this package: its version, and which process sends; a host's name may be any bytes.

    >>> user_agent("rank 0 of 1; n\\xf6de\\n").partition(" ")[2]
    '(rank 0 of 1; n?de?)'
    """
    shown = "".join(character if character.isascii() and character.isprintable() else "?" for character in who)
    return f"pluto-dist/{__version__} ({shown})"


def _refuse_impossible(named: str | int | None) -> None:
    """RequestRefusedError, as the tracker should answer, if no run can have this id."""
    if named is not None and (why := impossible(str(named))):
        raise RequestRefusedError(f"{str(named)[:100]!r} {why}", 400)
