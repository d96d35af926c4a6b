"""Settings of hypothesis for this folder: no time limits, for the first text that it makes takes seconds."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("core", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("core")
