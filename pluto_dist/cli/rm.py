"""``pluto-dist rm``: deletes a run."""

from __future__ import annotations

import click

from pluto_dist.cli import asking
from pluto_dist.cli.examples import examples
from pluto_dist.errors import RequestRefusedError


@click.command(epilog=examples("pluto-dist rm DIG-7", "pluto-dist rm 42 --yes"))
@asking.run_argument
@asking.project_option
@asking.yes_option
@asking.json_option
def rm(*, run: str, project: str | None, yes: bool, as_json: bool) -> None:
    """Delete a run and all that it logged, for good.

    RUN is the tracker's number of a run, its display id (DIG-7), its external id, or the address of its page. Asks
    first. A run that is running must be cancelled before. The hosted tracker deletes runs on its pages only.
    """
    with asking.tracker("rm") as tracker:
        found = asking.find(tracker, run, project)
        name = found.display_id or str(found.id)
        if found.status == "RUNNING":
            raise click.ClickException(f"{name} is running: pluto-dist cancel {found.id}")
        asking.confirm(f"Delete {name} {found.name!r} of project {found.project!r}, with all that it logged?", yes)
        try:
            tracker.delete(found)
        except RequestRefusedError as error:
            if error.status != 404:
                raise
            raise click.ClickException(
                f"{tracker.settings.url_api} deletes no run by its API; delete it on its page: {tracker.page(found)}"
            ) from error
    if as_json:
        asking.print_json({"id": found.id, "display_id": found.display_id, "deleted": True})
    else:
        click.echo(f"{name} is deleted")
