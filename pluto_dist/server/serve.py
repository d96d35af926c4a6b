"""``pluto-dist server``: from its options to a server that answers, and to its end.

Prints nothing by itself: lines for people and the access log go to ``say``, the exports to ``show``.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from pluto_dist.server import env_file
from pluto_dist.server.app import create_app
from pluto_dist.server.db.api_keys import mint
from pluto_dist.server.db.database import Database, DatabaseFileError
from pluto_dist.server.settings import Settings
from pluto_dist.server.transport import listener

Say = Callable[[str], None]


class ServeError(Exception):
    """Why the server cannot start: what was wrong, and what to do."""


@dataclass(frozen=True, slots=True)
class Options:
    """The command's options, with the environment it was given."""

    host: str
    port: int
    db: Path
    given_key: str | None = field(repr=False)
    env_file: Path | None
    allow_hosts: tuple[str, ...]
    private_pages: bool
    environ: Mapping[str, str] = field(repr=False)


def run(options: Options, *, say: Say, show: Say) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        ServeError: port, database or env file cannot be used.
    """
    listener.allow_many_connections()
    try:
        database = Database(options.db)
    except DatabaseFileError as error:
        raise ServeError(str(error)) from error
    with closing(database), closing(_bind(options)) as bound:
        _serve(options, database, bound, say, show)


def _serve(options: Options, database: Database, bound: socket.socket, say: Say, show: Say) -> None:
    key, minted = _choose_key(options, database)
    name = _public_name(options, bound)
    settings = Settings(
        public_url=listener.url_of(name, listener.port_of(bound)),
        hosts=frozenset({name, options.host, *options.allow_hosts}),
        private_pages=options.private_pages or not listener.is_loopback(bound),
    )
    variables = env_file.environment(settings.public_url, key, options.environ)

    def announce() -> None:
        if options.env_file is not None:
            env_file.write(options.env_file, variables)
        elif minted:
            exports = {each: variables[each] for each in (env_file.KEY, "PLUTO_URL_API")}
            show(env_file.lines(exports).rstrip("\n"))
        say(f"pluto-dist tracker: {settings.public_url} (database {options.db})")
        if not listener.is_loopback(bound):
            say(
                f"warning: listening on {options.host}: everyone who reaches this address can try keys, and "
                "plain http shows the key and all runs to whoever can read the network"
            )

    server = listener.Server(create_app(database, settings, say), announce)
    _stop_on_signals(server)
    try:
        server.run(sockets=[bound])
    except OSError as error:
        raise ServeError(f"the env file {options.env_file} cannot be written: {error.strerror}") from error


def _stop_on_signals(server: listener.Server) -> None:
    """End with exit code 0 on SIGTERM and ctrl-C.

    uvicorn takes the signals over while it serves, and raises them again when it is done: these
    handlers catch what comes before it, and that second time.
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
    """The key to accept, and whether it was minted here: given > in the env file and known > new."""
    if options.given_key is not None:
        database.add_key(options.given_key)
        return options.given_key, False
    if options.env_file is not None:
        try:
            kept = env_file.key_in(options.env_file)
        except (OSError, UnicodeDecodeError) as error:
            raise ServeError(f"the env file {options.env_file} cannot be read: {error}") from error
        if kept is not None and database.knows(kept):
            return kept, False
    minted = mint()
    database.add_key(minted)
    return minted, True


def _public_name(options: Options, bound: socket.socket) -> str:
    """The name under which jobs reach this server."""
    if not listener.is_every_address(bound):
        return options.host
    return options.allow_hosts[0] if options.allow_hosts else socket.gethostname()
