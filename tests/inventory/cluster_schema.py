"""The published JSON schema of the document, as a reader of it would use it."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator

SCHEMA: dict[str, Any] = json.loads((files("pluto_dist.inventory.report") / "cluster.schema.json").read_text())
_VALIDATOR = Draft202012Validator(SCHEMA)


def violations(document: dict[str, Any]) -> list[str]:
    """What in ``document`` is not as the schema says, and where."""
    return [f"{error.json_path}: {error.message:.200}" for error in _VALIDATOR.iter_errors(document)]
