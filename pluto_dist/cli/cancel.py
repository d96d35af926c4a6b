"""``pluto-dist cancel``: stops a job by its run."""

from __future__ import annotations

import click

from pluto_dist.cli import asking
from pluto_dist.cli.examples import examples


@click.command(epilog=examples("pluto-dist cancel DIG-7", "pluto-dist cancel 42 --yes"))
@asking.run_argument
@asking.project_option
@asking.yes_option
@asking.json_option
def cancel(*, run: str, project: str | None, yes: bool, as_json: bool) -> None:
    """Cancel a run: its job stops on all nodes at its next heartbeat.

    RUN is the tracker's number of a run, its display id (DIG-7), its external id, or the address of its page. A run
    that has ended stays as it ended, with exit code 1.
    """
    with asking.tracker("cancel") as tracker:
        found = asking.find(tracker, run, project)
        name = found.display_id or str(found.id)
        if found.status != "RUNNING":
            raise click.ClickException(f"{name} is not running: it is {found.status}")
        asking.confirm(f"Cancel {name} {found.name!r}?", yes)
        tracker.cancel(found)
        status = tracker.details(found.id).status
    if as_json:
        asking.print_json({"id": found.id, "display_id": found.display_id, "status": status})
    else:
        click.echo(f"{name} is {status}; its job stops at its next heartbeat")
