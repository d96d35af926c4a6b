"""``pluto-dist show``: one run: status and why, attempts, nodes, config, metrics."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from pluto_dist.cli import asking
from pluto_dist.cli.examples import examples
from pluto_dist.contract import attempts
from pluto_dist.contract.failure import Failure
from pluto_dist.query import RunDetails, Tracker

METRICS, TRACEBACK_LINES = 20, 12  # of each that are shown


@click.command(epilog=examples("pluto-dist show DIG-7", "pluto-dist show 42 --json | jq .run.config"))
@asking.run_argument
@asking.project_option
@asking.json_option
def show(*, run: str, project: str | None, as_json: bool) -> None:
    """Show one run: its status and why, attempts, nodes, config and metrics.

    RUN is the tracker's number of a run, its display id (DIG-7), its external id, or the address of its page.
    """
    with asking.tracker("show") as tracker:
        found = asking.find(tracker, run, project)
        shown = tracker.page(found), last_values(tracker, found)
        if as_json:
            asking.print_json(to_json(found, *shown))
            return
        for line in lines(found, *shown):
            click.echo(line)


def last_values(tracker: Tracker, run: RunDetails) -> dict[str, float]:
    """The last value of each of the first metrics, without those of the system."""
    names = {name for name in tracker.metric_names(run) if not name.startswith("sys/")}
    values = tracker.last_values(run) if names else {}
    return {name: value for name, value in values.items() if name in names}


def to_json(run: RunDetails, page: str, metrics: dict[str, float]) -> dict[str, Any]:
    """The shape that ``--json`` prints."""
    failure = Failure.of_status(run.status_metadata)
    return {
        "run": {**run.to_json(), "url": page},
        "why": None if failure is None else failure.summary(),
        "attempts": attempts.in_order(attempts.recorded(run.config)),
        "metrics": metrics,
    }


def lines(run: RunDetails, page: str, metrics: dict[str, float]) -> Iterator[str]:
    """What a person reads of it."""
    yield f"{asking.styled(run.display_id or str(run.id), bold=True)} {asking.one_line(run.name)}"
    ended = "" if run.status == "RUNNING" or run.status_updated is None else f", {asking.ago(run.status_updated)}"
    rows = {
        "status": f"{asking.status(run.status)}{ended}",
        "project": run.project,
        "created": asking.ago(run.created_at),
        "took": _took(run),
        "tags": ", ".join(run.tags),
        "number": run.id,
        "external id": run.external_id,
        "page": page,
    }
    for name, value in rows.items():
        if value:
            yield f"{name:12}  {value if name == 'status' else asking.one_line(str(value))}"
    yield from _why(run)
    yield from _attempts(run)
    yield from _nodes(run)
    yield from _values("config", _flat(_without_own(run.config)))
    yield from _values("metrics", [(name, f"{value:g}") for name, value in list(metrics.items())[:METRICS]])
    if len(metrics) > METRICS:
        yield f"  and {len(metrics) - METRICS} more"


def _took(run: RunDetails) -> str:
    if run.status == "RUNNING" or run.status_updated is None or run.created_at is None:
        return ""
    return asking.duration((run.status_updated - run.created_at).total_seconds())


def _why(run: RunDetails) -> Iterator[str]:
    failure = Failure.of_status(run.status_metadata)
    if failure is None:
        if isinstance(run.status_metadata, dict) and run.status_metadata and run.status != "RUNNING":
            yield from _values("why", _flat(run.status_metadata))
        return
    rank = "" if failure.rank is None else f"rank {failure.rank} "
    yield f"{'why':12}  {rank}on {failure.host}: {asking.one_line(failure.reason)}"
    trace = run.status_metadata.get("traceback")
    if isinstance(trace, str) and trace.strip():
        for line in trace.strip().splitlines()[-TRACEBACK_LINES:]:
            yield f"{'':12}  {asking.one_line(line)}"


def _attempts(run: RunDetails) -> Iterator[str]:
    recorded = attempts.in_order(attempts.recorded(run.config))
    rows = []
    for each in recorded:
        failure = each.get("after_failure")
        after = failure.get("reason") if isinstance(failure, dict) else None
        joined = [f"+{host}" for host in _list(each.get("joined"))] + [f"-{host}" for host in _list(each.get("left"))]
        rows.append((each["number"], each.get("start"), each.get("world_size"), " ".join(joined), after))
    yield from _block("attempts", asking.table(("", "begun", "ranks", "hosts", "after"), rows, limit=_inner()))


def _nodes(run: RunDetails) -> Iterator[str]:
    from pluto_dist.contract.hardware import of_attempt

    chosen = of_attempt(run.system_metadata, run.config)
    cluster = chosen.document.get("cluster") if chosen is not None else None
    if chosen is None or not isinstance(cluster, dict):
        return
    counts = {"nodes": "node", "world_size": "rank", "gpus": "GPU", "gpus_bad": "bad GPU"}
    told = [asking.counted(n, word) for name, word in counts.items() if (n := cluster.get(name))]
    names = [cluster["gpu_name"]] if cluster.get("gpu_name") else []
    yield f"{'nodes':12}  {asking.one_line(', '.join(map(str, told + names)))}"
    hosts = [str(host) for host in _list(chosen.document.get("hosts"))]
    yield f"{'hosts':12}  {', '.join(hosts[:8])}" + (f" and {len(hosts) - 8} more" if len(hosts) > 8 else "")
    if drift := _list(chosen.document.get("drift")):
        yield f"{'':12}  {asking.counted(len(drift), 'difference')}: pluto-dist nodes {run.display_id or run.id}"


def _values(title: str, rows: list[tuple[str, str]]) -> Iterator[str]:
    yield from _block(title, asking.table(("", ""), rows, limit=_inner())[1:])


def _block(title: str, found: list[str]) -> Iterator[str]:
    if found:
        yield asking.styled(title, bold=True)
        yield from (f"  {line}" for line in found)


def _inner() -> int | None:
    limit = asking.width()
    return None if limit is None else limit - 2


def _without_own(config: Any) -> Any:
    return (
        {name: value for name, value in config.items() if name != "pluto_dist"} if isinstance(config, dict) else config
    )


def _flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Dotted names and values of a document."""
    if isinstance(value, dict) and value:
        return [row for key, inner in value.items() for row in _flat(inner, f"{name}.{key}" if name else str(key))]
    if not name and value in (None, {}):
        return []
    return [(name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
