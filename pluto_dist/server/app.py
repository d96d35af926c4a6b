"""The ASGI application: all routes behind the middleware, and the responses to unhandled errors.

Built on Starlette alone. FastAPI's validation answers 422 in a shape of its own, but clients of the
hosted tracker expect three other shapes (see ``transport.responses``), and its OpenAPI document would
need second copies of the records; here both come from the rules in ``pluto_dist.contract`` and from
the declarations in ``routes`` (see ``routes.endpoint``).

Handlers are coroutines that call SQLite directly: a transaction takes some tens of microseconds and
SQLite has a single writer, so a thread pool would cost more than it saves.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pluto_dist.server.db.database import Database
from pluto_dist.server.db.files import UrlSigner
from pluto_dist.server.db.records import RequestRejectedError
from pluto_dist.server.openapi.document import document
from pluto_dist.server.pages.pages import PageRoutes
from pluto_dist.server.routes.annotations import AnnotationRoutes
from pluto_dist.server.routes.auth import Authenticator
from pluto_dist.server.routes.endpoint import Routes, Services
from pluto_dist.server.routes.files import FileRoutes
from pluto_dist.server.routes.ingest import IngestRoutes
from pluto_dist.server.routes.metrics import MetricRoutes
from pluto_dist.server.routes.queries import QueryRoutes
from pluto_dist.server.routes.runs import RunRoutes, SqidRoutes
from pluto_dist.server.settings import Settings
from pluto_dist.server.transport.middleware import AccessLog, TrackerMiddleware
from pluto_dist.server.transport.responses import ResponseError, error_response, not_found_response

# In the order of routing. The path of SqidRoutes also matches those of the others, so it comes last.
GROUPS: tuple[type[Routes], ...] = (
    RunRoutes,
    AnnotationRoutes,
    IngestRoutes,
    FileRoutes,
    QueryRoutes,
    MetricRoutes,
    PageRoutes,
    SqidRoutes,
)


def create_app(
    database: Database, settings: Settings, log: AccessLog, groups: Sequence[type[Routes]] = GROUPS
) -> TrackerMiddleware:
    """The ASGI application of the endpoints in ``groups``. ``log`` receives one line for every request."""
    app = Starlette(
        routes=build_routes(database, settings, groups),
        exception_handlers={
            ResponseError: _on_response_error,
            RequestRejectedError: _on_rejected_request,
            HTTPException: _on_http_exception,
            sqlite3.OperationalError: _on_database_error,
            500: _on_unhandled_error,
        },
    )
    app.router.redirect_slashes = False
    return TrackerMiddleware(app, hosts=settings.hosts, log=log, read_only=settings.read_only)


def build_routes(database: Database, settings: Settings, groups: Sequence[type[Routes]] = GROUPS) -> list[Route]:
    """The routes of all declared endpoints, in the order of routing."""
    services = Services(
        database=database,
        auth=Authenticator(database, settings.body_limit),
        signer=UrlSigner(database),
        settings=settings,
        document=document(settings.public_url, (endpoint for group in groups for endpoint in group.endpoints())),
    )
    return [route for group in groups for route in group(services).routes()]


async def _on_response_error(_: Request, error: Exception) -> Response:
    if not isinstance(error, ResponseError):
        raise error
    return error.response


async def _on_rejected_request(_: Request, error: Exception) -> Response:
    if not isinstance(error, RequestRejectedError):
        raise error
    return error_response(error.status, error.message)


async def _on_http_exception(_: Request, error: Exception) -> Response:
    """Unknown paths and methods are 404 in plain text, as on the hosted tracker."""
    if isinstance(error, HTTPException) and error.status_code in (404, 405):
        return not_found_response()
    raise error


async def _on_database_error(_: Request, error: Exception) -> Response:
    """503: another process held the write lock too long, or the disk is full. Clients retry it."""
    return error_response(503, f"the tracker's database does not answer: {error}")


async def _on_unhandled_error(_: Request, __: Exception) -> Response:
    return error_response(500, "Internal Server Error")
