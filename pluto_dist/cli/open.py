"""``pluto-dist open``: a run's page in the browser."""

from __future__ import annotations

import os
import webbrowser

import click

from pluto_dist.cli import asking
from pluto_dist.cli.examples import examples


@click.command(epilog=examples("pluto-dist open DIG-7", "pluto-dist open 42 --print"))
@asking.run_argument
@asking.project_option
@click.option("--print", "only_print", is_flag=True, help="Print the address, and open nothing.")
def open(*, run: str, project: str | None, only_print: bool) -> None:
    """Open the page of a run in the browser, and print its address.

    RUN is the tracker's number of a run, its display id (DIG-7), its external id, or the address of its page. Without
    a display (over ssh), the address is printed only.
    """
    with asking.tracker("open") as tracker:
        address = tracker.page(asking.find(tracker, run, project))
    click.echo(address)
    has_browser = bool(os.environ.get("BROWSER") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    if not only_print and has_browser and not webbrowser.open(address):
        raise click.ClickException("no browser could be started")
