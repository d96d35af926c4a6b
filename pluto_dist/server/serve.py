"""``pluto-dist server``: opens the database, listens, and serves until a signal.

Prints nothing itself: messages and the access log go to ``log``, the exports to ``echo``.
"""

from __future__ import annotations

import shlex
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from pluto_dist.server import env_file
from pluto_dist.server.api_keys import mint
from pluto_dist.server.app import create_app
from pluto_dist.server.db.database import Database, DatabaseFileError
from pluto_dist.server.settings import Settings
from pluto_dist.server.transport import listener

Write = Callable[[str], None]


class ServeError(Exception):
    """The server cannot start; the message names the cause and the remedy."""


@dataclass(frozen=True, slots=True)
class Options:
    """The command's options and its environment."""

    host: str
    port: int
    db: Path
    given_key: str | None = field(repr=False)
    env_file: Path | None
    allow_hosts: tuple[str, ...]
    private_pages: bool
    environ: Mapping[str, str] = field(repr=False)
    verbose: bool = False
    read_only: bool = False


def run(options: Options, *, log: Write, echo: Write) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        ServeError: the port, the database or the env file cannot be used.
    """
    listener.raise_open_file_limit()
    _refuse_foreign(options.env_file)
    is_new = not options.db.exists()
    try:
        database = Database(options.db)
    except DatabaseFileError as error:
        raise ServeError(str(error)) from error
    with closing(database), closing(_bind(options)) as bound:
        _serve(options, database, bound, log, echo, "new database" if is_new else "database")


def _refuse_foreign(path: Path | None) -> None:
    """An env file that exists must hold nothing but what this command writes.

    Raises:
        ServeError: it holds something else, or cannot be read.
    """
    try:
        foreign = None if path is None else env_file.foreign_line(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ServeError(f"the env file {path} cannot be read: {error}") from error
    if foreign is not None:
        raise ServeError(
            f"the env file {path} holds lines that are not this command's, and would be lost. Name another file."
        )


def _serve(options: Options, database: Database, bound: socket.socket, log: Write, echo: Write, kind: str) -> None:
    key, is_new = _choose_key(options, database)
    host = _public_host(options, bound)
    settings = Settings(
        public_url=listener.url_of(host, listener.port_of(bound)),
        hosts=frozenset({host, options.host, *options.allow_hosts}),
        private_pages=options.private_pages or not listener.is_loopback(bound),
        read_only=options.read_only,
    )
    exports = env_file.variables(settings.public_url, key, options.environ)

    def announce() -> None:
        if options.env_file is not None:
            env_file.write(options.env_file, exports)
        elif is_new:
            printed = {name: exports[name] for name in (env_file.KEY, "PLUTO_URL_API")}
            echo(env_file.export_lines(printed).rstrip("\n"))
        mode = ", read-only" if options.read_only else ""
        log(f"pluto-dist tracker: {settings.public_url} ({kind} {options.db}{mode})")
        log(f"next: {_next_step(options, is_new, settings.public_url)}")
        if not listener.is_loopback(bound):
            log(
                f"warning: listening on {options.host}: everyone who can reach this address can try keys, and "
                "plain HTTP exposes the key and all runs to everyone who can read the network traffic"
            )

    server = listener.Server(create_app(database, settings, log if options.verbose else _nowhere), announce)
    _stop_on_signals(server)
    try:
        server.run(sockets=[bound])
    except OSError as error:
        raise ServeError(f"the env file {options.env_file} cannot be written: {error.strerror}") from error


def _next_step(options: Options, key_is_new: bool, url: str) -> str:
    """What to do now, in one line."""
    if options.env_file is not None:
        path = options.env_file if options.env_file.is_absolute() else Path(options.env_file)
        shown = shlex.quote(str(path) if path.is_absolute() else f"./{path}")
        said = f"`. {shown}` in the shell of"
    elif key_is_new:
        said = "paste the two export lines into the shell of"
    else:
        said = f"set PLUTO_API_KEY to that key and PLUTO_URL_API={url} for"
    if options.read_only:
        return f"open {url}; for commands that read, {said} them (no job can be recorded here)"
    return f"{said} a job, start it, and open {url}"


def _nowhere(_: str) -> None:
    """The access log, unless it is asked for."""


def _stop_on_signals(server: listener.Server) -> None:
    """Exit with code 0 on SIGTERM and SIGINT.

    uvicorn replaces the signal handlers while it serves and raises the received signal again when it
    has stopped: these handlers receive that second signal, and signals that arrive before it serves.
    """

    def stop(*_: object) -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


def _bind(options: Options) -> socket.socket:
    try:
        return listener.bind(options.host, options.port)
    except OSError as error:
        raise ServeError(
            f"cannot listen on {options.host} port {options.port}: {error.strerror}. "
            "Choose another --port (0 takes any free one) or --host."
        ) from error


def _choose_key(options: Options, database: Database) -> tuple[str, bool]:
    """The key to accept, and whether it is new: the given key, else a valid one in the env file, else a new one."""
    if options.given_key is not None:
        database.add_key(options.given_key)
        return options.given_key, False
    if options.env_file is not None:
        try:
            earlier = env_file.read_key(options.env_file)
        except (OSError, UnicodeDecodeError) as error:
            raise ServeError(f"the env file {options.env_file} cannot be read: {error}") from error
        if earlier is not None and database.accepts_key(earlier):
            return earlier, False
    key = mint()
    database.add_key(key)
    return key, True


def _public_host(options: Options, bound: socket.socket) -> str:
    """The host name in the address that jobs use."""
    if not listener.is_wildcard(bound):
        return options.host
    return options.allow_hosts[0] if options.allow_hosts else socket.gethostname()
