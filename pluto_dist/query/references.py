"""Finds a run by what a person calls it: number, display id, external id, or the address of its page.

No run is changed by being looked up, but see ``client.lookup`` about external ids. A display id without a project is
looked for in all projects; it may name a run in more than one, as projects may share a prefix.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from urllib.parse import quote, unquote, urlsplit

from pluto_dist.client.lookup import look_up
from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract.run_ref import Reference, RunName, impossible, reference
from pluto_dist.errors import ConfigurationError, RequestRefusedError
from pluto_dist.query.records import Project, RunDetails
from pluto_dist.settings.settings import Settings

_NOT_FOUND, _SEVERAL = 404, 409


class Asked(Protocol):
    """The part of ``Tracker`` that a look-up needs."""

    @property
    def settings(self) -> Settings: ...
    @property
    def client(self) -> TrackerClient: ...
    @property
    def deadline(self) -> float: ...
    def details(self, run: int) -> RunDetails: ...
    def projects(self) -> Sequence[Project]: ...


def find_all(tracker: Asked, text: str, project: str | None) -> tuple[RunDetails, ...]:
    """Every run that ``text`` may name: one, or one of each of several projects.

    Raises:
        ConfigurationError: the address is of another tracker.
        RequestRefusedError: with status 404 if there is none.
    """
    if text.startswith(("http://", "https://")):
        return (tracker.details(_of_page(tracker, text)),)
    if why := impossible(text):
        raise RequestRefusedError(f"{text[:100]!r} {why}", _NOT_FOUND)
    named = reference(text)
    if named.kind == "number":
        return (_by_number(tracker, named),)
    find = _by_display_id if named.kind == "display id" else _by_external_id
    found = find(tracker, named.value, project)
    if not found:
        where = f"project {project!r}" if project else "any project"
        is_needed = project is None and named.kind == "external id"
        raise RequestRefusedError(
            f"{text[:100]!r} names no run of {where} of {tracker.settings.url_api}.\n"
            "A run is named by number, display id (DIG-7), external id or the address of its page; "
            "`pluto-dist runs` lists them."
            + "\nAn external id of a run that pluto-dist did not record is found with its project only."
            * is_needed,
            _NOT_FOUND,
        )
    return found


def _by_number(tracker: Asked, named: Reference) -> RunDetails:
    try:
        return tracker.details(named.number)
    except RequestRefusedError as error:
        if error.status != _NOT_FOUND:
            raise
        raise RequestRefusedError(
            f"{tracker.settings.url_api} has no run with the number {named.value}", 404
        ) from error


def _of_page(tracker: Asked, address: str) -> int:
    """The number of the run whose page has this address.

    Raises:
        ConfigurationError: it is no such address, or another tracker's.
    """
    parts = urlsplit(address)
    origin, own = f"{parts.scheme}://{parts.netloc}", {tracker.settings.url_api, tracker.settings.url_app}
    if origin not in own:
        raise ConfigurationError(
            f"{address[:200]} is a page of another tracker; PLUTO_URL_API is {tracker.settings.url_api}"
        )
    words = parts.path.strip("/").split("/")
    if len(words) != 5 or (words[0], words[2]) != ("o", "projects"):
        raise ConfigurationError(f"{address[:200]} is not the address of a run's page")
    body = tracker.client.get(f"/api/runs/{quote(unquote(words[4]), safe='')}", deadline=tracker.deadline)
    number = body.get("runId") if isinstance(body, dict) else None
    if type(number) is not int:
        raise RequestRefusedError(f"{address[:200]} is the page of no run", _NOT_FOUND)
    return number


def _by_display_id(tracker: Asked, text: str, project: str | None) -> tuple[RunDetails, ...]:
    path = f"/api/runs/details/by-display-id/{quote(text)}"
    projects: list[str | None] = [project]
    found: list[int] = []
    while projects:
        chosen = projects.pop(0)
        try:
            body = tracker.client.get(path, {"projectName": chosen} if chosen else None, deadline=tracker.deadline)
        except RequestRefusedError as error:
            if error.status == 409 and chosen is None:  # several: one request for each project
                projects = [each.name for each in tracker.projects()]
                continue
            if error.status != _NOT_FOUND:
                raise
            continue
        is_of_project = chosen is None or body.get("projectName") in (None, chosen)
        if is_of_project and type(body.get("id")) is int:
            found.append(body["id"])
    return tuple(tracker.details(number) for number in dict.fromkeys(found))


def _by_external_id(tracker: Asked, text: str, project: str | None) -> tuple[RunDetails, ...]:
    """With a project, by the tracker's own index; without one, by the id in the configs of all projects."""
    if project is not None:
        name = RunName(tracker.settings.url_api, project, Reference("external id", text))
        state = look_up(tracker.client, name, deadline=tracker.deadline)
        return () if state is None else (tracker.details(state.run_id),)
    states = (tracker.client.find(text, each.name, deadline=tracker.deadline) for each in tracker.projects())
    return tuple(tracker.details(state.run_id) for state in states if state is not None)
