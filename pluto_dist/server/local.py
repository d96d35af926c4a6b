"""The embedded tracker inside this process, for tests, notebooks and demos.

It serves from a daemon thread on a loopback port of its own and ends with the ``with`` block; without
``db`` its file is temporary and goes with it. For a server that outlives the process there is
``pluto-dist server``.

::

    with LocalServer() as server:
        subprocess.run(["torchrun", "train.py"], env={**os.environ, **server.environ()})
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from pluto_dist.server import env_file
from pluto_dist.server.app import create_app
from pluto_dist.server.db.api_keys import mint
from pluto_dist.server.db.database import Database
from pluto_dist.server.settings import BODY_LIMIT, FILE_LIMIT, Settings
from pluto_dist.server.transport import listener

_START_S, _STOP_S = 15.0, 10.0
_LINES_KEPT = 200_000


class LocalServer:
    """A tracker on ``http://127.0.0.1:<port>`` for the length of a ``with`` block.

    Args:
        db: the database file; made if it does not exist. Without one a temporary file is used.
        port: 0 takes any free port.
        api_key: the key to accept; without one a key is minted.
        private_pages: whether the pages ask for the key, too.
        allow_hosts: names beyond loopback that are accepted as Host.
        body_limit: the largest request body in bytes.
        file_limit: the largest uploaded file in bytes.
    """

    def __init__(
        self,
        db: str | os.PathLike[str] | None = None,
        port: int = 0,
        *,
        api_key: str | None = None,
        private_pages: bool = False,
        allow_hosts: tuple[str, ...] = (),
        body_limit: int = BODY_LIMIT,
        file_limit: int = FILE_LIMIT,
    ) -> None:
        self.api_key = api_key or mint()
        self.url = ""
        self._wanted_port = port
        self._private_pages = private_pages
        self._hosts = frozenset(allow_hosts)
        self._body_limit = body_limit
        self._file_limit = file_limit
        self._lines: deque[str] = deque(maxlen=_LINES_KEPT)
        self._wanted_db = db
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.db = Path(db) if db is not None else Path()

    def __repr__(self) -> str:
        return f"LocalServer(url={self.url!r}, db={str(self.db)!r})"

    def __enter__(self) -> LocalServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Serve; returns when requests are answered.

        Raises:
            DatabaseFileError: ``db`` is no tracker's file.
            OSError: the port is not free.
            TimeoutError: the server did not come up.
        """
        if self._wanted_db is None:
            self._folder = tempfile.TemporaryDirectory(prefix="pluto-dist-")
            self.db = Path(self._folder.name) / "tracker.db"
        with ExitStack() as undo:
            undo.callback(self._delete_temporary)
            self._database = Database(self.db)
            undo.callback(self._database.close)
            self._database.add_key(self.api_key)
            self._socket = listener.bind("127.0.0.1", self._wanted_port)
            undo.pop_all()
        self.url = listener.url_of("127.0.0.1", listener.port_of(self._socket))
        settings = Settings(self.url, self._hosts, self._private_pages, self._body_limit, self._file_limit)
        is_ready = threading.Event()
        app = create_app(self._database, settings, self._lines.append)
        self._server = listener.Server(app, is_ready.set)
        self._thread = threading.Thread(target=self._serve, name="pluto-dist-server", daemon=True)
        self._thread.start()
        if not is_ready.wait(_START_S):
            self.stop()
            raise TimeoutError(f"the embedded tracker did not start within {_START_S:.0f} s")

    def stop(self) -> None:
        """End serving and close everything; a temporary database is deleted.

        Raises:
            TimeoutError: a request did not let go; the daemon thread ends with the process.
        """
        self._server.should_exit = True
        self._thread.join(_STOP_S)
        if self._thread.is_alive():
            self._server.force_exit = True
            self._thread.join(_STOP_S)
        if self._thread.is_alive():
            raise TimeoutError("the embedded tracker did not stop")
        self._socket.close()
        self._database.close()
        self._delete_temporary()

    def environ(self, base: Mapping[str, str] | None = None) -> dict[str, str]:
        """The variables that point a job at this server.

        ``NO_PROXY`` and ``no_proxy`` extend those of ``base``, by default this process's environment.
        """
        return env_file.environment(self.url, self.api_key, os.environ if base is None else base)

    def requests(self) -> tuple[str, ...]:
        """The access log so far, oldest first: ``CLIENT "METHOD PATH HTTP/1.1" STATUS``."""
        return tuple(self._lines)

    def _delete_temporary(self) -> None:
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _serve(self) -> None:
        self._server.run(sockets=[self._socket])
