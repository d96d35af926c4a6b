"""Keys that are no texts, as the texts that stand for them.

>>> [key_text(key)[0] for key in (1, True, None, 0.5, ("a", 1))]
['1', 'true', 'null', '0.5', '(a, 1)']
"""

from __future__ import annotations

import json
from typing import Any

from pluto_dist.serialization.adapters import node
from pluto_dist.serialization.safe_access import described, is_a, take
from pluto_dist.serialization.types import ARRAY_LIMIT, Leaf

_DEPTH_LIMIT = 5


def key_text(key: Any, depth: int = 0) -> tuple[str, str | None]:
    """What ``json.dumps`` would make of ``key``, for every other key a text of its own; and what was lost."""
    if type(key) is str:
        return key, None
    if is_a(key, tuple, frozenset) and depth < _DEPTH_LIMIT:
        inner, raised = take(key, ARRAY_LIMIT + 1)
        if len(inner) <= ARRAY_LIMIT and not raised:
            parts = [key_text(part, depth + 1) for part in inner]
            texts = [text for text, _ in parts] if is_a(key, tuple) else sorted(text for text, _ in parts)
            return f"({', '.join(texts)})", next((loss for _, loss in parts if loss), None)
    leaf = node(key)
    if not isinstance(leaf, Leaf):
        leaf = described(key)
    text = leaf.value if isinstance(leaf.value, str) else json.dumps(leaf.value)
    return text, None if is_a(key, int, float) else leaf.loss
