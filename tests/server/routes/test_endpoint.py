"""Declarations: what they say is what the server does, and one of them is all that an endpoint needs."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from starlette.requests import Request
from starlette.responses import Response

from pluto_dist.contract.validation import ContractError, Record, contract_field
from pluto_dist.server import LocalServer
from pluto_dist.server.app import GROUPS, build_routes, create_app
from pluto_dist.server.db.database import Database
from pluto_dist.server.openapi.schemas import NUMBER, in_query, object_schema, schema
from pluto_dist.server.routes.endpoint import Endpoint, Routes, declaration
from pluto_dist.server.settings import Settings
from pluto_dist.server.transport.responses import AsciiJSONResponse
from server.conftest import TIMEOUT, Client

KEY = "mlps_a-key-of-this-test"
DECLARED = [endpoint for group in GROUPS for endpoint in group.endpoints()]
WITHOUT_KEY = {
    "GET /": "pages have a check of their own",
    "GET /static/{name}": "what pages load",
    "GET /o/{rest}": "pages",
    "GET /api/health": "for load balancers",
    "GET /api/openapi.json": "for code generators",
    "GET /api/version": "as on the hosted tracker",
    "GET /api/runs/{code}": "as on the hosted tracker: it reads no data",
    "PUT /files/{file}": "the URL is signed",
    "GET /files/{file}": "the URL is signed",
}


def name(endpoint: Endpoint) -> str:
    return f"{endpoint.method} {endpoint.template}"


def url(endpoint: Endpoint) -> str:
    return re.sub(r"\{\w+\}", "1", endpoint.template)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with closing(Database(tmp_path / "tracker.db")) as opened:
        opened.add_key(KEY)
        yield opened


@dataclass(frozen=True, slots=True)
class ScaleRequest(Record):
    factor: int = contract_field("factor", "number", required=True)


class MadeUpRoutes(Routes):
    """An endpoint that exists in this test only."""

    @Endpoint(
        "POST",
        "/api/made-up/{id:int}",
        "Multiply",
        description="By the factor.",
        body=ScaleRequest,
        answer=object_schema(product=NUMBER),
        parameters=(in_query("times", NUMBER),),
        errors=(404,),
    )
    async def multiply(self, request: Request) -> Response:
        _, record, _ = await self._auth.read_record(request, ScaleRequest)
        return AsciiJSONResponse({"product": request.path_params["id"] * record.factor})


class EchoRoutes(Routes):
    """An endpoint that answers the query string that its handler sees."""

    @Endpoint("GET", "/api/echo", "Echo", parameters=(in_query("a"), in_query("b"), in_query("unused")))
    async def echo(self, request: Request) -> Response:
        return AsciiJSONResponse({"query": [list(pair) for pair in request.query_params.multi_items()]})


def ask(app: Any, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """Status and JSON of the answer of an ASGI application, without a server."""
    sent: list[Any] = []
    path, _, query = path.partition("?")

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps(body).encode()}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [
            (b"host", b"localhost"),
            (b"authorization", f"Bearer {KEY}".encode()),
            (b"content-type", b"application/json"),
        ],
    }
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], json.loads(b"".join(each.get("body", b"") for each in sent))


def test_a_declaration_is_enough(database: Database) -> None:
    """An endpoint that is declared here alone is routed, and in the document, and changes nothing else there."""
    app, plain = (
        create_app(database, Settings("http://localhost"), lambda _: None, groups=groups)
        for groups in ((MadeUpRoutes, *GROUPS), GROUPS)
    )
    assert ask(app, "POST", "/api/made-up/6", {"factor": 7}) == (200, {"product": 42})
    status, body = ask(app, "POST", "/api/made-up/6", {"factor": "7"})
    assert (status, body["error"]["name"]) == (400, "ZodError")

    document, usual = (ask(each, "GET", "/api/openapi.json")[1] for each in (app, plain))
    operation = document["paths"].pop("/api/made-up/{id}")["post"]
    assert document == usual
    assert (operation["summary"], operation["description"]) == ("Multiply", "By the factor.")
    assert operation["security"] == [{"bearerAuth": []}]
    assert operation["parameters"] == [in_query("times", NUMBER)]
    sent, answered = operation["requestBody"], operation["responses"]["200"]
    assert sent["content"]["application/json"]["schema"] == {
        "type": "object",
        "properties": {"factor": {"type": "number"}},
        "required": ["factor"],
    }
    assert answered["content"]["application/json"]["schema"] == object_schema(product=NUMBER)
    assert sorted(operation["responses"]) == ["200", "400", "401", "404", "408", "413", "500", "503"]


def test_only_declared_parameters_reach_a_handler(database: Database) -> None:
    """The query string that a handler sees has the parameters of its declaration, unchanged, and no others."""
    app = create_app(database, Settings("http://localhost"), lambda _: None, groups=(EchoRoutes,))
    query = "a=1&undeclared=2&b=%C3%BC+%26&a=3&B=4&c"
    assert ask(app, "GET", f"/api/echo?{query}") == (200, {"query": [["a", "1"], ["b", "ü &"], ["a", "3"]]})


def test_every_route_has_a_declaration(database: Database) -> None:
    """The application has a route for each declaration, in their order, and no other."""
    routes = build_routes(database, Settings("http://localhost"))
    assert [declaration(route.endpoint) for route in routes] == DECLARED
    for route, endpoint in zip(routes, DECLARED, strict=True):
        assert route.path == endpoint.path
        assert (route.methods or set()) - {"HEAD"} == {endpoint.method}


def test_no_two_declarations_are_the_same() -> None:
    """Each method of each path is declared once."""
    names = [name(endpoint) for endpoint in DECLARED]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("endpoint", [each for each in DECLARED if each.in_document], ids=name)
def test_parameters_of_the_path_are_declared(endpoint: Endpoint) -> None:
    """The parameters in a path are those that the declaration describes."""
    described = [each["name"] for each in endpoint.parameters if each["in"] == "path"]
    assert described == re.findall(r"\{(\w+)\}", endpoint.template)


@pytest.mark.parametrize("endpoint", DECLARED, ids=name)
def test_the_key(server: LocalServer, endpoint: Endpoint) -> None:
    """Without a key, an endpoint answers 401 if its declaration says that the key is needed, and only then."""
    assert endpoint.needs_key == (name(endpoint) not in WITHOUT_KEY)
    response = requests.request(endpoint.method, server.url + url(endpoint), timeout=TIMEOUT)
    assert (response.status_code == 401) == endpoint.needs_key
    if endpoint.needs_key:
        assert response.json() == {"error": "Unauthorized"}


@pytest.mark.parametrize("endpoint", [each for each in DECLARED if each.body is not None], ids=name)
def test_the_body(client: Client, endpoint: Endpoint) -> None:
    """The record in the declaration is the one that the handler checks."""
    assert endpoint.body is not None
    wrong: dict[str, Any] = {field: {} for field in schema(endpoint.body)["properties"]}
    response = client.post(url(endpoint), wrong)
    assert response.status_code == 400
    if wrong:
        with pytest.raises(ContractError) as error:
            endpoint.body.from_json(wrong)
        assert response.json()["error"]["issues"] == [issue.to_json() for issue in error.value.issues]
