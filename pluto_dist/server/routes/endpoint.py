"""The declaration of an endpoint, from which its route and its operation in the OpenAPI document are made.

A group of endpoints is a subclass of :class:`Routes`. Each handler is a coroutine of it with an :class:`Endpoint`
as its decorator. ``app`` lists the groups; a new endpoint of a group needs no other line::

    class TagRoutes(Routes):
        @Endpoint("POST", "/api/runs/tags/update", "Replace a run's tags", body=UpdateTagsRequest, errors=(404,))
        async def update_tags(self, request: Request) -> Response: ...

A declaration does not check requests: the handler reads the key, the body and the parameters, and tests compare both.
But a parameter of the query string that is not declared does not reach the handler.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlencode

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pluto_dist.contract.validation import Json, Record
from pluto_dist.server.db.database import Database
from pluto_dist.server.db.files import UrlSigner
from pluto_dist.server.openapi.schemas import OBJECT, Schema
from pluto_dist.server.routes.auth import Authenticator
from pluto_dist.server.settings import Settings

JSON, JSON_LINES, PLAIN_TEXT = "application/json", "application/x-ndjson", "text/plain"
_DECLARATION = "endpoint"  # the attribute of a handler
_CONVERTOR = re.compile(r":\w+\}")

Handler = Callable[[Request], Awaitable[Response]]
H = TypeVar("H", bound=Callable[..., Awaitable[Response]])


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one path.

    Attributes:
        method: the HTTP method.
        path: the path as Starlette's router takes it, with convertors: ``/files/{file:int}``.
        summary: one line for the document.
        description: more for the document.
        body: the record in the JSON body.
        body_fields: further required fields of that body, which the handler checks itself.
        lines: the schema of each line of a newline-delimited JSON body.
        answer: the schema of the answer with status 200.
        answer_type: the media type of that answer.
        parameters: those in the path, the query string and the headers.
        errors: statuses of errors, besides 401 and those of the body.
        needs_key: whether the API key is required.
        in_document: whether the OpenAPI document has the endpoint.
    """

    method: str
    path: str
    summary: str
    _: KW_ONLY
    description: str = ""
    body: type[Record] | None = None
    body_fields: Mapping[str, Json] = field(default_factory=dict)
    lines: Schema | None = None
    answer: Schema = field(default_factory=OBJECT.copy)
    answer_type: str = JSON
    parameters: tuple[Schema, ...] = ()
    errors: tuple[int, ...] = ()
    needs_key: bool = True
    in_document: bool = True

    def __call__(self, handler: H) -> H:
        """Declare ``handler``, which stays as it is."""
        vars(handler)[_DECLARATION] = self
        return handler

    @property
    def template(self) -> str:
        """The path without convertors, as the document has it.

        >>> Endpoint("GET", "/files/{file:int}", "Download a file").template
        '/files/{file}'
        """
        return _CONVERTOR.sub("}", self.path)


@dataclass(frozen=True, slots=True)
class Services:
    """What the groups of endpoints share."""

    database: Database
    auth: Authenticator
    signer: UrlSigner
    settings: Settings
    document: Schema


class Routes:
    """A group of endpoints."""

    def __init__(self, services: Services) -> None:
        self._database = services.database
        self._auth = services.auth
        self._signer = services.signer
        self._public_url = services.settings.public_url

    @classmethod
    def endpoints(cls) -> tuple[Endpoint, ...]:
        """The declarations, in the order of the source."""
        return tuple(endpoint for _, endpoint in cls._declared())

    def routes(self) -> list[Route]:
        """A route for each declaration, in the same order."""
        return [
            Route(endpoint.path, _with_declared_query(getattr(self, name), endpoint), methods=[endpoint.method])
            for name, endpoint in self._declared()
        ]

    @classmethod
    def _declared(cls) -> Iterator[tuple[str, Endpoint]]:
        for name, member in vars(cls).items():
            endpoint = declaration(member)
            if endpoint is not None:
                yield name, endpoint


def _with_declared_query(handler: Handler, endpoint: Endpoint) -> Handler:
    """``handler``, called with the declared parameters of the query string only."""
    declared = {parameter["name"] for parameter in endpoint.parameters if parameter["in"] == "query"}

    @functools.wraps(handler)
    async def handle(request: Request) -> Response:
        given = QueryParams(request.scope["query_string"]).multi_items()
        query = urlencode([(name, value) for name, value in given if name in declared])
        return await handler(Request({**request.scope, "query_string": query.encode()}, request.receive))

    return handle


def declaration(handler: Any) -> Endpoint | None:
    """The declaration of a handler; ``None`` if it has none."""
    found = getattr(handler, _DECLARATION, None)
    return found if isinstance(found, Endpoint) else None
