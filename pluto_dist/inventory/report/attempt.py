"""The hardware of a later attempt, as its record in the run's config has it, within a budget. Pure.

The first attempt's is the run's ``systemMetadata``, which the tracker keeps for good.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pluto_dist.contract.hardware import FIELD, difference
from pluto_dist.inventory.report import truncate
from pluto_dist.inventory.report.document import BUDGET, to_text
from pluto_dist.serialization.codec import Json


def hardware(document: Mapping[str, Json], first: Json, others: Mapping[str, Any]) -> list[Json]:
    """What the record of an attempt has under ``hardware``: what differs from the first attempt's document.

    All records together keep to ``BUDGET``: each has at most half of what the others leave, and is reduced to it as a
    whole document is (see ``truncate``).

    Args:
        document: of this attempt.
        first: the run's ``systemMetadata``, as the tracker has it.
        others: the records of the other attempts, by key.
    """
    stored = json.loads(to_text(document))  # as the tracker returns it
    return [truncate.fit(difference(first, stored), _left(others) // 2, lambda value: len(to_text(value)))]


def _left(others: Mapping[str, Any]) -> int:
    records = [record for record in others.values() if isinstance(record, dict)]
    return max(0, BUDGET - sum(len(json.dumps(record[FIELD])) for record in records if FIELD in record))
