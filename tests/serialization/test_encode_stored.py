"""What the tracker stores of a config is what ``encode`` made of it."""

from __future__ import annotations

import json

import requests

from pluto_dist.contract.run_requests import CreateRunRequest
from pluto_dist.serialization.encode import encode
from pluto_dist.server import LocalServer
from serialization.test_encode import CASES


def test_the_tracker_stores_what_was_encoded():
    """Every value of the table comes back from the tracker as it was sent."""
    encoded = encode({case.id: case.value for case in CASES})
    with LocalServer() as server, requests.Session() as session:
        session.trust_env = False
        session.headers["Authorization"] = f"Bearer {server.api_key}"
        request = CreateRunRequest("values", "values", config=json.dumps(encoded.value))
        made = session.post(f"{server.url}/api/runs/create", json=request.to_json(), timeout=10).json()
        stored = session.get(f"{server.url}/api/runs/details/{made['runId']}", timeout=10).json()["config"]
    assert stored == encoded.value
    assert len(stored) == len(CASES) > 100
