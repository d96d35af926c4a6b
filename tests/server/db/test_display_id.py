"""Display ids, and the sqids in the addresses of pages."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pluto_dist.server.db import display_id
from server.conftest import Client

PREFIXES = [
    ("my-ml-project", "MMP"),
    ("training", "TRA"),
    ("image-classification", "ICL"),
    ("resnet-50", "R50"),
    ("a", "A"),
    ("a-b", "AB"),
    ("one two three four five", "OTTF"),
    ("one_two.three\tfour", "OTTF"),
    ("", "RUN"),
    (" ", "RUN"),
    ("-_. ", "RUN"),
    ("--digits--", "DIG"),
    ("ﬃ ﬃ ﬃ ﬃ ﬃ", "FFIF"),
    ("Ωmega", "ΩME"),
]


@pytest.mark.parametrize(("project", "prefix"), PREFIXES)
def test_prefixes(project: str, prefix: str) -> None:
    assert display_id.prefix_of(project) == prefix


@given(st.text(max_size=255))
def test_every_project_has_a_usable_prefix(project: str) -> None:
    """A prefix has one to four characters and no separator, so a display id can be parsed again."""
    prefix = display_id.prefix_of(project)
    assert 1 <= len(prefix) <= 4
    assert not set(prefix) & set("-_. \t")
    parsed = display_id.parse(display_id.display_id(prefix, 17))
    assert parsed == (prefix.upper(), 17)


@given(st.integers(min_value=0, max_value=2**53))
def test_sqids_round_trip(run: int) -> None:
    assert display_id.run_of_sqid(display_id.sqid_of_run(run)) == run


@given(st.text(max_size=20))
@example("000000000000")  # decodes to more than 64 bits
def test_other_text_is_no_sqid(text: str) -> None:
    run = display_id.run_of_sqid(text)
    assert run is None or display_id.sqid_of_run(run) == text


@pytest.mark.parametrize("text", ["", "MMP", "MMP-", "-1", "MMP-x", "MMP-1 ", "MMP-\u0661", "MMP--"])
def test_text_that_is_no_display_id(text: str) -> None:
    assert display_id.parse(text) is None


def test_runs_are_numbered_per_project(client: Client) -> None:
    created = [client.create_run(name)["displayId"] for name in ("count-me", "count-me", "count-you", "count-me")]
    assert created == ["CME-1", "CME-2", "CYO-1", "CME-3"]
