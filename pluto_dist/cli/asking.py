"""What the commands that ask a tracker share: their options, which run is meant, errors as messages, and tables.

A table has no colours and no width of its own where its reader is a pipe: rows are whole, columns are aligned.
"""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any, TypeVar

import click

from pluto_dist.errors import PlutoDistError, readable
from pluto_dist.query import RunDetails, Tracker

T = TypeVar("T")

NARROWEST = 12  # characters to which a column is cut at most
STATUS_COLORS = {
    "RUNNING": "cyan", "COMPLETED": "green", "FAILED": "red", "TERMINATED": "yellow", "CANCELLED": "yellow",
}  # fmt: skip

run_argument = click.argument("run", metavar="RUN")
project_option = click.option("--project", metavar="NAME", help="The project of RUN.  [default: any]")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


@contextmanager
def tracker(who: str) -> Iterator[Tracker]:
    """The tracker that the environment names. Errors of it are messages of the command, with exit code 1."""
    try:
        with Tracker(who=who) as opened:
            yield opened
    except PlutoDistError as error:
        raise click.ClickException(str(error)) from error


def find(asked: Tracker, text: str, project: str | None) -> RunDetails:
    """The run that ``text`` names. Of several in different projects, a person at a terminal is asked which one.

    Raises:
        click.ClickException: several are meant, and nobody can be asked.
    """
    from pluto_dist.query.references import find_all

    found = find_all(asked, text, project)
    if len(found) == 1:
        return found[0]
    names = [each.project for each in found]
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.ClickException(
            f"{text} names runs of several projects: {', '.join(names)}.\nAdd --project NAME, or give the run's number."
        )
    chosen = click.prompt(f"{text} is in several projects. Which one", type=click.Choice(names), err=True)
    return found[names.index(chosen)]


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def confirm(question: str, yes: bool) -> None:
    """Ask, unless ``yes``; ends the command with exit code 1 if the answer is no, or nobody can be asked."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.ClickException(f"{question} Nobody can be asked here: add --yes.")
    click.confirm(question, abort=True)


def width() -> int | None:
    """Characters of a line of the terminal; ``None`` where there is none."""
    import shutil

    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def styled(text: str, **style: Any) -> str:
    """``text`` in a colour, at a terminal that wants colours (https://no-color.org)."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    return click.style(text, **style)


def status(text: str) -> str:
    """A status in its colour."""
    return styled(text, fg=STATUS_COLORS.get(text))


def table(head: Sequence[str], rows: Sequence[Sequence[Any]], *, limit: int | None = None, cut: int = -1) -> list[str]:
    """Lines of aligned columns; the head is left out if there are no rows.

    Args:
        head: titles of the columns.
        rows: their values; ``None`` is empty.
        limit: characters of a line; longer lines are cut in the column ``cut``.
        cut: index of that column.

    >>> table(("run", "name"), [("DIG-1", "a very long name"), ("DIG-10", "b")], limit=20)
    ['run     name', 'DIG-1   a very long…', 'DIG-10  b']
    """
    if not rows:
        return []
    texts = [["" if value is None else one_line(str(value)) for value in row] for row in (head, *rows)]
    widths = [max(columns(row[n]) for row in texts) for n in range(len(head))]
    if limit is not None and sum(widths) + 2 * len(widths) - 2 > limit:
        others = sum(widths) - widths[cut] + 2 * len(widths) - 2
        widths[cut] = max(limit - others, min(NARROWEST, widths[cut]))
    return ["  ".join(_fitted(text, size) for text, size in zip(row, widths, strict=True)).rstrip() for row in texts]


def one_line(text: str) -> str:
    """``text`` in one line, readable on a terminal: names are data.

    >>> one_line("two\\nlines")
    'two lines'
    """
    return readable(text).replace("\n", " ").replace("\t", " ")


def columns(text: str) -> int:
    """Columns of a terminal that ``text`` takes: wide letters take two, accents that stand alone none.

    >>> columns("naïve"), columns("名前"), columns("e\u0301")
    (5, 4, 1)
    """
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return len(text) + wide - sum(unicodedata.combining(letter) != 0 for letter in text)


def _fitted(text: str, size: int) -> str:
    if columns(text) > size:
        while columns(text) >= size:
            text = text[:-1]
        text += "…"
    return text + " " * (size - columns(text))


def ago(at: datetime | None, now: datetime | None = None) -> str:
    """How long ago ``at`` was, in words; "" if it is not known.

    >>> ago(datetime(2026, 1, 1, tzinfo=timezone.utc), datetime(2026, 1, 1, 5, tzinfo=timezone.utc))
    '5 h ago'
    """
    if at is None:
        return ""
    return f"{duration(((now or datetime.now(timezone.utc)) - at).total_seconds())} ago"


def counted(count: int, what: str) -> str:
    """
    >>> counted(1, "run"), counted(2, "run")
    ('1 run', '2 runs')
    """
    return f"{count} {what}{'s' * (count != 1)}"


def duration(seconds: float) -> str:
    """
    >>> duration(59), duration(150), duration(7200), duration(3 * 86400)
    ('59 s', '2 min', '2 h', '3 days')
    """
    seconds = max(0, int(seconds))
    for size, unit in ((172_800, "days"), (7200, "h"), (120, "min")):
        if seconds >= size:
            return f"{seconds // {'days': 86_400, 'h': 3600, 'min': 60}[unit]} {unit}"
    return f"{seconds} s"


def with_progress(items: Iterator[T], total: int) -> Iterator[T]:
    """``items``; on standard error a bar, if that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    bar = Progress(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console, transient=True)
    if not console.is_terminal:
        yield from items
        return
    with bar:
        task = bar.add_task("", total=total)
        for item in items:
            bar.advance(task)
            yield item
