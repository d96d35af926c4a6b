"""RANK and WORLD_SIZE alone: both, or an error."""

from __future__ import annotations

import pytest

from environments.contradictions import assert_is_rejected

CONTRADICTIONS = {
    "bare RANK (a node's, say)": ({"RANK": "1"}, ("RANK is set", "torchrun")),
    "bare WORLD_SIZE": ({"WORLD_SIZE": "4"}, ("WORLD_SIZE is set", "RANK is not")),
    "bare RANK beyond the world": ({"RANK": "4", "WORLD_SIZE": "4"}, ("RANK is 4",)),
    "a number too long to convert": ({"RANK": "9" * 5000, "WORLD_SIZE": "9" * 5001}, ("RANK",)),
    "LOCAL_RANK beyond its node": (
        {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "1"},
        ("local_rank is 1", "local_world_size is 1"),
    ),
}


@pytest.mark.parametrize(("environ", "words"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_an_environment_that_contradicts_itself(environ, words):
    """A place that is unknown is an error with the variable and its value; it is never guessed."""
    assert_is_rejected(environ, words)
