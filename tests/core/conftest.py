"""Settings for this folder: hypothesis without time limits, for the first text that it makes takes seconds; and a
resolver that gives up soon."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("core", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("core")


@pytest.fixture(autouse=True, scope="session")
def quick_resolver() -> Iterator[None]:
    """torch 2.13's server asks for the name of each client; where nobody answers, that is 5 s now and then."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RES_OPTIONS", "timeout:1 attempts:1")
        yield
