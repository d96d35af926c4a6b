"""HTTP responses, with errors in the three shapes of the hosted tracker.

A ``{"error": text}``; B ``{"error": "Unauthorized", "message": text}``; C ``{"success": false,
"error": {"issues": [...], "name": "ZodError"}}``, where ``error`` is an object.
"""

from __future__ import annotations

import json

from starlette.responses import JSONResponse, PlainTextResponse, Response

from pluto_dist.contract.validation import Issue, Json

_ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"))


class ResponseError(Exception):
    """Ends the handling of a request with this response."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


class AsciiJSONResponse(JSONResponse):
    """JSON in ASCII. Text that UTF-8 cannot encode (a lone surrogate in a document) is escaped."""

    def render(self, content: Json) -> bytes:
        return _ENCODER.encode(content).encode("ascii")


def error_response(status: int, message: str) -> Response:
    """An error in shape A."""
    return AsciiJSONResponse({"error": message}, status)


def unauthorized_response(message: str | None = None) -> Response:
    """401 in shape B; without a message in shape A."""
    body = {"error": "Unauthorized", "message": message}
    return AsciiJSONResponse({k: v for k, v in body.items() if v is not None}, 401)


def validation_response(issues: tuple[Issue, ...]) -> Response:
    """400 in shape C."""
    error = {"issues": [issue.to_json() for issue in issues], "name": "ZodError"}
    return AsciiJSONResponse({"success": False, "error": error}, 400)


def not_found_response() -> Response:
    """404 in plain text: no route has this path and method."""
    return PlainTextResponse("404 Not Found", 404)
