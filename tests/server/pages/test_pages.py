"""Pages: escaping, authentication and addresses."""

from __future__ import annotations

import html
import json
from urllib.parse import urlsplit

import pytest
import requests

from pluto_dist.server import LocalServer
from server.conftest import TIMEOUT, Client

SCRIPT = "<script>alert('x')</script>"


def test_pages_escape_and_forbid_scripts(client: Client) -> None:
    """Run name, project, tags, config keys and values, metadata and user agent are escaped; scripts are forbidden."""
    run = client.create_run(
        f"p {SCRIPT}",
        SCRIPT,
        runName=SCRIPT,
        tags=[SCRIPT],
        config=json.dumps({SCRIPT: SCRIPT, "deep": {SCRIPT: [SCRIPT]}}),
        systemMetadata=json.dumps(
            {
                "nodes": [{"host": SCRIPT, "gpus": [SCRIPT], "bad": {SCRIPT: SCRIPT}, "hidden": [SCRIPT]}],
                "drift": [{"field": SCRIPT, "usual": SCRIPT, "nodes": {SCRIPT: SCRIPT}, "more": SCRIPT}],
                "cluster": {"drift": SCRIPT},
            }
        ),
    )
    client.session.headers["User-Agent"] = SCRIPT
    client.create_run(f"p {SCRIPT}", SCRIPT)
    for url in (run["url"], run["url"].rsplit("/", 1)[0], client.url + "/"):
        page = client.session.get(url, timeout=TIMEOUT)
        assert page.status_code == 200
        assert "<script" not in page.text.lower()
        assert "&lt;script&gt;" in page.text
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "script-src" not in policy
        assert "unsafe" not in policy
        assert page.headers["X-Frame-Options"] == "DENY"
        assert page.headers["Referrer-Policy"] == "no-referrer"
    assert "Access-Control-Allow-Origin" not in page.headers


def test_private_pages_require_the_key() -> None:
    """Private pages require HTTP Basic authentication with the key as the password."""
    with LocalServer(private_pages=True) as server, requests.Session() as session:
        session.trust_env = False
        run = session.post(
            server.url + "/api/runs/create",
            json={"runName": "secret-run", "projectName": "p"},
            headers={"Authorization": f"Bearer {server.api_key}"},
            timeout=TIMEOUT,
        ).json()
        for path in ("/", "/o/local-org/projects/p", urlsplit(run["url"]).path):
            for auth in (None, ("any", "mlps_wrong"), (server.api_key, "")):
                rejected = session.get(server.url + path, auth=auth, timeout=TIMEOUT)
                assert rejected.status_code == 401
                assert rejected.headers["WWW-Authenticate"].startswith("Basic ")
                assert "secret-run" not in rejected.text
            accepted = session.get(server.url + path, auth=("any", server.api_key), timeout=TIMEOUT)
            assert accepted.status_code == 200
            assert "secret-run" in accepted.text
            assert server.api_key not in accepted.text
        for invalid in ("Basic", "Basic !!!", "Basic /w==", f"Bearer {server.api_key}"):
            header = {"Authorization": invalid}
            assert session.get(server.url + "/", headers=header, timeout=TIMEOUT).status_code == 401


@pytest.mark.parametrize("name", ["a/b", "a b", "ü", "%2F", "?", "#", "", " ", "a\\b", "a\nb", "x" * 255, "'\"&"])
def test_url_of_any_project_name(client: Client, name: str) -> None:
    """The URL in the create response opens the run's page, whatever the project's name."""
    run = client.create_run(name, runName="the run of Ω", config='{"deep":' * 399 + "1" + "}" * 399)
    page = client.session.get(run["url"], timeout=TIMEOUT)
    assert page.status_code == 200
    assert "the run of Ω" in page.text
    listing = client.session.get(run["url"].rsplit("/", 1)[0], timeout=TIMEOUT)
    assert listing.status_code == 200
    assert run["displayId"] in html.unescape(listing.text)


def test_unknown_pages(client: Client, project: str) -> None:
    """Pages of unknown projects, runs and organizations are answered 404."""
    run = client.create_run(project)
    sqid = run["url"].rsplit("/", 1)[1]
    for path in (
        "/o/local-org/projects/none",
        f"/o/local-org/projects/none/{sqid}",
        f"/o/local-org/projects/{project}/!!",
        f"/o/other/projects/{project}/{sqid}",
        "/o/local-org",
        "/o/",
    ):
        assert client.get(path).status_code == 404
