"""The application: unknown paths and organizations.

The contract of the single endpoints is in ``tests/server/contract``; whether they need the key is tested in
``tests/server/routes/test_endpoint.py``.
"""

from __future__ import annotations

import pytest

from server.conftest import TIMEOUT, Client

CREATE = "/api/runs/create"


UNKNOWN = [
    ("PUT", CREATE),
    ("POST", CREATE + "/"),
    ("POST", "/api/runs/auth/validate"),
    ("GET", "/api/slug"),
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
