"""The socket and the uvicorn server around the application; used by the command and by ``LocalServer``.

Nothing here knows runs, keys or files.
"""

from __future__ import annotations

import ipaddress
import resource
import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn
from starlette.types import ASGIApp

from pluto_dist.server.transport.connection import BoundedConnection

STOP_S = 3


class Server(uvicorn.Server):
    """uvicorn, which says when it has begun to answer."""

    def __init__(self, app: ASGIApp, on_ready: Callable[[], None]) -> None:
        config = uvicorn.Config(
            app,
            access_log=False,
            log_config=None,
            lifespan="off",
            ws="none",
            http=BoundedConnection,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=STOP_S,
            backlog=2048,
        )
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._on_ready()


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any free one. A thousand ranks may connect at once.

    Raises:
        OSError: the name is unknown, or the address is not free.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(2048)
    except OSError:
        bound.close()
        raise
    return bound


def allow_many_connections() -> None:
    """As many open files as the system lets this process have; the usual 1,024 are fewer than a large job's ranks."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # a container may forbid it
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def port_of(bound: socket.socket) -> int:
    return int(bound.getsockname()[1])


def is_loopback(bound: socket.socket) -> bool:
    return _address(bound).is_loopback


def is_every_address(bound: socket.socket) -> bool:
    return _address(bound).is_unspecified


def url_of(host: str, port: int) -> str:
    """
    >>> url_of("::1", 8080)
    'http://[::1]:8080'
    """
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _address(bound: socket.socket) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(bound.getsockname()[0].partition("%")[0])
