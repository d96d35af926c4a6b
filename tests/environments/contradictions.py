"""The check of every launcher whose variables contradict each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest

from pluto_dist.environments import detect
from pluto_dist.errors import LauncherError


def assert_is_rejected(environ: Mapping[str, str], words: Iterable[str]) -> None:
    """Detection is an error with ``words``, and with what to do on its last line."""
    with pytest.raises(LauncherError) as caught:
        detect(environ)
    assert all(each in str(caught.value) for each in words), str(caught.value)
    assert "\n" in str(caught.value)
