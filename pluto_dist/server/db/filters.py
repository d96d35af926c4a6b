"""The question that the SDK's ``list_runs(filters=...)`` asks, and whether a run answers it.

Boolean nodes ``$and``, ``$or``, ``$not`` over leaves ``{field: value}`` or ``{field: {"$gt": value}}``. Pure: a run
comes in as a mapping from field to value. ``$regex`` is refused: a pattern of a stranger's can keep Python's
matcher busy for hours, and ``search`` finds a part of a name.

>>> run = {"status": "FAILED", "tags": ["ddp"], "config": {"lr": 0.1}}
>>> holds({"$and": [{"state": "failed"}, {"config.lr": {"$lt": 1}}, {"tags": "ddp"}]}, run.get, lambda name: None)
True
"""

from __future__ import annotations

from collections.abc import Callable

from pluto_dist.contract.validation import Json

DEPTH_LIMIT = 20
Fact = Callable[[str], Json]

_NAMES = {
    "state": "status",
    "heartbeat_at": "heartbeatAt",
    "created_at": "createdAt",
    "updated_at": "updatedAt",
    "displayName": "name",
    "display_name": "name",
}
_FIELDS = frozenset({"status", "heartbeatAt", "createdAt", "updatedAt", "name", "tags"})
_DOCUMENTS = ("config", "systemMetadata")
_SUMMARIES = ("summaryMetrics.", "summary_metrics.")
_STATES = {
    "running": "RUNNING",
    "finished": "COMPLETED",
    "crashed": "FAILED",
    "killed": "TERMINATED",
}


class FilterError(ValueError):
    """A question that this server does not understand."""


def holds(node: Json, fact: Fact, metric: Callable[[str], float | None], depth: int = 0) -> bool:
    """Whether a run answers the question; ``fact`` tells its fields, ``metric`` the last value of a metric.

    Raises:
        FilterError: the question has an unknown word, or is nested too deep.
    """
    if not isinstance(node, dict) or depth > DEPTH_LIMIT:
        raise FilterError("a filter must be an object, nested at most 20 deep")
    answers = []
    for key, value in node.items():
        if key in ("$and", "$or"):
            if not isinstance(value, list):
                raise FilterError(f"{key} expects a list")
            below = [holds(child, fact, metric, depth + 1) for child in value]
            answers.append(all(below) if key == "$and" else any(below))
        elif key == "$not":
            answers.append(not holds(value, fact, metric, depth + 1))
        elif key.startswith("$"):
            raise FilterError(f"unknown boolean operator: {key[:40]}")
        else:
            answers.append(_leaf(key, value, value_of(key, fact, metric)))
    return all(answers)


def value_of(field: str, fact: Fact, metric: Callable[[str], float | None]) -> Json:
    """What a run has under a field's name, ``None`` where it has nothing.

    Raises:
        FilterError: there is no such field.
    """
    name = _NAMES.get(field, field)
    if name in _FIELDS:
        return fact(name)
    for prefix in _SUMMARIES:
        if field.startswith(prefix):
            return metric(field.removeprefix(prefix))
    document, _, path = field.partition(".")
    if document not in _DOCUMENTS or not path:
        raise FilterError(f"unknown field: {field[:80]}")
    found = _within(fact(document), path)
    return _within(fact(document), path.removesuffix(".value")) if found is None else found


def _within(value: Json, path: str) -> Json:
    """The value at a dotted path; a key that has dots itself goes first."""
    if not isinstance(value, dict):
        return None
    if path in value:
        return value[path]
    first, _, rest = path.partition(".")
    return _within(value.get(first), rest) if rest else None


def _leaf(field: str, wanted: Json, found: Json) -> bool:
    operators = wanted if isinstance(wanted, dict) and any(key.startswith("$") for key in wanted) else {"$eq": wanted}
    is_status = _NAMES.get(field, field) == "status"
    for operator, value in operators.items():
        if operator not in _OPERATORS:
            hint = "; use search to look for a part of a name" if operator == "$regex" else ""
            raise FilterError(f"unknown operator {operator[:40]} on {field[:80]}{hint}")
        if operator in ("$in", "$nin") and not isinstance(value, list):
            raise FilterError(f"{operator} expects a list")
        meant = value if not is_status else [*map(_status, value)] if isinstance(value, list) else _status(value)
        if not _OPERATORS[operator](found, meant):
            return False
    return True


def _status(word: Json) -> Json:
    return _STATES.get(word.lower(), word.upper()) if isinstance(word, str) else word


def _equal(found: Json, value: Json) -> bool:
    return value in found if isinstance(found, list) and not isinstance(value, list) else bool(found == value)


def _among(found: Json, values: Json) -> bool:
    return any(_equal(found, value) for value in values)


def _ordered(compare: Callable[[Json, Json], bool]) -> Callable[[Json, Json], bool]:
    """An order holds between two numbers or two texts only, so never where a run has nothing."""

    def answer(found: Json, value: Json) -> bool:
        for kinds in ((int, float), (str,)):
            if isinstance(found, kinds) and isinstance(value, kinds):
                return compare(found, value)
        return False

    return answer


_OPERATORS: dict[str, Callable[[Json, Json], bool]] = {
    "$eq": _equal,
    "$ne": lambda found, value: not _equal(found, value),
    "$gt": _ordered(lambda found, value: bool(found > value)),
    "$gte": _ordered(lambda found, value: bool(found >= value)),
    "$lt": _ordered(lambda found, value: bool(found < value)),
    "$lte": _ordered(lambda found, value: bool(found <= value)),
    "$in": _among,
    "$nin": lambda found, values: not _among(found, values),
}
