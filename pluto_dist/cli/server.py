"""``pluto-dist server``: the embedded tracker, in the foreground."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import click

from pluto_dist.server.api_keys import invalid_reason

KEY_VARIABLE = "PLUTO_DIST_SERVER_KEY"


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8420, show_default=True, type=click.IntRange(0, 65535), help="0: any free port.")
@click.option(
    "--db",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Database file.  [default: $XDG_STATE_HOME/pluto-dist/tracker.db]",
)
@click.option(
    "--api-key-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help=f"File with the API key to accept; {KEY_VARIABLE} may hold it instead. Otherwise one is minted.",
)
@click.option(
    "--env-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the exports that point a job at this server to this file.",
)
@click.option("--allow-host", multiple=True, metavar="NAME", help="Answer to this Host name, too. Repeatable.")
@click.option("--private-pages", is_flag=True, help="Ask for the API key on the pages, on loopback as well.")
def server(
    *,
    host: str,
    port: int,
    db: Path | None,
    api_key_file: Path | None,
    env_file: Path | None,
    allow_host: tuple[str, ...],
    private_pages: bool,
) -> None:
    """Run the embedded tracker until SIGTERM or ctrl-C.

    Without --env-file and without a key given, the exports that a job needs are printed once, on
    standard output. The access log goes to standard error.
    """
    try:
        from pluto_dist.server import serve
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"the embedded tracker needs the package {error.name!r}: pip install 'pluto-dist[server]'"
        ) from error
    environ = dict(os.environ)
    options = serve.Options(
        host=host,
        port=port,
        db=db or default_database(environ),
        given_key=_given_key(api_key_file, environ),
        env_file=env_file,
        allow_hosts=allow_host,
        private_pages=private_pages,
        environ=environ,
    )
    try:
        serve.run(options, log=_say, echo=click.echo)
    except serve.ServeError as error:
        raise click.ClickException(str(error)) from error


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
