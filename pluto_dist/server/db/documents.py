"""JSON documents of a run (config, systemMetadata, ...): reading, storing and merging them.

Pure functions on values. A document travels as a string and is stored as one; ``wire`` says what is
JSON at all, this module what becomes of it. The hosted server is written in JavaScript over
Postgres, which shows in what it stores, and so it does here.

>>> merged({"lr": 1, "net": {"depth": 2, "sizes": [1, 2]}}, {"lr": None, "net": {"sizes": [3]}})
{'lr': None, 'net': {'depth': 2, 'sizes': [3]}}
>>> inherited({"a": 1, "net": {"x": 1}}, {"net": {"y": 2}})
{'a': 1, 'net': {'y': 2}}
"""

from __future__ import annotations

import json
import math

from pluto_dist.contract.validation import Json, parse_document

DEPTH_LIMIT = 400
_EXACT = 2**53  # JavaScript keeps every number as a double


class DepthError(ValueError):
    """A document nested deeper than can be merged and shown."""


def read(text: str | None) -> Json:
    """The value to store for a document that arrived; ``None`` for absent, empty and ``null``.

    Raises:
        DepthError: it is nested deeper than ``DEPTH_LIMIT``.
        ValueError: it is not JSON.
    """
    return _as_stored(parse_document(text), 0) if text else None


def dump(value: Json) -> str | None:
    """What is written to the database: ASCII JSON, or SQL NULL for null."""
    return None if value is None else json.dumps(value, separators=(",", ":"))


def load(text: str | None) -> Json:
    return None if text is None else json.loads(text)


def merged(stored: Json, update: Json) -> Json:
    """``update`` laid over ``stored`` at every depth: later wins, lists are replaced, null overwrites.

    An update that is not an object changes nothing. A stored list becomes an object with its indices
    as keys, as measured on the hosted server.
    """
    if not isinstance(update, dict):
        return stored
    if isinstance(stored, list):
        stored = {str(index): value for index, value in enumerate(stored)}
    base: dict[str, Json] = stored if isinstance(stored, dict) else {}
    return _overlaid(base, update)


def inherited(parent: Json, own: Json) -> Json:
    """A fork's config: the parent's, with the fork's own keys over it, top level only."""
    if own is None:
        return parent
    return {**parent, **own} if isinstance(parent, dict) and isinstance(own, dict) else own


def inherited_tags(parent: tuple[str, ...], own: tuple[str, ...]) -> tuple[str, ...]:
    """A fork's tags: the parent's and its own, each once; its own ``group:`` tag replaces the parent's."""
    if any(tag.startswith("group:") for tag in own):
        parent = tuple(tag for tag in parent if not tag.startswith("group:"))
    return tuple(dict.fromkeys((*parent, *own)))


def _overlaid(base: dict[str, Json], update: dict[str, Json]) -> dict[str, Json]:
    out = dict(base)
    for key, value in update.items():
        old = out.get(key)
        out[key] = _overlaid(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return out


def _as_stored(value: Json, depth: int) -> Json:
    if depth > DEPTH_LIMIT:
        raise DepthError(f"nested deeper than {DEPTH_LIMIT} levels")
    if isinstance(value, dict):
        return {k: _as_stored(v, depth + 1) for k, v in value.items() if k != "__proto__"}
    if isinstance(value, list):
        return [_as_stored(v, depth + 1) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and abs(value) > _EXACT:
        return float(value) if abs(value) < 10**308 else None
    return value
