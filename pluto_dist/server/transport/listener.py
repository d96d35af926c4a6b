"""The listening socket and the uvicorn server, used by ``pluto-dist server`` and by ``LocalServer``."""

from __future__ import annotations

import ipaddress
import resource
import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn
from starlette.types import ASGIApp

from pluto_dist.server.transport.connection import LimitedHttpProtocol

GRACEFUL_STOP_S = 3
BACKLOG = 2048  # connections that wait to be accepted


class Server(uvicorn.Server):
    """uvicorn's server; calls ``on_ready`` once it accepts requests."""

    def __init__(self, app: ASGIApp, on_ready: Callable[[], None]) -> None:
        config = uvicorn.Config(
            app,
            access_log=False,
            log_config=None,
            lifespan="off",
            ws="none",
            http=LimitedHttpProtocol,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=GRACEFUL_STOP_S,
            backlog=BACKLOG,
        )
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._on_ready()


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any free port. Its backlog holds the ranks of a large job.

    Raises:
        OSError: ``host`` is unknown, or the address is in use.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(BACKLOG)
    except OSError:
        bound.close()
        raise
    return bound


def raise_open_file_limit() -> None:
    """Set the soft limit of open files to the hard limit; the usual 1,024 are fewer than a large job's ranks."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # a container may forbid it
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def port_of(bound: socket.socket) -> int:
    return int(bound.getsockname()[1])


def is_loopback(bound: socket.socket) -> bool:
    return _address(bound).is_loopback


def is_wildcard(bound: socket.socket) -> bool:
    return _address(bound).is_unspecified


def url_of(host: str, port: int) -> str:
    """
    >>> url_of("::1", 8080)
    'http://[::1]:8080'
    """
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _address(bound: socket.socket) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(bound.getsockname()[0].partition("%")[0])
