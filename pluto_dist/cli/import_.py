"""``pluto-dist import``: sends the runs of an export to a tracker."""

from __future__ import annotations

from pathlib import Path

import click

from pluto_dist.cli import asking
from pluto_dist.cli.examples import examples
from pluto_dist.transfer.archive import Archive
from pluto_dist.transfer.importing import import_runs, outcomes


@click.command(
    name="import",
    epilog=examples("pluto-dist import digits-export", "pluto-dist import digits-export --project from-laptop"),
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--project", metavar="NAME", help="Put all runs into this project.  [default: their own]")
@asking.json_option
def import_(*, folder: Path, project: str | None, as_json: bool) -> None:
    """Read runs that `pluto-dist export` wrote into the tracker.

    The tracker is the one that PLUTO_URL_API names, hosted or embedded. May be interrupted and repeated: a run that
    has arrived is not sent again. Exits with 1 if another run of the tracker has the external id of one.
    """
    with asking.tracker("import") as tracker:
        done = []
        runs = import_runs(tracker, folder, project)
        for each in asking.with_progress(runs, len(list(Archive(folder).runs()))):
            done.append(each)
            if as_json:
                continue
            named = f"{each.run.project}/{each.run.display_id or each.run.id}"
            told = {
                "sent": f"sent as {each.display_id}, {each.url}",
                "already there": f"already there as {each.display_id}",
                "taken": f"not sent: {each.display_id} has its external id {each.run.external_id!r} and is another run",
            }
            click.echo(f"{named}: {told[each.outcome]}")
    counts = outcomes(done)
    if as_json:
        asking.print_json({"runs": [each.to_json() for each in done], "counts": counts})
    else:
        click.echo(", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count) or "no runs there")
    raise SystemExit(1 if counts["taken"] else 0)
