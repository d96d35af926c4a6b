"""Claims as they come back from a tracker: whatever is none is ignored, and of two launches one gives way."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluto_dist.contract import claims

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["claims", "alive", "a"]), inner),
    max_leaves=8,
)


@given(JSON)
def test_what_is_no_claim_is_ignored(value: Any):
    """No config, however odd, breaks a launch that reads it."""
    ours = {"claims": value}, {"claims": {"a": value}}, value
    for config in (value, *({"pluto_dist": each} for each in ours)):
        assert all(isinstance(each, dict) for each in claims.recorded(config).values())
        assert isinstance(claims.unanswered(config, "b"), list)
        assert claims.answered_by(config, "a") is None or isinstance(claims.answered_by(config, "a"), str)


@pytest.mark.parametrize("stored", [None, {}, {"pluto_dist": None}, {"pluto_dist": {"claims": {"b": None}}}])
def test_a_withdrawn_claim_is_none(stored: Any):
    assert claims.unanswered(stored, "a") == []
