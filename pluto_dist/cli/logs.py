"""``pluto-dist logs``: the console lines of a run."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict

import click

from pluto_dist.cli import asking
from pluto_dist.cli.examples import examples
from pluto_dist.query import ConsoleLine, RunDetails, Tracker
from pluto_dist.query.tracker import LINES_PER_PAGE

FOLLOW_SECONDS = 1.0
OVERLAP = 500  # lines that are read again: a rank's lines may arrive after later ones of another rank


@click.command(epilog=examples("pluto-dist logs DIG-7 --rank 3 --tail 100", "pluto-dist logs DIG-7 --follow"))
@asking.run_argument
@click.option("--rank", type=click.IntRange(min=0), help="Only the lines that this rank printed.")
@click.option("-f", "--follow", is_flag=True, help="Go on with new lines until the run has ended, or ctrl-C.")
@click.option("-n", "--tail", type=click.IntRange(min=1), help="Only the last lines.")
@asking.project_option
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each line.")
def logs(*, run: str, rank: int | None, follow: bool, tail: int | None, project: str | None, as_json: bool) -> None:
    """Print the console lines of a run, of all ranks by time.

    RUN is the tracker's number of a run, its display id (DIG-7), its external id, or the address of its page. A run
    has console lines if its script uses the official SDK (`run.attach_sdk()`).
    """
    with asking.tracker("logs") as tracker:
        found = asking.find(tracker, run, project)
        count, shown = 0, deque[ConsoleLine](maxlen=tail)
        for line in tracker.console(found):
            count += 1
            if rank is None or line.rank == rank:
                _print(line, as_json) if tail is None else shown.append(line)
        for line in shown:
            _print(line, as_json)
        if not count and not follow:
            click.echo(f"run {found.display_id or found.id} has no console lines", err=True)
        if follow:
            try:
                for line in _new_lines(tracker, found, count):
                    if rank is None or line.rank == rank:
                        _print(line, as_json)
            except KeyboardInterrupt:
                return


def _new_lines(tracker: Tracker, run: RunDetails, count: int) -> Iterator[ConsoleLine]:
    """The lines after the first ``count``, as they arrive, until the run has ended."""
    start = max(0, count - OVERLAP)
    known = dict.fromkeys(list(tracker.console(run, offset=start))[: count - start])
    while True:
        has_ended = tracker.details(run.id).status != "RUNNING"
        start = max(0, count - OVERLAP)
        while page := tracker.console_page(run, start):
            for line in page:
                if line not in known:
                    known[line] = None
                    count += 1
                    yield line
            start += len(page)
            if len(page) < LINES_PER_PAGE:
                break
        for old in list(known)[: -2 * OVERLAP]:
            del known[old]
        if has_ended:
            return
        time.sleep(FOLLOW_SECONDS)


def _print(line: ConsoleLine, as_json: bool) -> None:
    import json

    click.echo(json.dumps({**asdict(line), "rank": line.rank}, ensure_ascii=False) if as_json else line.message)
