"""A document that is too large for the tracker loses its largest top-level values first.

>>> value, losses = fit({"lr": 0.1, "vocabulary": "x" * 2_000_000}, "config")
>>> value, [loss.key for loss in losses]
({'lr': 0.1, 'vocabulary': 'dropped: 2.0 MB'}, ['vocabulary'])
"""

from __future__ import annotations

import json

from pluto_dist.serialization.text import path_text
from pluto_dist.serialization.types import DOCUMENT_LIMIT, Json, Loss


def fit(document: dict[str, Json], argument: str) -> tuple[dict[str, Json], list[Loss]]:
    """``document`` within the limit of JSON text, and what that cost."""
    sizes = {key: len(json.dumps(value)) for key, value in document.items()}
    framing = sum(len(json.dumps(key)) + len(": , ") for key in document)
    total = framing + sum(sizes.values())
    if total <= DOCUMENT_LIMIT:
        return document, []
    kept, losses = dict(document), []
    for key in sorted(sizes, key=lambda key: -sizes[key]):
        note = f"dropped: {_amount(sizes[key])}"
        saved = sizes[key] - len(json.dumps(note))
        if total <= DOCUMENT_LIMIT or saved <= 0:
            break
        kept[key], total = note, total - saved
        losses.append(Loss(path_text([key]), f"dropped: a {argument} holds at most {_amount(DOCUMENT_LIMIT)} of JSON"))
    left_out = 0
    while total > DOCUMENT_LIMIT:
        key, value = kept.popitem()
        total -= len(json.dumps(key)) + len(": , ") + len(json.dumps(value))
        left_out += 1
    if left_out:
        losses.append(Loss(argument, f"its last {left_out:,} keys are left out: their names alone are too long"))
    return kept, losses


def _amount(size: int) -> str:
    for unit, name in ((1_000_000, "MB"), (1_000, "KB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} B"
