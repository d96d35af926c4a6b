"""``pluto-dist sync``: send what an outage kept to the tracker that it was meant for."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from pluto_dist.cli import asking
from pluto_dist.cli.examples import examples
from pluto_dist.client.offline import queue
from pluto_dist.client.offline.entry import Entry
from pluto_dist.client.offline.queue import RunQueue
from pluto_dist.client.offline.sync import Synced
from pluto_dist.client.offline.sync import sync as send
from pluto_dist.client.tracker_client import TrackerClient, user_agent
from pluto_dist.contract.run_requests import CreateRunRequest, UpdateStatusRequest
from pluto_dist.contract.secret import Environ
from pluto_dist.errors import ConfigurationError, readable
from pluto_dist.settings import keychain, settings


@click.command(
    epilog=examples("pluto-dist sync --dry-run", "pluto-dist sync /scratch/spool --to http://127.0.0.1:8420")
)
@click.argument("path", required=False, type=click.Path(file_okay=False, path_type=Path))
@click.option("--to", metavar="URL", help="Send to this tracker, not to the one that was recorded.")
@click.option("--dry-run", is_flag=True, help="Say what would be sent, and ask no tracker.")
@asking.json_option
def sync(*, path: Path | None, to: str | None, dry_run: bool, as_json: bool) -> None:
    """Send what jobs kept while their tracker did not answer.

    PATH is the folder of a spool, or one that was a job's PLUTO_DIR.  [default: what this environment leads to]

    Every run keeps its id, its times and its end. May be interrupted, repeated, and run on several machines at the
    same time. Exits with 1 where something is still kept.
    """
    environ = Environ(os.environ)
    try:
        chosen = settings.load(environ.changed({"PLUTO_URL_API": to}) if to else environ)
    except ConfigurationError as error:
        raise click.ClickException(str(error)) from error
    waiting = _waiting(_spool(path, chosen))
    if dry_run:
        if as_json:
            asking.print_json({"runs": [_waiting_json(spooled) for spooled in waiting]})
        for spooled in () if as_json else waiting:
            click.echo(readable(_described(spooled)))
        return
    with ExitStack() as clients:
        client_of = _Clients(clients, chosen, to, environ)
        counts, runs = {"sent": 0, "kept": 0, "elsewhere": 0}, []
        for done in _with_progress(send(waiting, client_of), len(waiting)):
            counts[done.state] += 1
            runs.append(_to_json(done))
        if as_json:
            asking.print_json({"runs": runs, "counts": counts})
        else:
            click.echo(_summary(counts))
    sys.exit(1 if counts["kept"] else 0)


def _spool(path: Path | None, chosen: settings.Settings) -> Path:
    if path is not None:
        inner = settings.spool_folder({}, path)
        return inner if inner is not None and inner.is_dir() else path
    if chosen.spool is None:
        raise click.ClickException("there is no folder for state: set PLUTO_DIR or HOME, or name the spool's folder")
    return chosen.spool


def _waiting(root: Path) -> list[RunQueue]:
    if not root.exists():
        return []
    try:
        for path in queue.foreign(root):
            _say(f"{path} is no folder of yours, and is left alone")
        return queue.runs(root)
    except OSError as error:
        raise click.ClickException(f"{root} cannot be read: {error.strerror or error}") from error


class _Clients:
    """A client for each origin: the recorded one, unless ``to`` or a variable says that the key is for another."""

    def __init__(self, stack: ExitStack, chosen: settings.Settings, to: str | None, environ: Mapping[str, str]) -> None:
        self._stack, self._to = stack, to
        names = next(variable.names for variable in settings.VARIABLES if variable.setting == "url_api")
        self._set = chosen.url_api if to is None and any(environ.get(name) for name in names) else None
        self._settings = keychain.with_stored_key(chosen)
        self._clients: dict[str, TrackerClient] = {}

    def __call__(self, origin: str) -> TrackerClient:
        if self._set is not None and self._set != origin:
            raise ConfigurationError(
                f"it is for {origin}, and PLUTO_URL_API is {self._set}: no key of one tracker goes to another.\n"
                f"Set PLUTO_URL_API={origin} and its key, or pass --to {self._set}"
            )
        target, key = self._to or origin, self._settings.api_key
        if key is None:
            raise ConfigurationError(f"no API key: set PLUTO_API_KEY to a key of {target}")
        if target not in self._clients:
            client = TrackerClient(target, target, key, user_agent=user_agent("sync"))
            self._stack.callback(client.close)
            self._clients[target] = client
        return self._clients[target]


def _with_progress(results: Iterator[Synced], total: int) -> Iterator[Synced]:
    """``results``, each told in a line; below the lines a bar, where a person looks on."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    bar = Progress(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console, transient=True)
    with bar:
        task = bar.add_task("", total=total)
        for done in results:
            bar.advance(task)
            for line in _lines(done):
                bar.console.print(readable(line), markup=False, highlight=False, soft_wrap=True)
            yield done


def _waiting_json(spooled: RunQueue) -> dict[str, Any]:
    entries, name = [entry for entry, _ in spooled.entries()], spooled.name
    ends = [entry.request.status for entry in entries if isinstance(entry.request, UpdateStatusRequest)]
    run = {"project": name.project, "run": name.reference.value, "tracker": name.origin}
    return {**run, "requests": len(entries), "end": ends[-1] if ends else None}


def _to_json(done: Synced) -> dict[str, Any]:
    answer = done.replayed.answer
    return {
        "project": done.name.project,
        "run": done.name.reference.value,
        "tracker": done.name.origin,
        "state": done.state,
        "why": done.why,
        "display_id": done.replayed.display_id,
        "url": None if answer is None else answer.url,
        "notes": list(done.replayed.notes),
    }


def _lines(done: Synced) -> list[str]:
    answer = done.replayed.answer
    named = f"{done.name.project}/{done.name.reference.value}"
    if done.state == "elsewhere":
        return [f"{named}: sent by another process"]
    if done.state == "kept":
        return [f"{named}: kept: {done.why}", *(f"  {note}" for note in done.replayed.notes)]
    where = f" as {done.replayed.display_id}" if done.replayed.display_id else ""
    where += f", {answer.url}" if answer is not None else ""
    return [f"{named}: sent{where}", *(f"  {note}" for note in done.replayed.notes)]


def _described(spooled: RunQueue) -> str:
    entries = [entry for entry, _ in spooled.entries()]
    name = spooled.name
    ends = [entry.request.status for entry in entries if isinstance(entry.request, UpdateStatusRequest)]
    kinds = f"{len(entries)} request{'s' * (len(entries) != 1)}"
    told = [_named(entries), kinds, ends[-1] if ends else "no end"]
    return f"{name.project}/{name.reference.value} for {name.origin}: " + ", ".join(part for part in told if part)


def _named(entries: Sequence[Entry]) -> str:
    names = [entry.request.run_name for entry in entries if isinstance(entry.request, CreateRunRequest)]
    return repr(names[0]) if names else ""


def _summary(counts: Mapping[str, int]) -> str:
    if not any(counts.values()):
        return "nothing is kept"
    parts = [f"{counts['sent']} sent", f"{counts['kept']} kept"]
    return ", ".join(parts + [f"{counts['elsewhere']} sent by another process"] * bool(counts["elsewhere"]))


def _say(line: str) -> None:
    click.echo(readable(line), err=True)
