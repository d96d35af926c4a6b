"""Validates documents against their published JSON schema."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator

SCHEMA: dict[str, Any] = json.loads((files("pluto_dist.inventory.report") / "cluster.schema.json").read_text())
_VALIDATOR = Draft202012Validator(SCHEMA)


def violations(document: dict[str, Any]) -> list[str]:
    """The violations of the schema in ``document``, with their paths."""
    return [f"{error.json_path}: {error.message:.200}" for error in _VALIDATOR.iter_errors(document)]
