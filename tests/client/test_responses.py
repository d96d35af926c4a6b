"""What of a tracker's answer is shown."""

from __future__ import annotations

import time

import pytest

from client.misbehaving import Misbehaving, reply, reply_json, run
from pluto_dist.client.tracker_client import TrackerClient
from pluto_dist.contract.run_requests import CreateRunRequest, CreateRunResponse
from pluto_dist.contract.secret import Secret
from pluto_dist.errors import TrackerError

ESCAPE, SHOWN = "\x1b]0;gone\x07\x9b\u202e\n", "\\x1b]0;gone\\x07\\x9b\\u202e\\n"


def created(server: Misbehaving) -> CreateRunResponse:
    client = TrackerClient(server.url, server.url, Secret("mlps_k"), user_agent="test")
    try:
        request = CreateRunRequest("ddp", "digits", "job-7")
        return client.create(request, deadline=time.monotonic() + 30, retry=False)
    finally:
        client.close()


def test_names_and_addresses_are_readable():
    """Scripts print them; the project's name is as it was sent, for it is sent again."""
    with Misbehaving(run(displayId=ESCAPE, url=ESCAPE, organizationSlug=ESCAPE, projectName=ESCAPE)) as server:
        answer = created(server)
    assert (answer.display_id, answer.url, answer.organization_slug) == (SHOWN, SHOWN, SHOWN)
    assert answer.project_name == ESCAPE


@pytest.mark.parametrize(
    "answer",
    [
        reply_json({"error": ESCAPE}, 400),
        reply_json({"error": ESCAPE}, 401),
        reply_json({"error": ESCAPE}, 500),
        reply(200, ESCAPE.encode()),
        reply_json({"runId": ESCAPE}),
        reply(302, Location="http://x/\x1b[2J"),
    ],
    ids=["400", "401", "500", "no JSON", "another shape", "a redirect"],
)
def test_errors_are_readable(answer):
    """Whatever the tracker says, an error's text has no control character but line breaks."""
    with Misbehaving(answer) as server, pytest.raises(TrackerError) as caught:
        created(server)
    assert all(character.isprintable() or character == "\n" for character in str(caught.value))
