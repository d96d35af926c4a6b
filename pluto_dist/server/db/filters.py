"""Evaluation of the filters that the SDK's ``list_runs(filters=...)`` sends.

A filter has boolean nodes ``$and``, ``$or``, ``$not`` over leaves ``{field: value}`` or
``{field: {"$gt": value}}``. ``$regex`` is not supported: a client's pattern can keep Python's matcher busy
for hours, and the parameter ``search`` finds parts of names.

>>> run = {"status": "FAILED", "tags": ["ddp"], "config": {"lr": 0.1}}
>>> matches({"$and": [{"state": "failed"}, {"config.lr": {"$lt": 1}}, {"tags": "ddp"}]}, run.get, lambda name: None)
True
"""

from __future__ import annotations

from collections.abc import Callable

from pluto_dist.contract.validation import Json

DEPTH_LIMIT = 20
FieldLookup = Callable[[str], Json]  # the value of a field of a run
MetricLookup = Callable[[str], float | None]  # the last value of a metric of a run

_ALIASES = {
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
    """The filter or the sort has an unknown word or is malformed."""


def matches(node: Json, field: FieldLookup, metric: MetricLookup, depth: int = 0) -> bool:
    """Whether a run, given by its two lookup functions, matches the filter.

    Raises:
        FilterError: the filter has an unknown word or is nested too deep.
    """
    if not isinstance(node, dict) or depth > DEPTH_LIMIT:
        raise FilterError(f"a filter must be an object, nested at most {DEPTH_LIMIT} deep")
    results = []
    for key, value in node.items():
        if key in ("$and", "$or"):
            if not isinstance(value, list):
                raise FilterError(f"{key} expects a list")
            children = [matches(child, field, metric, depth + 1) for child in value]
            results.append(all(children) if key == "$and" else any(children))
        elif key == "$not":
            results.append(not matches(value, field, metric, depth + 1))
        elif key.startswith("$"):
            raise FilterError(f"unknown boolean operator: {key[:40]}")
        else:
            results.append(_leaf(key, value, field_value(key, field, metric)))
    return all(results)


def field_value(name: str, field: FieldLookup, metric: MetricLookup) -> Json:
    """The value of a run's field; ``None`` if the run has none.

    Raises:
        FilterError: there is no such field.
    """
    canonical = _ALIASES.get(name, name)
    if canonical in _FIELDS:
        return field(canonical)
    for prefix in _SUMMARIES:
        if name.startswith(prefix):
            return metric(name.removeprefix(prefix))
    document, _, path = name.partition(".")
    if document not in _DOCUMENTS or not path:
        raise FilterError(f"unknown field: {name[:80]}")
    found = _at_path(field(document), path)
    return _at_path(field(document), path.removesuffix(".value")) if found is None else found


def _at_path(value: Json, path: str) -> Json:
    """The value at a dotted path. A key that itself contains dots takes precedence."""
    if not isinstance(value, dict):
        return None
    if path in value:
        return value[path]
    first, _, rest = path.partition(".")
    return _at_path(value.get(first), rest) if rest else None


def _leaf(field: str, condition: Json, found: Json) -> bool:
    has_operators = isinstance(condition, dict) and any(key.startswith("$") for key in condition)
    operators = condition if has_operators else {"$eq": condition}
    is_status = _ALIASES.get(field, field) == "status"
    for operator, value in operators.items():
        if operator not in _OPERATORS:
            hint = "; use the parameter search to find a part of a name" if operator == "$regex" else ""
            raise FilterError(f"unknown operator {operator[:40]} on {field[:80]}{hint}")
        if operator in ("$in", "$nin") and not isinstance(value, list):
            raise FilterError(f"{operator} expects a list")
        operand = value
        if is_status:
            operand = [*map(_status, value)] if isinstance(value, list) else _status(value)
        if not _OPERATORS[operator](found, operand):
            return False
    return True


def _status(word: Json) -> Json:
    return _STATES.get(word.lower(), word.upper()) if isinstance(word, str) else word


def _equal(found: Json, value: Json) -> bool:
    return value in found if isinstance(found, list) and not isinstance(value, list) else bool(found == value)


def _is_in(found: Json, values: Json) -> bool:
    return any(_equal(found, value) for value in values)


def _ordered(compare: Callable[[Json, Json], bool]) -> Callable[[Json, Json], bool]:
    """Only two numbers or two strings are ordered; ``None`` never matches."""

    def is_ordered(found: Json, value: Json) -> bool:
        for kinds in ((int, float), (str,)):
            if isinstance(found, kinds) and isinstance(value, kinds):
                return compare(found, value)
        return False

    return is_ordered


_OPERATORS: dict[str, Callable[[Json, Json], bool]] = {
    "$eq": _equal,
    "$ne": lambda found, value: not _equal(found, value),
    "$gt": _ordered(lambda found, value: bool(found > value)),
    "$gte": _ordered(lambda found, value: bool(found >= value)),
    "$lt": _ordered(lambda found, value: bool(found < value)),
    "$lte": _ordered(lambda found, value: bool(found <= value)),
    "$in": _is_in,
    "$nin": lambda found, values: not _is_in(found, values),
}
