"""The HTML pages: all projects, a project's runs, and one run. They are read-only and have no scripts.

Templates escape everything that clients sent, no file path is derived from it, and the
Content-Security-Policy forbids scripts, frames, forms and other origins.

A server on a loopback address serves the pages without a key, like TensorBoard and MLflow: its clients
have an account on the machine. A server that listens on other addresses, or was started with
``--private-pages``, requires HTTP Basic authentication with any user name and the API key as the password,
so that the key is never part of an address.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from pathlib import Path
from urllib.parse import unquote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from pluto_dist.contract.hardware import without_hardware
from pluto_dist.contract.validation import Json
from pluto_dist.server.db import display_id, run_queries
from pluto_dist.server.db.database import ORGANIZATION, InvalidKeyError
from pluto_dist.server.db.files import StoredFile
from pluto_dist.server.db.records import Attach, iso
from pluto_dist.server.openapi.schemas import Schema, in_query
from pluto_dist.server.pages.hardware import read_run, size
from pluto_dist.server.pages.logged_data import load_logged_data
from pluto_dist.server.routes import urls
from pluto_dist.server.routes.endpoint import Endpoint, Routes, Services
from pluto_dist.server.routes.runs import details_json

RUNS_ON_INDEX, RUNS_ON_PROJECT, ATTACHES_ON_PAGE, CONFIG_ROWS = 5, 500, 200, 1000


class _AnyText(Convertor[str]):
    """Like Starlette's ``path``, but matches line breaks, too, which a project's name may contain."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("any_text", _AnyText())
_HERE = Path(__file__).parent
_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}
_STATIC = {"pluto.css": "text/css; charset=utf-8", "icon.svg": "image/svg+xml"}


def _undocumented(path: str, summary: str, *parameters: Schema) -> Endpoint:
    return Endpoint("GET", path, summary, parameters=parameters, needs_key=False, in_document=False)


class PageRoutes(Routes):
    """The handlers of the pages and of their static files."""

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._is_private = services.settings.private_pages
        self._static = {name: (_HERE / "static" / name).read_bytes() for name in _STATIC}
        self._templates = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters["format_time"] = format_time
        self._templates.filters["format_size"] = size
        self._templates.globals["project_path"] = urls.project_path
        self._templates.globals["run_path"] = urls.run_path

    @_undocumented("/", "All projects")
    async def index(self, request: Request) -> Response:
        organization = self._authorize(request)
        if organization is None:
            return _unauthorized()
        projects = run_queries.list_projects(self._database, organization, RUNS_ON_INDEX)
        return self._page("index.html", organization=organization, projects=projects)

    @_undocumented("/static/{name}", "A static file of the pages")
    async def static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _STATIC:
            return PlainTextResponse("404 Not Found", 404)
        return Response(self._static[name], media_type=_STATIC[name], headers={"cache-control": "public, max-age=300"})

    @_undocumented("/o/{rest:any_text}", "A project or a run", in_query("attempt"))
    async def below_organization(self, request: Request) -> Response:
        """``/o/{org}/projects/{project}[/{sqid}]``. Split before decoding: a project's name may contain a slash."""
        organization = self._authorize(request)
        if organization is None:
            return _unauthorized()
        parts = [unquote(part) for part in request.scope["raw_path"].decode("latin-1").split("/")[2:]]
        if len(parts) not in (3, 4) or parts[:2] != [organization, "projects"]:
            return self._not_found(organization)
        if len(parts) == 3:
            return self._project(organization, parts[2])
        return self._run(organization, *parts[2:], attempt=request.query_params.get("attempt", ""))

    def _project(self, organization: str, project: str) -> Response:
        found, total = run_queries.list_runs(self._database, organization, project, RUNS_ON_PROJECT)
        if not total:
            return self._not_found(organization)
        return self._page("project.html", organization=organization, project=project, runs=found, total=total)

    def _run(self, organization: str, project: str, sqid: str, *, attempt: str) -> Response:
        number = display_id.run_of_sqid(sqid)
        found = None if number is None else run_queries.details(self._database, organization, number)
        if found is None or found.project != project:
            return self._not_found(organization)
        config = flatten(without_hardware(found.config))
        documents = {
            "config": found.config,
            "systemMetadata": found.system_metadata,
            "loggerSettings": found.logger_settings,
            "statusMetadata": found.status_metadata,
        }
        return self._page(
            "run.html",
            organization=organization,
            run=found,
            config=config[:CONFIG_ROWS],
            config_more=max(0, len(config) - CONFIG_ROWS),
            hardware=read_run(details_json(found), int(attempt) if re.fullmatch("[0-9]{1,9}", attempt) else None),
            logged=load_logged_data(self._database, found.summary.id),
            file_path=self._file_path,
            attaches=_newest(found.attaches),
            documents=[(name, _pretty(value)) for name, value in documents.items() if value is not None],
        )

    def _file_path(self, file: StoredFile) -> str:
        return urls.download_url("", self._signer, file.id)

    def _not_found(self, organization: str) -> Response:
        return self._page("missing.html", 404, organization=organization)

    def _page(self, template: str, status: int = 200, **values: object) -> Response:
        page = self._templates.get_template(template).render(**values)
        return HTMLResponse(page.encode("utf-8", "replace"), status, headers=_HEADERS)

    def _authorize(self, request: Request) -> str | None:
        """The organization whose pages the client may see; ``None`` if it must authenticate."""
        if not self._is_private:
            return ORGANIZATION
        scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            _, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
            return self._database.organization_of(password)
        except (binascii.Error, UnicodeDecodeError, InvalidKeyError):
            return None


def format_time(at: int | None) -> str:
    """A time in milliseconds since 1970 as text, in UTC and to the second; empty for ``None``."""
    return "" if at is None else iso(at)[:19].replace("T", " ") + " UTC"


def flatten(document: Json) -> list[tuple[str, str]]:
    """A document as pairs of dotted key and text.

    >>> flatten({"lr": 0.1, "net": {"sizes": [1, 2]}, "empty": {}})
    [('lr', '0.1'), ('net.sizes', '[1, 2]'), ('empty', '{}')]
    """
    if not isinstance(document, dict):
        return [] if document is None else [("", _json_text(document))]
    pairs: list[tuple[str, str]] = []
    for key, value in document.items():
        if isinstance(value, dict) and value:
            pairs.extend((f"{key}.{path}", text) for path, text in flatten(value))
        else:
            pairs.append((key, _json_text(value)))
    return pairs


def _json_text(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _newest(attaches: tuple[Attach, ...]) -> tuple[Attach, ...]:
    return attaches[::-1][:ATTACHES_ON_PAGE]


def _pretty(value: Json) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _unauthorized() -> Response:
    return PlainTextResponse(
        "These pages need an API key: any user name, and the key as the password.",
        401,
        headers={**_HEADERS, "www-authenticate": 'Basic realm="pluto-dist", charset="UTF-8"'},
    )
