"""The application: API keys, unknown paths and organizations.

The contract of the single endpoints is in ``tests/server/contract``.
"""

from __future__ import annotations

import pytest
import requests

from pluto_dist.server import LocalServer
from server.conftest import TIMEOUT, Client

CREATE = "/api/runs/create"


PROTECTED = [
    ("POST", CREATE),
    ("POST", "/api/runs/resume"),
    ("POST", "/api/runs/status/update"),
    ("POST", "/api/runs/config/update"),
    ("POST", "/api/runs/trigger"),
    ("POST", "/api/slug"),
    ("GET", "/api/runs/details/1"),
    ("GET", "/api/runs/details/by-display-id/A-1"),
    ("GET", "/api/runs/list"),
    ("GET", "/api/runs/auth/validate"),
    ("POST", "/api/runs/tags/update"),
    ("POST", "/api/runs/logName/add"),
    ("POST", "/api/runs/alert"),
    ("POST", "/api/runs/modelGraph/create"),
    ("POST", "/ingest/metrics"),
    ("POST", "/ingest/logs"),
    ("POST", "/ingest/data"),
    ("POST", "/files"),
    ("GET", "/api/runs/projects"),
    ("GET", "/api/runs/metric-names"),
    ("GET", "/api/runs/metrics"),
    ("GET", "/api/runs/logs"),
    ("GET", "/api/runs/data"),
    ("GET", "/api/runs/files"),
    ("GET", "/api/runs/statistics"),
    ("GET", "/api/runs/compare"),
    ("GET", "/api/runs/leaderboard"),
]


@pytest.mark.parametrize(("method", "path"), PROTECTED, ids=str)
def test_every_route_requires_the_key(server: LocalServer, method: str, path: str) -> None:
    response = requests.request(method, server.url + path, timeout=TIMEOUT)
    assert (response.status_code, response.json()) == (401, {"error": "Unauthorized"})


UNKNOWN = [
    ("PUT", CREATE),
    ("POST", CREATE + "/"),
    ("POST", "/api/runs/auth/validate"),
    ("GET", "/api/slug"),
    ("GET", "/api/runs/no-sqid"),
    ("DELETE", "/"),
    ("GET", "/static/../app.py"),
]


@pytest.mark.parametrize(("method", "path"), UNKNOWN, ids=str)
def test_unknown_paths_and_methods_are_plain_404(client: Client, method: str, path: str) -> None:
    response = client.session.request(method, client.url + path, timeout=TIMEOUT)
    assert (response.status_code, response.text) == (404, "404 Not Found")


def test_organizations_are_separate(client: Client, other_organization: Client, project: str) -> None:
    """Equal projects and external ids of two organizations are different runs, which the other cannot access."""
    first = client.create_run(project, "job")
    second = other_organization.create_run(project, "job")
    assert (second["resumed"], second["number"], second["organizationSlug"]) == (False, 1, "other-org")
    assert second["runId"] != first["runId"]
    assert other_organization.get(f"/api/runs/details/{first['runId']}").status_code == 404
    assert other_organization.status(first["runId"], "FAILED").status_code == 404
    fork = other_organization.create(project, forkRunId=first["runId"], forkStep=1)
    assert fork.json() == {"error": "Fork parent run not found in this project"}
