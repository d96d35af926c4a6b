"""``pluto-dist server``: the embedded tracker, in the foreground; and the upkeep of its database."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click

from pluto_dist.cli import asking
from pluto_dist.cli.examples import examples
from pluto_dist.server.api_keys import invalid_reason

KEY_VARIABLE = "PLUTO_DIST_SERVER_KEY"
FILE = click.Path(dir_okay=False, path_type=Path)
db_option = click.option("--db", type=FILE, help="Database file.  [default: $XDG_STATE_HOME/pluto-dist/tracker.db]")


@click.group(
    invoke_without_command=True,
    epilog=examples("pluto-dist server --env-file pluto.env", "pluto-dist server --port 0 --db runs.db --read-only -v"),
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8420, show_default=True, type=click.IntRange(0, 65535), help="0: any free port.")
@db_option
@click.option(
    "--api-key-file",
    type=FILE,
    help=f"File with the API key to accept; {KEY_VARIABLE} may hold it instead. Otherwise one is minted.",
)
@click.option(
    "--env-file",
    type=FILE,
    help="Write the exports that point a job at this server to this file, which must hold nothing else.",
)
@click.option("--allow-host", multiple=True, metavar="NAME", help="Answer to this Host name, too. Repeatable.")
@click.option("--private-pages", is_flag=True, help="Ask for the API key on the pages, on loopback as well.")
@click.option("--read-only", is_flag=True, help="Refuse requests that change something.")
@click.option("-v", "--verbose", is_flag=True, help="Log every request on standard error.")
@click.pass_context
def server(ctx: click.Context, /, *, db: Path | None, api_key_file: Path | None, **options: Any) -> None:
    """Run the embedded tracker until SIGTERM or ctrl-C.

    Without --env-file and without a key given, the exports that a job needs are printed once, on standard output.
    What to do next is on standard error.
    """
    environ = dict(os.environ)
    ctx.obj = db or default_database(environ)
    if ctx.invoked_subcommand is not None:
        return
    with _needing_the_extra():
        from pluto_dist.server import serve
    given_key = _given_key(api_key_file, environ)
    hosts = options.pop("allow_host")
    chosen = serve.Options(**options, db=ctx.obj, given_key=given_key, allow_hosts=hosts, environ=environ)
    try:
        serve.run(chosen, log=_say, echo=click.echo)
    except serve.ServeError as error:
        raise click.ClickException(str(error)) from error


@server.command(epilog=examples("pluto-dist server status", "pluto-dist server status --db runs.db --json"))
@db_option
@asking.json_option
@click.pass_obj
def status(default: Path, *, db: Path | None, as_json: bool) -> None:
    """Show the size of the database: projects, runs, points, files, and how much of it is old."""
    with _upkeep():
        from pluto_dist.server.db.upkeep import size

        found = size(db or default)
    if as_json:
        asking.print_json(found.to_json())
        return
    click.echo(f"database       {found.database}: {_bytes(found.database_bytes)}, files {_bytes(found.blob_bytes)}")
    old = ", ".join(f"{count} for {days}" for days, count in found.runs_older_than.items())
    click.echo(f"not changed    runs: {old}")
    rows = [
        (each.project, each.runs, each.running, each.points, each.console_lines, each.files, _bytes(each.file_bytes),
         each.oldest[:10], each.newest[:10])
        for each in found.projects
    ]  # fmt: skip
    head = ("project", "runs", "running", "points", "console", "files", "size", "oldest", "newest")
    for line in asking.table(head, rows, limit=asking.width(), cut=0):
        click.echo(line)


@server.command(epilog=examples("pluto-dist server backup copy.db", "pluto-dist server backup copy.db --db runs.db"))
@click.argument("target", metavar="FILE", type=FILE)
@db_option
@click.pass_obj
def backup(default: Path, *, target: Path, db: Path | None) -> None:
    """Copy the database to FILE and the uploaded files to FILE.blobs; the server may be running."""
    with _upkeep():
        from pluto_dist.server.db.upkeep import back_up

        files = back_up(db or default, target)
    click.echo(
        f"{db or default} is copied to {target}, with {asking.counted(files, 'uploaded file')} in {target}.blobs"
    )


@server.command(epilog=examples("pluto-dist server restore copy.db", "pluto-dist server restore copy.db --db runs.db"))
@click.argument("source", metavar="FILE", type=FILE)
@db_option
@click.pass_obj
def restore(default: Path, *, source: Path, db: Path | None) -> None:
    """Put the backup FILE where there is no database yet; a database that is there must be moved away before."""
    with _upkeep():
        from pluto_dist.server.db.upkeep import restore as put_back

        runs = put_back(source, db or default)
    click.echo(f"{db or default} has {asking.counted(runs, 'run')} again; next: pluto-dist server")


@contextmanager
def _needing_the_extra() -> Iterator[None]:
    """A package that is not installed is an error that says how to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"the embedded tracker needs the package {error.name!r}: pip install 'pluto-dist[server]'"
        ) from error


@contextmanager
def _upkeep() -> Iterator[None]:
    """Errors of a database file are messages of the command."""
    with _needing_the_extra():
        from pluto_dist.server.db.database import DatabaseFileError
        from pluto_dist.server.db.upkeep import UpkeepError

        try:
            yield
        except (DatabaseFileError, UpkeepError) as error:
            raise click.ClickException(str(error)) from error


def _bytes(count: float) -> str:
    """
    >>> _bytes(512), _bytes(3 * 2**20)
    ('512 B', '3.0 MiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def default_database(environ: Mapping[str, str]) -> Path:
    """``tracker.db`` in the user's folder for state, as the XDG base directories have it."""
    state = environ.get("XDG_STATE_HOME", "")
    folder = Path(state) if Path(state).is_absolute() else Path.home() / ".local" / "state"
    return folder / "pluto-dist" / "tracker.db"


def _given_key(file: Path | None, environ: Mapping[str, str]) -> str | None:
    """The key that the user chose: the file's before the environment's; never from the command line."""

    if file is not None:
        try:
            key, source = file.read_text(encoding="utf-8").strip(), str(file)
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not text"
            raise click.ClickException(f"the API key file {file} cannot be read: {why}") from error
    elif environ.get(KEY_VARIABLE):
        key, source = environ[KEY_VARIABLE].strip(), KEY_VARIABLE
    else:
        return None
    if reason := invalid_reason(key):
        raise click.ClickException(f"the API key in {source} cannot be used: {reason}")
    return key


def _say(line: str) -> None:
    with suppress(OSError):  # whoever read standard error may be gone; the server goes on
        sys.stderr.write(f"{line}\n")  # one write a line: several servers may share a log
