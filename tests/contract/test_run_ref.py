"""Ids of runs: how they are read, and which no run can have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.picky import status_for
from pluto_dist.contract.run_ref import RunName, impossible, reference, resume_request
from pluto_dist.contract.storable import body_of

TABLE = {
    "JOB-20261128093000": "read as a display id",
    "A-2147483648": "above 2,147,483,647",
    "A-2147483647": None,
    "A-00000000000000000000007": None,
    "20261128093000": None,
    "20261128093000123456789": "read as the tracker's own number",
    "9007199254740991": None,
    "9007199254740992": "above 9,007,199,254,740,991",
    "0" * 5000 + "7": None,
    "9" * 5000: "read as the tracker's own number",
    "job-20261128093000": None,
    "x" * 255: None,
    "x" * 256: "has 256 characters",
    "a\0b": "NUL",
    "caf\udce9": "surrogate",
}


@pytest.mark.parametrize(("run_id", "why"), TABLE.items(), ids=lambda value: str(ascii(value))[:24])
def test_impossible_ids(run_id, why):
    """An id that no run can have, and why; dates are the usual ones."""
    found = impossible(run_id)
    assert why in found if why else found is None


@given(run_id=st.text(st.characters(exclude_categories=()), min_size=1) | st.from_regex(r"[A-Z0-9]{0,4}-?[0-9]{1,30}"))
def test_every_other_id_can_be_asked_for(run_id):
    """The hosted tracker has an answer about every id that is not impossible."""
    if impossible(run_id) is None:
        body = body_of(resume_request(RunName("http://x", "p", reference(run_id))))
        assert status_for(body) == 200


def test_a_folder_for_every_name():
    """Text that is no Unicode has a folder too: what an earlier version kept can be found."""
    assert len(RunName("http://x", "caf\udce9", reference("a")).folder) == 32
