"""JSON documents of a run (config, systemMetadata, ...): parsing, storing and merging.

Pure functions. A document is sent and stored as a string. What is stored is what the hosted tracker
stores, which is written in JavaScript over Postgres.

>>> merge({"lr": 1, "net": {"depth": 2, "sizes": [1, 2]}}, {"lr": None, "net": {"sizes": [3]}})
{'lr': None, 'net': {'depth': 2, 'sizes': [3]}}
>>> inherit_config({"a": 1, "net": {"x": 1}}, {"net": {"y": 2}})
{'a': 1, 'net': {'y': 2}}
"""

from __future__ import annotations

import json
import math

from pluto_dist.contract.validation import Json, merged, parse_document
from pluto_dist.server.settings import LARGEST_INTEGER

DEPTH_LIMIT = 400


class DepthError(ValueError):
    """The document is nested too deep to be merged and shown."""


def parse(text: str | None) -> Json:
    """The value to store for a received document; ``None`` for absent, empty and ``null``.

    Raises:
        DepthError: it is nested deeper than ``DEPTH_LIMIT``.
        ValueError: it is not JSON.
    """
    return _as_stored(parse_document(text), 0) if text else None


def dump(value: Json) -> str | None:
    """The text to write to the database: ASCII JSON, or SQL NULL for null."""
    return None if value is None else json.dumps(value, separators=(",", ":"))


def load(text: str | None) -> Json:
    return None if text is None else json.loads(text)


def merge(stored: Json, update: Json) -> Json:
    """``update`` merged into ``stored`` at every depth: the update wins, lists are replaced, null overwrites.

    At the top, a list or a string counts as an object with its indices as keys, and every other value as an empty
    object, as in JavaScript.

    >>> merge([1, 2], {"a": 1})
    {'0': 1, '1': 2, 'a': 1}
    """
    return merged(_as_object(stored), _as_object(update))


def inherit_config(parent: Json, own: Json) -> Json:
    """The config of a fork: the parent's, updated with the fork's own at the top level only."""
    if own is None:
        return parent
    return {**parent, **own} if isinstance(parent, dict) and isinstance(own, dict) else own


def inherit_tags(parent: tuple[str, ...], own: tuple[str, ...]) -> tuple[str, ...]:
    """The tags of a fork: the parent's and its own without duplicates; its own ``group:`` tag replaces the parent's."""
    if any(tag.startswith("group:") for tag in own):
        parent = tuple(tag for tag in parent if not tag.startswith("group:"))
    return tuple(dict.fromkeys((*parent, *own)))


def _as_object(value: Json) -> dict[str, Json]:
    if isinstance(value, (list, str)):
        return {str(index): item for index, item in enumerate(value)}
    return value if isinstance(value, dict) else {}


def _as_stored(value: Json, depth: int) -> Json:
    if depth > DEPTH_LIMIT:
        raise DepthError(f"nested deeper than {DEPTH_LIMIT} levels")
    if isinstance(value, dict):
        return {k: _as_stored(v, depth + 1) for k, v in value.items() if k != "__proto__"}
    if isinstance(value, list):
        return [_as_stored(v, depth + 1) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
        return float(value) if abs(value) < 10**308 else None
    return value
