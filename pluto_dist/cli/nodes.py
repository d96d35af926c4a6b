"""``pluto-dist nodes``: shows the hardware of a run, what differs first."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from pluto_dist.cli import asking, node_lines
from pluto_dist.cli.examples import examples
from pluto_dist.contract import attempts
from pluto_dist.contract.hardware import AttemptHardware, last_sign, of_attempt
from pluto_dist.inventory.report.drift import Difference, differences

WIDTH = 80  # of lines that no terminal shows


@click.command(epilog=examples("pluto-dist nodes DIG-7 --bad", "pluto-dist nodes DIG-7 --rank 61 --attempt 1"))
@click.argument("run", metavar="RUN")
@click.option("--bad", is_flag=True, help="Nodes that are missing or silent, have a lost GPU, or differ.")
@click.option("--host", "hosts", metavar="NAME", multiple=True, help="This node. Repeatable.")
@click.option("--rank", "ranks", type=click.IntRange(min=0), multiple=True, help="The node of this rank. Repeatable.")
@click.option("--gpu", "gpus", metavar="UUID", multiple=True, help="The node of this GPU, and the GPU. Repeatable.")
@click.option("--all", "show_all", is_flag=True, help="Every node and every GPU.")
@click.option("--attempt", type=click.IntRange(min=1), help="An earlier attempt of the job.  [default: the newest]")
@asking.project_option
@asking.json_option
def nodes(*, run: str, attempt: int | None, project: str | None, as_json: bool, **asked: Any) -> None:
    """Show the nodes and GPUs of a run, which rank is where, and what differs.

    RUN is the tracker's number of a run, its display id (DIG-7), its external id, the address of its page, or a file
    (- for standard input) with its system metadata or with what `pluto-dist show --json` prints.

    Without an option: what differs, the worst first, and the kinds of node. Exits with 0, whatever differs.
    """
    details = _read(run, project)
    chosen = _attempt(details, attempt, run)
    found = differences(chosen.document)
    selected = list(_selected(chosen, found, asked))
    if as_json:
        asking.print_json(_to_json(chosen, found, selected if any(asked.values()) else None))
        return
    newest = _numbers(details)[-1]
    sign, what = last_sign(details) if chosen.number == newest else ("", "")
    if newest is not None and newest > 1:
        click.echo(f"attempt {chosen.number} of {newest}, begun {chosen.start}")
    if chosen.note:
        click.echo(f"note: {chosen.note}")
    if any(asked.values()):
        some = asked["gpus"] if asked["bad"] or asked["ranks"] or asked["gpus"] else None
        shown = node_lines.Shown(found, sign, asking.width() or WIDTH, some, asked["ranks"])
        for node in selected:
            for line in node_lines.detail(chosen, node, shown):
                click.echo(asking.one_line(line))
        if not selected:
            click.echo("no such node", err=True)
        sys.exit(0 if selected or asked["bad"] else 1)
    sign = f"{sign} is the run's own ({what})" if sign else ""
    for line in node_lines.overview(chosen, found, sign, asking.width() or WIDTH):
        click.echo(asking.one_line(line))


def _selected(
    chosen: AttemptHardware, found: Sequence[Difference], asked: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """The nodes that one of the options means."""
    for node in node_lines.nodes_of(chosen.document):
        gpus = {uuid for _, uuid, _ in node_lines.rows_of_gpus(node)} if asked["gpus"] else set()
        ranks = node_lines.ranks_of_node(node, chosen.document) if asked["ranks"] else []
        if (
            asked["show_all"]
            or node.get("host") in asked["hosts"]
            or gpus & set(asked["gpus"])
            or set(ranks) & set(asked["ranks"])
            or (asked["bad"] and node_lines.is_bad(node, chosen, found))
        ):
            yield node


def _to_json(
    chosen: AttemptHardware, found: Sequence[Difference], selected: list[dict[str, Any]] | None
) -> dict[str, Any]:
    shown = {name: chosen.document.get(name) for name in ("cluster", "hosts", "node_classes", "nodes")}
    drift = [{**each.to_json(limit=len(each.deviating)), "why": each.why, "fix": each.fix} for each in found]
    return {
        **shown,
        "nodes": shown["nodes"] if selected is None else selected,
        "drift": drift,
        "bad_gpus": [each.to_json() for each in node_lines.bad_gpus(chosen.document)],
        "attempt": chosen.number,
        "attempt_start": chosen.start,
        "note": chosen.note,
        "silent": [each.to_json() for each in chosen.silent],
    }


def _read(run: str, project: str | None) -> dict[str, Any]:
    """The details of a run of the tracker, or of a file; a file may hold the system metadata alone."""
    if not _is_file(run):
        with asking.tracker("nodes") as tracker:
            return asking.find(tracker, run, project).raw
    try:
        value = json.loads(sys.stdin.read() if run == "-" else Path(run).read_text(encoding="utf-8"))
    except OSError as error:
        raise click.ClickException(f"{run} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise click.ClickException(f"{run} is not JSON: {error}") from error
    value = value if isinstance(value, dict) else {}
    if isinstance(printed := value.get("run"), dict):  # by `pluto-dist show --json`
        return {"systemMetadata": printed.get("system_metadata"), "config": printed.get("config")}
    return value if "systemMetadata" in value else {"systemMetadata": value}


def _is_file(run: str) -> bool:
    if run == "-" or run.startswith(("http://", "https://")):
        return run == "-"
    try:
        return run.endswith(".json") or Path(run).is_file()
    except OSError:  # too long for a name of a file
        return False


def _attempt(details: dict[str, Any], number: int | None, run: str) -> AttemptHardware:
    """The nodes of the attempt that is asked for; it must have a cluster document."""
    chosen = of_attempt(details["systemMetadata"], details.get("config"), number)
    if chosen is None:
        known = ", ".join(str(each) for each in _numbers(details) if each) or "none"
        raise click.ClickException(f"{run} has no attempt {number} on record; the attempts are: {known}")
    if not isinstance(chosen.document.get("cluster"), dict):
        raise click.ClickException(f"{run} has no system metadata of this package: there is no `cluster` in it")
    return chosen


def _numbers(details: dict[str, Any]) -> list[int | None]:
    records = attempts.in_order(attempts.recorded(details.get("config")))
    return [record["number"] for record in records] or [None]
