"""The record of each attempt of a job, and what changed since the one before.

Pure. The owner of an attempt writes one record into the run's config, under ``pluto_dist.attempts`` and a key of its
own. Configs are merged key by key, so records of two owners (observed after a split) stand side by side. What the
tracker returns is data: what is not a record is ignored.

>>> first = record({}, Attempt(launch="k3", started=0.0, world_size=4, hosts=["a", "b"], heartbeat=10))
>>> again = record({"x": first}, Attempt(launch="k3", started=60.0, world_size=2, hosts=["a", "c"], heartbeat=10))
>>> again["number"], again["joined"], again["left"]
(2, ['c'], ['b'])
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

FIELD = "attempts"
LATE = 0  # the number of an attempt whose record came after those of later launches
DATE_SECONDS = 1.0  # of the tracker's clock as it is read; launches that began within it are in order of their replay
CLOCK_SECONDS = 2.0  # by which times may differ that two hosts told by the tracker's clock
MOST_GPUS = 64  # whose UUIDs a record has


def key(started: float, host: str) -> str:
    """A key that no other attempt has, and that shows when it started (seconds since 1970) by the clock of ``host``.

    >>> key(0.0, "node-a")[:29]
    '1970-01-01T00:00:00.000Z 6657'
    """
    clock = hashlib.sha256(host.encode(errors="surrogateescape")).hexdigest()[:4]
    return f"{_iso(started, 'milliseconds')} {clock}{secrets.token_hex(2)}"


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is known of an attempt.

    Attributes:
        launch: the launch's token.
        started: seconds since 1970, by the tracker's clock if that is known.
        world_size: number of ranks.
        hosts: one name per node, in order of their numbers.
        heartbeat: seconds between two heartbeats.
        missing: number of nodes that had not called ``init()`` by then.
        failure: what ended the attempt before, if known.
        gpus: the UUIDs of each host's GPUs, if known.
    """

    launch: str
    started: float
    world_size: int
    hosts: Sequence[str]
    heartbeat: float
    missing: int = 0
    failure: Mapping[str, Any] | None = None
    gpus: Mapping[str, Sequence[str]] | None = None


def record(earlier: Mapping[str, Any], attempt: Attempt) -> dict[str, Any]:
    """The record of ``attempt``, which follows the records in ``earlier`` (by key).

    Of more than :data:`MOST_GPUS` GPUs it has a hash for each host instead of the UUIDs.
    """
    made: dict[str, Any] = {
        "number": 1,
        "launch": attempt.launch,
        "start": _iso(attempt.started, "milliseconds"),
        "world_size": attempt.world_size,
        "hosts": list(attempt.hosts),
        "heartbeat": attempt.heartbeat,
    }
    if attempt.missing:
        made["nodes_missing"] = attempt.missing
    if attempt.failure is not None:
        made["after_failure"] = dict(attempt.failure)
    if attempt.gpus:
        made["gpus"] = _bounded(attempt.gpus)
    return after(earlier, made)


def after(earlier: Mapping[str, Any], made: Mapping[str, Any]) -> dict[str, Any]:
    """``made``, a record that was made without knowing earlier ones, as the one that follows those in ``earlier``."""
    last = newest(earlier)
    if last is None:
        return dict(made)
    told = {**made, "number": last["number"] + 1} | _changes(last, made.get("world_size"), _hosts(made))
    return told | _gpu_changes(last.get("gpus"), made.get("gpus"))


def by_another_clock(made: Mapping[str, Any], offset: float) -> dict[str, Any]:
    """``made`` with its start by a clock that is ``offset`` seconds ahead of the one that told it.

    >>> by_another_clock({"start": "2026-11-28T09:30:00.000Z"}, -60.0)
    {'start': '2026-11-28T09:29:00.000Z'}
    """
    start = _start(made)
    return dict(made) if start is None else {**made, "start": _iso(start + offset, "milliseconds")}


def began_after(record: Mapping[str, Any], at: float | None) -> bool:
    """Whether an attempt began after a moment, in seconds since 1970, that another clock may have told.

    >>> began_after({"start": "1970-01-01T00:01:00Z"}, 50.0), began_after({"start": "1970-01-01T00:01:00Z"}, None)
    (True, False)
    """
    start = _start(record)
    return at is not None and start is not None and start - at > CLOCK_SECONDS


def is_late(earlier: Mapping[str, Any], key: str, made: Mapping[str, Any], *, is_alive: bool) -> bool:
    """Whether ``made``, the record of ``key``, is of an attempt before the last one in ``earlier``.

    A launch that was offline saw no record, so what is not on record of it is put in order by the times of their
    starts; attempts of one launch by their keys if the clock of one host told both, else only if they began
    :data:`CLOCK_SECONDS` apart. A launch that is alive comes last.

    >>> first, now, then, later = (f"2026-11-28T09:00:{seconds}Z" for seconds in ("00", "10", "11", "12"))
    >>> first, then, later = ({"number": 1, "launch": "b", "start": at} for at in (first, then, later))
    >>> def late(last, launch, clock="aaaa", is_alive=False):
    ...     made = {"launch": launch, "start": now}
    ...     return is_late({f"{last['start']} aaaa0001": last}, f"{now} {clock}0002", made, is_alive=is_alive)
    >>> late(later, "a"), late(later, "a", is_alive=True), late(then, "a")
    (True, False, False)
    >>> late(then, "b"), late(then, "b", clock="bbbb"), late(first, "b")
    (True, False, False)
    """
    last, mine = newest(earlier), str(made.get("launch"))
    if last is None:
        return False
    if last.get("launch") == mine and _clock(last["key"]) == _clock(key):
        return str(last["key"]) > key
    then, now = _start(last), _start(made)
    seconds = 0.0 if then is None or now is None else then - now  # by which the last one began later
    if last.get("launch") == mine:
        return seconds > CLOCK_SECONDS
    return not is_alive and (has_launch(earlier, mine) or seconds > DATE_SECONDS)


def _clock(key: str) -> str:
    """Names the host whose clock told a key; all that earlier versions made have one name."""
    return key.partition(" ")[2][:-4]


def has_gone_on(records: Mapping[str, Any], *, launch: str | None = None, key: str | None = None) -> bool:
    """Whether the run has gone on with a later attempt than those of ``launch``, or than that of ``key``.

    One of the same number began at the same moment: one of the two launches will leave the run.

    >>> records = {"x": {"number": 1, "launch": "a"}, "y": {"number": 1, "launch": "b"}}
    >>> has_gone_on(records, launch="a"), has_gone_on(records | {"z": {"number": 2}}, key="x")
    (False, True)
    """
    known = in_order(records)
    mine = [each["number"] for each in known if each["key"] == key or (launch and each.get("launch") == launch)]
    return bool(known) and (not mine or known[-1]["number"] > max(mine))


def twins(records: Mapping[str, Any], launch: str) -> list[str]:
    """Keys of the attempts of this launch that began at the same moment as another launch's, and have its number.

    >>> twins({"a": {"number": 1, "launch": "x"}, "b": {"number": 1, "launch": "y"}}, "y")
    ['b']
    >>> twins({"a": {"number": 1, "launch": "x"}, "b": {"number": 2, "launch": "y"}}, "y")
    []
    """
    entries = in_order(records)
    others = {entry["number"] for entry in entries if entry.get("launch") != launch} - {LATE}
    return [entry["key"] for entry in entries if entry.get("launch") == launch and entry["number"] in others]


def has_launch(records: Mapping[str, Any], launch: str) -> bool:
    """Whether an attempt of this launch, named by its token, is on record."""
    return any(entry.get("launch") == launch for entry in in_order(records))


def _bounded(gpus: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """UUIDs by host if there are few; else a short hash for each host, which changes with them."""
    if sum(map(len, gpus.values())) <= MOST_GPUS:
        return {host: sorted(uuids) for host, uuids in gpus.items()}
    return {host: hashlib.sha256("\n".join(sorted(uuids)).encode()).hexdigest()[:8] for host, uuids in gpus.items()}


def _gpu_changes(before: Any, now: Any) -> dict[str, Any]:
    """Which GPUs came and went on hosts that stayed; the hosts, if their GPUs are known by a hash alone.

    >>> _gpu_changes({"a": ["GPU-1", "GPU-2"], "b": "12ab"}, {"a": ["GPU-2", "GPU-3"], "b": "34cd"})
    {'gpus_joined': {'a': ['GPU-3']}, 'gpus_left': {'a': ['GPU-1']}, 'gpus_changed': ['b']}
    """
    if not isinstance(before, dict) or not isinstance(now, dict):
        return {}
    joined, left, changed = {}, {}, []
    for host in now.keys() & before.keys():
        old, new = before[host], now[host]
        if isinstance(old, list) and isinstance(new, list):
            joined[host] = [uuid for uuid in new if uuid not in old]
            left[host] = [uuid for uuid in old if uuid not in new]
        elif old != new:
            changed.append(host)
    lists = {"gpus_joined": joined, "gpus_left": left}
    found: dict[str, Any] = {name: {h: ids for h, ids in told.items() if ids} for name, told in lists.items()}
    return {name: told for name, told in {**found, "gpus_changed": sorted(changed)}.items() if told}


def _changes(last: Mapping[str, Any], world_size: object, hosts: Sequence[str]) -> dict[str, Any]:
    before = _hosts(last)
    changes: dict[str, Any] = {
        "joined": [host for host in dict.fromkeys(hosts) if host not in before],
        "left": [host for host in dict.fromkeys(before) if host not in hosts],
    }
    if (size := last.get("world_size")) != world_size:
        changes["world_size_before"] = size
    return changes


def newest(records: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record of the last attempt, with its key as ``key``; ``None`` if there is no record."""
    return next(reversed(in_order(records)), None)


def in_order(records: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The records of all attempts, each with its key as ``key``, the oldest first."""
    known = [{**entry, "key": name} for name, entry in records.items() if _is_record(entry)]
    return sorted(known, key=lambda entry: (entry["number"], entry["key"]))


def recorded(config: Any) -> dict[str, Any]:
    """The records in a run's config; of one that was taken back ``null`` is left.

    >>> recorded({"pluto_dist": {"attempts": {"x": {"number": 1}, "y": None}}}), recorded([1])
    ({'x': {'number': 1}}, {})
    """
    return {key: entry for key, entry in ours(config, FIELD).items() if entry is not None}


def ours(config: Any, field: str) -> dict[str, Any]:
    """The object under ``pluto_dist`` and ``field`` in a run's config; empty if there is none."""
    section = config.get("pluto_dist") if isinstance(config, dict) else None
    found = section.get(field) if isinstance(section, dict) else None
    return found if isinstance(found, dict) else {}


def _start(record: Mapping[str, Any]) -> float | None:
    """When the attempt began, seconds since 1970; ``None`` if the record does not say so."""
    try:
        return datetime.fromisoformat(str(record.get("start")).replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError):
        return None


def _is_record(entry: Any) -> bool:
    return isinstance(entry, dict) and type(entry.get("number")) is int


def _hosts(entry: Mapping[str, Any]) -> list[str]:
    hosts = entry.get("hosts")
    return [host for host in hosts if isinstance(host, str)] if isinstance(hosts, list) else []


def _iso(seconds: float, precision: str = "seconds") -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec=precision).replace("+00:00", "Z")
