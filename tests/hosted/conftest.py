"""Assertions in the checks show their values."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("hosted.checks")
