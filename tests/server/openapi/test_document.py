"""The OpenAPI document, compared with the published contract of create-run, which is repeated here."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from pluto_dist.server import LocalServer
from pluto_dist.server.app import GROUPS
from pluto_dist.server.pages.pages import PageRoutes
from pluto_dist.server.settings import NAME_LIMIT
from server.conftest import TIMEOUT

# name: (type, nullable, minLength, required)
CREATE_RUN = {
    "runName": ("string", False, None, True),
    "projectName": ("string", False, None, True),
    "externalId": ("string", True, 1, False),
    "tags": ("array", True, None, False),
    "loggerSettings": ("string", True, None, False),
    "systemMetadata": ("string", True, None, False),
    "config": ("string", True, None, False),
    "createdAt": ("number", True, None, False),
    "updatedAt": ("number", True, None, False),
    "forkRunId": ("number", True, None, False),
    "forkStep": ("number", True, None, False),
    "inheritConfig": ("boolean", True, None, False),
    "inheritTags": ("boolean", True, None, False),
}
RESPONSE = {
    "runId": ("number", False, None, True),
    "number": ("number", True, None, True),
    "displayId": ("string", True, None, True),
    "projectName": ("string", False, None, True),
    "organizationSlug": ("string", False, None, True),
    "url": ("string", False, None, True),
    "resumed": ("boolean", False, None, True),
    "forkedFromRunId": ("number", True, None, False),
    "forkStep": ("number", True, None, False),
}


@pytest.fixture(scope="module")
def document(server: LocalServer) -> dict[str, Any]:
    return requests.get(server.url + "/api/openapi.json", timeout=TIMEOUT).json()


def table(schema: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    return {
        name: (field["type"], field.get("nullable", False), field.get("minLength"), name in schema["required"])
        for name, field in schema["properties"].items()
    }


def test_create_request(document: dict[str, Any]) -> None:
    """The request body has the published fields in the published order."""
    operation = document["paths"]["/api/runs/create"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert schema["type"] == "object"
    assert table(schema) == CREATE_RUN
    assert list(schema["properties"]) == list(CREATE_RUN)
    assert schema["properties"]["tags"]["items"] == {"type": "string"}
    assert all(field["description"] for field in schema["properties"].values())
    assert operation["security"] == [{"bearerAuth": []}]
    assert {"200", "400", "401", "500"} <= set(operation["responses"])


def test_create_responses(document: dict[str, Any]) -> None:
    """The responses have the published schemas."""
    schemas = document["components"]["schemas"]
    assert table(schemas["CreateRunResponse"]) == RESPONSE
    assert schemas["Error"] == {
        "type": "object",
        "properties": {"error": {"type": "string"}},
        "required": ["error"],
    }
    assert document["components"]["securitySchemes"] == {
        "bearerAuth": {"type": "http", "scheme": "bearer", "bearerFormat": "API Key"}
    }
    responses = document["paths"]["/api/runs/create"]["post"]["responses"]
    expected = {"$ref": "#/components/schemas/CreateRunResponse"}
    assert responses["200"]["content"]["application/json"]["schema"] == expected


def test_bodies(document: dict[str, Any]) -> None:
    """Every endpoint with a body documents the answers to a body that is invalid, late or too large."""
    for path, methods in document["paths"].items():
        for operation in methods.values():
            if "requestBody" in operation:
                assert {"400", "408", "413", "500", "503"} <= set(operation["responses"]), path
    lines = document["paths"]["/ingest/data"]["post"]["requestBody"]["content"]["application/x-ndjson"]["schema"]
    assert lines["properties"]["logName"]["maxLength"] == NAME_LIMIT


def test_document_is_complete(document: dict[str, Any], server: LocalServer) -> None:
    """Every reference resolves, and every endpoint but the pages and the document itself is in the document."""
    assert document["openapi"] == "3.0.0"
    assert document["servers"] == [{"url": server.url}]

    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if "$ref" in value else []
            return own + [ref for each in value.values() for ref in references(each)]
        return [ref for each in value for ref in references(each)] if isinstance(value, list) else []

    names = {ref.removeprefix("#/components/schemas/") for ref in references(document)}
    assert names <= set(document["components"]["schemas"])
    operations = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    declared = [each for group in GROUPS if group is not PageRoutes for each in group.endpoints()]
    assert operations == {(each.method, each.template) for each in declared} - {("GET", "/api/openapi.json")}
