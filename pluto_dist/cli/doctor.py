"""``pluto-dist doctor``: checks whether this machine is ready for a job."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import click

from pluto_dist.cli.examples import examples
from pluto_dist.contract.secret import Environ
from pluto_dist.doctor import CHECK_GROUPS, TIMEOUT, Finding, Machine, Report, examine

STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red", "not applicable": "dim"}


@click.command(epilog=examples("pluto-dist doctor", "srun pluto-dist doctor --offline --json"))
@click.option("--offline", is_flag=True, help="Ask no tracker.")
@click.option("--timeout", default=TIMEOUT, show_default=True, type=click.FloatRange(0.5, 600), help="Seconds for all.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--nvml-profile",
    "profile",
    metavar="[FILE]",
    is_flag=False,
    flag_value="-",
    help="Instead: write what NVIDIA's library answers on this machine, for a bug report. Without FILE to standard "
    "output.",
)
@click.option("--keep-ids", is_flag=True, help="Leave UUIDs and serial numbers in the profile as they are.")
def doctor(*, offline: bool, timeout: float, as_json: bool, profile: str | None, keep_ids: bool) -> None:
    """Check this machine before a job: what was seen, and what mends it.

    Reads and asks, changes nothing, and ends in time whatever hangs. Run it where a worker would run, with its
    environment. Exits with 1 where there is a problem; a warning is none.
    """
    if profile is not None:
        _write_profile(profile, timeout, keep_ids)
        return
    report = examine(Machine(Environ(os.environ), offline, timeout), CHECK_GROUPS)
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2))
    elif sys.stdout.isatty():
        _print_table(report)
    else:
        click.echo("\n".join(lines(report)))
    sys.exit(report.verdict == "problem")


def rows(report: Report) -> Iterator[tuple[str, str, Finding]]:
    """Verdict, name and finding of each line; adjacent checks that do not apply for one reason share a line ("-")."""
    for reason, group in groupby(report.findings, key=lambda named: _why_not_applicable(named[1])):
        names, findings = zip(*group, strict=True)
        if reason:
            yield "-", ", ".join(names), findings[0]
        else:
            yield from ((finding.verdict, name, finding) for name, finding in zip(names, findings, strict=True))


def _why_not_applicable(finding: Finding) -> str:
    return finding.saw if finding.verdict == "not applicable" else ""


def lines(report: Report) -> list[str]:
    """The report as text: a line for each row, followed by its fix."""
    found = []
    for label, name, finding in rows(report):
        found.append(f"{label:8} {name:18} {finding.saw}" if len(name) <= 18 else f"{label:8} {name}: {finding.saw}")
        found += textwrap.wrap(finding.fix, 120, initial_indent=f"{'':28}fix: ", subsequent_indent=f"{'':33}")
    return [*found, _summary(report)]


def _summary(report: Report) -> str:
    counts = report.counts()
    shown = ", ".join(f"{counts[verdict]} {verdict}" for verdict in STYLES if counts[verdict])
    return f"{shown} ({report.seconds:.1f} s)"


def _print_table(report: Report) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    for label, name, finding in rows(report):
        style = STYLES[finding.verdict]
        fix = f"\nfix: {escape(finding.fix)}" if finding.fix else ""
        table.add_row(f"[{style}]{label}[/]", name, f"{escape(finding.saw)}[bold]{fix}[/]")
    console = Console(highlight=False)
    console.print(table)
    console.print(_summary(report))


def _write_profile(file: str, timeout: float, keep_ids: bool) -> None:
    from pluto_dist.doctor.nvml_profile import dump

    content = dump.dump_profile(timeout, keep_ids=keep_ids)
    if file == "-":
        click.echo(content, nl=False)
        return
    try:
        Path(file).write_bytes(content)
    except OSError as error:
        raise click.ClickException(f"{file} cannot be written: {error.strerror}") from error
