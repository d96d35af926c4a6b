"""``pluto-dist runs``: lists runs, newest first."""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import click

from pluto_dist.cli import asking, did_you_mean
from pluto_dist.cli.examples import examples
from pluto_dist.contract.run_requests import STATUSES
from pluto_dist.query import RunSummary, Tracker
from pluto_dist.settings import settings

WATCH_SECONDS = 2.0
PROJECTS = 20  # of which runs are listed if none is named


@click.command(
    epilog=examples(
        "pluto-dist runs digits --status FAILED --limit 5", "pluto-dist runs --json | jq '.runs[].display_id'"
    )
)
@click.argument("project", required=False)
@click.option(
    "-s", "--status", "status", multiple=True, type=click.Choice(STATUSES, case_sensitive=False),
    help="Only runs with this status. Repeatable.",
)  # fmt: skip
@click.option("-t", "--tag", "tags", multiple=True, metavar="TAG", help="Only runs with this tag. Repeatable: any.")
@click.option("--search", default="", metavar="TEXT", help="Only runs with this in their name.")
@click.option(
    "--sort",
    default="-createdAt",
    metavar="FIELD",
    help="createdAt, updatedAt, name, status, config.KEY.value or summary_metrics.NAME; - before it: descending.  "
    "[default: -createdAt]",
)
@click.option("-n", "--limit", default=20, show_default=True, type=click.IntRange(min=1), help="The most runs to list.")
@click.option("--watch", is_flag=True, help=f"List again every {WATCH_SECONDS:g} s, until ctrl-C.")
@asking.json_option
def runs(*, project: str | None, watch: bool, as_json: bool, **options: Any) -> None:
    """List runs, the newest first.

    PROJECT is the name of a project.  [default: PLUTO_PROJECT, else the 20 projects that changed last]
    """
    with asking.tracker("runs") as tracker:
        chosen = project or settings.from_environment(os.environ, "project")
        try:
            while True:
                found = list(_found(tracker, chosen, **options))
                if watch and sys.stdout.isatty():
                    click.clear()
                if not found:
                    click.echo(_nothing(tracker, chosen), err=True)
                _print(found, as_json)
                if not watch:
                    return
                if not (as_json or sys.stdout.isatty()):
                    click.echo()  # between two lists
                time.sleep(WATCH_SECONDS)
        except KeyboardInterrupt:
            if not watch:
                raise


def _found(tracker: Tracker, project: str | None, *, sort: str, limit: int, **filters: Any) -> Iterator[RunSummary]:
    names = [project] if project else [each.name for each in tracker.projects()[:PROJECTS]]
    listed = [list(tracker.runs(name, sort=sort, limit=limit, **filters)) for name in names]
    if len(listed) > 1 and sort == "-createdAt":
        listed = [sorted(itertools.chain(*listed), key=lambda run: str(run.created_at), reverse=True)]
    yield from itertools.islice(itertools.chain(*listed), limit)


def _nothing(tracker: Tracker, project: str | None) -> str:
    """Why no run is listed."""
    names = [each.name for each in tracker.projects()]
    if project is None or project in names:
        return f"no such runs in {'any project' if project is None else f'project {project!r}'}"
    return asking.one_line(f"no project {project!r} in {tracker.settings.url_api}.{did_you_mean(project, names)}")


def _print(found: list[RunSummary], as_json: bool) -> None:
    if as_json:
        asking.print_json({"runs": [each.to_json() for each in found]})
        return
    rows = [
        (each.display_id or each.id, each.status, asking.ago(each.created_at), each.project, each.name,
         ", ".join(each.tags))
        for each in found
    ]  # fmt: skip
    head = ("run", "status", "created", "project", "name", "tags")
    lines = asking.table(head, rows, limit=asking.width(), cut=4)
    for line, each in zip(lines, (None, *found), strict=False):
        click.echo(line if each is None else line.replace(each.status, asking.status(each.status), 1))
