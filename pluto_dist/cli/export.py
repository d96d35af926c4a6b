"""``pluto-dist export``: writes runs into a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from pluto_dist.cli import asking, did_you_mean
from pluto_dist.cli.examples import examples
from pluto_dist.contract.run_ref import reference
from pluto_dist.errors import RequestRefusedError
from pluto_dist.query import RunSummary, Tracker
from pluto_dist.transfer.export import export as export_runs


@click.command(
    epilog=examples("pluto-dist export digits --to digits-export", "pluto-dist export DIG-7 --to one --json")
)
@click.argument("names", metavar="RUN|PROJECT", nargs=-1, required=True)
@click.option(
    "--to", "folder", metavar="DIR", default="pluto-export", show_default=True, type=click.Path(path_type=Path),
    help="Folder; made if it does not exist.",
)  # fmt: skip
@click.option("--project", metavar="NAME", help="The project of a RUN.  [default: any]")
@asking.json_option
def export(*, names: tuple[str, ...], folder: Path, project: str | None, as_json: bool) -> None:
    """Write runs with their metrics, console lines and files into a folder.

    RUN|PROJECT is a run (number, display id, address of its page, external id), or a project with all its runs.

    The folder has JSON lines, which `pluto-dist import` reads, and CSV tables: runs.csv, and metrics.csv of each run.
    Repeated, the command adds what is new. Exits with 1 if a file could not be had.
    """
    with asking.tracker("export") as tracker:
        runs = _runs(tracker, names, project)
        done = []
        try:
            for each in asking.with_progress(export_runs(tracker, runs, folder), len(runs)):
                done.append(each)
                for name in each.missing:
                    click.echo(f"{each.run.display_id}: {name} could not be downloaded", err=True)
        except OSError as error:
            raise click.ClickException(f"{folder} cannot be written: {error.strerror}") from error
    if as_json:
        asking.print_json({"folder": str(folder), "runs": [each.to_json() for each in done]})
    else:
        known = sum(each.is_known for each in done)
        also = f", {known} {'was' if known == 1 else 'were'} there already" if known else ""
        click.echo(f"{asking.counted(len(done) - known, 'run')} written to {folder}{also}")
    raise SystemExit(1 if any(each.missing for each in done) else 0)


def _runs(tracker: Tracker, names: Sequence[str], project: str | None) -> list[RunSummary]:
    """The runs that ``names`` mean, each once."""
    projects = {each.name for each in tracker.projects()}
    found: dict[int, RunSummary] = {}
    for name in names:
        is_project = name in projects and reference(name).kind == "external id"
        try:
            listed = tracker.runs(name) if is_project else [asking.find(tracker, name, project)]
        except RequestRefusedError as error:
            if error.status != 404:
                raise
            raise click.ClickException(f"{error}{did_you_mean(name, projects)}") from error
        found.update({each.id: each for each in listed})
    return list(found.values())
