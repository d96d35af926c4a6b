"""``pluto-dist nodes``: shows the hardware of a run, node by node, and what differs."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pluto_dist.contract import attempts
from pluto_dist.contract.hardware import AttemptHardware, last_sign, of_attempt
from pluto_dist.contract.run_ref import Reference, impossible, reference
from pluto_dist.contract.secret import Environ
from pluto_dist.errors import PlutoDistError
from pluto_dist.inventory.report.drift import Difference, differences, shorten
from pluto_dist.settings import keychain, settings

if TYPE_CHECKING:
    from rich.console import Console

TRACKER_SECONDS = 20.0  # time limit of the requests to the tracker
SUMMARY_FIELDS = ("nodes", "nodes_reported", "world_size", "gpus", "gpus_bad", "classes", "interconnect")
NODE_COLUMNS = ("node", "host", "first rank", "class", "GPUs", "driver", "torch", "NCCL", "kernel", "notes")
CELL_WIDTH = 60  # characters of one value
DRIFT_COLUMNS = ("field", "who", "value", "the others", "why", "what to do")


@click.command()
@click.argument("run")
@click.option("--attempt", type=click.IntRange(min=1), help="An earlier attempt of the job.  [default: the newest]")
@click.option("--project", help="The project of a display id.  [default: PLUTO_PROJECT]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def nodes(*, run: str, attempt: int | None, project: str | None, as_json: bool) -> None:
    """Show the nodes and GPUs of a run, which rank is where, and what differs.

    RUN is the tracker's number of a run, its display id, or a file with its system metadata (- reads standard
    input). Exits with 0, whatever differs.
    """
    details = _read(run, project)
    chosen = _attempt(details, attempt, run)
    found = differences(chosen.document)
    if as_json:
        shown = {name: chosen.document.get(name) for name in ("cluster", "hosts", "node_classes", "nodes")}
        click.echo(json.dumps({**shown, "drift": [_as_json(each) for each in found], **_of_attempt(chosen)}, indent=2))
        return
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 180)
    _print_attempt(console, details, chosen)
    sign, what = last_sign(details) if chosen.number == _numbers(details)[-1] else ("", "")
    _print_nodes(console, chosen, sign)
    if sign:
        console.print(f"last sign: {sign} is the run's own ({what}); a node that fell silent is named", highlight=False)
    if not found:
        console.print("the nodes are alike")
        return
    _table(console, "what differs, the worst first", DRIFT_COLUMNS, [row for each in found for row in _rows(each)])


def _read(run: str, project: str | None) -> dict[str, Any]:
    """The details of a run: a number, a display id, a file, or "-" for standard input.

    A file may hold the system metadata alone.
    """
    named = reference(run)
    if run != "-" and named.kind != "external id" and not os.path.isfile(run):  # noqa: PTH113  # also a long number
        value = _details(named, project)
    else:
        try:
            value = json.loads(sys.stdin.read() if run == "-" else Path(run).read_text(encoding="utf-8"))
        except OSError as error:
            raise click.ClickException(
                f"{run} is neither a number, a display id (such as DIG-7), nor a file that can be read: "
                f"{error.strerror}"
            ) from error
        except ValueError as error:
            raise click.ClickException(f"{run} is not JSON: {error}") from error
    if not isinstance(value, dict):
        value = {}
    return value if "systemMetadata" in value else {"systemMetadata": value}


def _attempt(details: dict[str, Any], number: int | None, run: str) -> AttemptHardware:
    """The nodes of the attempt that is asked for; it must have a cluster document."""
    chosen = of_attempt(details["systemMetadata"], details.get("config"), number)
    if chosen is None:
        known = ", ".join(str(each) for each in _numbers(details) if each) or "none"
        raise click.ClickException(f"{run} has no attempt {number} on record; the attempts are: {known}")
    if "cluster" not in chosen.document:
        raise click.ClickException(f"{run} has no system metadata of this package: there is no `cluster` in it")
    return chosen


def _numbers(details: dict[str, Any]) -> list[int | None]:
    records = attempts.in_order(attempts.recorded(details.get("config")))
    return [record["number"] for record in records] or [None]


def _of_attempt(chosen: AttemptHardware) -> dict[str, Any]:
    silent = [each.to_json() for each in chosen.silent]
    return {"attempt": chosen.number, "attempt_start": chosen.start, "note": chosen.note, "silent": silent}


def _details(run: Reference, project: str | None) -> Any:
    from pluto_dist.client.tracker_client import TrackerClient, user_agent  # loads requests

    if why := impossible(run.value):
        raise click.ClickException(f"{run.value[:100]!r} {why}")
    try:
        chosen = keychain.with_stored_key(settings.load(Environ(os.environ), project=project))
        key = chosen.api_key
        if key is None:
            raise click.ClickException(f"no API key: set PLUTO_API_KEY to a key of {chosen.url_api}")
        client = TrackerClient(chosen.url_api, chosen.url_py, key, user_agent=user_agent("nodes"))
        try:
            until = time.monotonic() + TRACKER_SECONDS
            is_number = run.kind == "number"
            number = run.number if is_number else client.number_of(run.value, chosen.project, deadline=until)
            details = client.everything(number, deadline=until)
        finally:
            client.close()
    except PlutoDistError as error:
        raise click.ClickException(str(error)) from error
    return details


def _as_json(difference: Difference) -> dict[str, Any]:
    entry = difference.to_json(limit=len(difference.deviating))
    return {**entry, "why": difference.why, "fix": difference.fix}


def _print_attempt(console: Console, details: dict[str, Any], chosen: AttemptHardware) -> None:
    newest = _numbers(details)[-1]
    if newest is not None and newest > 1:
        console.print(f"attempt {chosen.number} of {newest}, begun {chosen.start}", highlight=False)
    if chosen.note:
        console.print(f"note: {chosen.note}", highlight=False)


def _print_nodes(console: Console, chosen: AttemptHardware, sign: str) -> None:
    """The summary and the tables of nodes and GPUs; ``sign`` is the run's own last sign of life, if it is known."""
    document = chosen.document
    cluster, classes = document["cluster"], document.get("node_classes") or []
    nodes = [node for node in document.get("nodes") or [] if isinstance(node, dict)]
    summary = [f"{name} {cluster[name]}" for name in SUMMARY_FIELDS if cluster.get(name) is not None]
    console.print("  ".join(summary), highlight=False)
    has_signs = bool(sign or chosen.silent)
    rows = [
        (
            *(node.get(name) for name in ("node", "host", "rank", "class")),
            *_of_class(node, classes),
            *([chosen.silence_of(node) or sign] if has_signs else []),
            _notes(node),
        )
        for node in nodes
    ]
    fallen = [(each.node, each.host, str(each)) for each in chosen.silent]
    _table(console, "nodes that fell silent", ("node", "host", "last sign"), fallen)
    _table(console, "nodes", (*NODE_COLUMNS[:-1], *(["last sign"] if has_signs else []), NODE_COLUMNS[-1]), rows)
    gpus = [(node.get("host"), *row) for node in nodes for row in _gpus(node)]
    _table(console, "GPUs", ("host", "GPU", "UUID", "rank"), gpus)


def _rows(difference: Difference) -> Iterable[Sequence[Any]]:
    for n, (name, value) in enumerate(difference.deviating):
        first = n == 0
        yield (
            difference.field if first else "",
            name,
            "" if value is None else shorten(value, CELL_WIDTH),
            shorten(difference.usual, CELL_WIDTH) if first and difference.usual is not None else "",
            difference.why if first else "",
            difference.fix if first else "",
        )


def _of_class(node: dict[str, Any], classes: list[Any]) -> tuple[Any, ...]:
    index = node.get("class")
    node_class = classes[index] if isinstance(index, int) and 0 <= index < len(classes) else {}
    gpu = node_class.get("gpu") or {}
    gpus = f"{gpu.get('count', '?')} x {gpu.get('name', '?')}" if gpu.get("count") else "none"
    return gpus, gpu.get("driver"), node_class.get("torch"), node_class.get("nccl"), node_class.get("kernel")


def _indexed_uuids(node: dict[str, Any]) -> Iterable[tuple[int, str]]:
    """Index and UUID of the GPUs of a node, which lists UUIDs without those of lost GPUs."""
    uuids, bad = node.get("gpus") or (), node.get("bad") or {}
    indexes = (index for index in range(len(uuids) + len(bad)) if str(index) not in bad)
    return zip(indexes, uuids, strict=False)


def _gpus(node: dict[str, Any]) -> Iterable[tuple[Any, ...]]:
    """The GPUs of ``node`` with the global ranks that use them; last the GPUs that only torch on that rank reported."""
    used = _by_rank(node, "gpu_of_rank")
    for index, uuid in _indexed_uuids(node):
        yield index, uuid, ", ".join(str(rank) for rank, gpu in used if gpu == index)
    yield from (("", uuid, rank) for rank, uuid in _by_rank(node, "uuid_of_rank") if uuid is not None)


def _by_rank(node: dict[str, Any], name: str) -> list[tuple[int, Any]]:
    """Each rank of ``node`` with its item of the list ``name``."""
    first, values = node.get("rank"), node.get(name)
    if not isinstance(first, int) or not isinstance(values, list):
        return []
    return list(zip(node.get("ranks") or range(first, first + len(values)), values, strict=False))


def _notes(node: dict[str, Any]) -> str:
    bad = [f"GPU {index} {error}" for index, error in (node.get("bad") or {}).items()]
    hidden = f"a cgroup hides {len(node['hidden'])} GPUs" if isinstance(node.get("hidden"), list) else None
    return ", ".join([*bad, *filter(None, [node.get("gpu_error"), "missing" if node.get("missing") else None, hidden])])


def _table(console: Console, title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, title=title, title_justify="left", box=SIMPLE, pad_edge=False)
    for row in rows:
        table.add_row(*(Text("" if value is None else str(value)) for value in row))
    if table.row_count:
        console.print(table)
