"""What the SDK's query module asks of metrics as a whole: statistics, comparisons, a ranking."""

from __future__ import annotations

import math
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from pluto_dist.contract.validation import Json
from pluto_dist.server.db import metrics as series
from pluto_dist.server.db import run_queries
from pluto_dist.server.db.database import Database
from pluto_dist.server.db.records import Details, RefusalError, iso
from pluto_dist.server.routes import urls
from pluto_dist.server.routes.auth import Access
from pluto_dist.server.transport import query_params
from pluto_dist.server.transport.responses import AsciiJSONResponse

RUNS_LIMIT, METRICS_LIMIT, ANOMALIES = 100, 100, 10
RANKING_DEFAULT = 20
_AGGREGATIONS: dict[str, Callable[[series.Summary], float]] = {
    "LAST": lambda summary: summary.last.value or 0.0,
    "MIN": lambda summary: summary.lowest,
    "MAX": lambda summary: summary.highest,
    "AVG": lambda summary: summary.mean,
    "VARIANCE": lambda summary: summary.deviation**2,
}


class ComparingApi:
    """The handlers of these three queries."""

    def __init__(self, database: Database, access: Access, public_url: str) -> None:
        self._database = database
        self._access = access
        self._public_url = public_url

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/api/runs/statistics", self.statistics, methods=["GET"]),
            Route("/api/runs/compare", self.compare, methods=["GET"]),
            Route("/api/runs/leaderboard", self.leaderboard, methods=["GET"]),
        ]

    async def statistics(self, request: Request) -> Response:
        organization = self._access.organization(request)
        number = query_params.whole(request, "runId")
        project = query_params.text(request, "projectName")
        run = run_queries.details(self._database, organization, number)
        if run is None or run.project != project:
            raise RefusalError(404, "Run not found")
        group = request.query_params.get("logGroup")
        with self._database.snapshot():
            found = series.spans(self._database, number, request.query_params.get("logName"))
            wanted = {k: v for k, v in found.items() if group is None or series.group_of(k) == group}
            metrics = [self._metric(name, where) for name, where in list(wanted.items())[:METRICS_LIMIT]]
        return AsciiJSONResponse(
            {
                "runId": number,
                "runName": run.summary.name,
                "projectName": project,
                "url": urls.run_url(self._public_url, organization, project, number),
                "metrics": [metric for metric in metrics if metric is not None],
            }
        )

    async def compare(self, request: Request) -> Response:
        organization = self._access.organization(request)
        wanted = query_params.numbers(request, "runIds") or []
        project, name = query_params.text(request, "projectName"), query_params.text(request, "logName")
        if not wanted:
            raise RefusalError(400, "No valid run IDs provided")
        if len(wanted) > RUNS_LIMIT:
            raise RefusalError(400, f"Too many runs to compare. Maximum is {RUNS_LIMIT}, got {len(wanted)}")
        compared = []
        for run, summary in self._summaries(organization, project, name, wanted):
            compared.append({**self._told(organization, run), "config": run.config, "stats": _stats(summary)})
        page = urls.run_url(self._public_url, organization, project, 0).rpartition("/")[0]
        return AsciiJSONResponse(
            {
                "projectName": project,
                "logName": name,
                "comparisonUrl": page,
                "runs": compared,
                "summary": _verdict(name, compared),
            }
        )

    async def leaderboard(self, request: Request) -> Response:
        organization = self._access.organization(request)
        project, name = query_params.text(request, "projectName"), query_params.text(request, "logName")
        aggregation = query_params.one_of(request, "aggregation", tuple(_AGGREGATIONS))
        direction = query_params.one_of(request, "direction", ("ASC", "DESC"))
        limit = min(query_params.whole(request, "limit", default=RANKING_DEFAULT, least=1), RUNS_LIMIT)
        offset = query_params.whole(request, "offset", default=0)
        value_of = _AGGREGATIONS[aggregation]
        runs = run_queries.ids_in_project(self._database, organization, project)
        ranked = [
            (value_of(summary), run)
            for run, summary in self._summaries(organization, project, name, runs)
            if summary is not None
        ]
        ranked.sort(key=lambda pair: pair[0], reverse=direction == "DESC")
        shown = [
            {
                "rank": rank,
                **self._told(organization, run),
                "value": _number(value),
                "config": run.config,
                "tags": list(run.summary.tags),
                "createdAt": iso(run.summary.created_at),
            }
            for rank, (value, run) in enumerate(ranked[offset : offset + limit], start=offset + 1)
        ]
        head = {"projectName": project, "logName": name, "aggregation": aggregation, "direction": direction}
        return AsciiJSONResponse({**head, "runs": shown, "total": len(ranked)})

    def _summaries(
        self, organization: str, project: str, name: str, wanted: list[int]
    ) -> list[tuple[Details, series.Summary | None]]:
        found = []
        for number in dict.fromkeys(wanted):
            run = run_queries.details(self._database, organization, number)
            if run is not None and run.project == project:
                where = series.spans(self._database, number, name).get(name)
                found.append((run, None if where is None else series.summary(self._database, where)))
        return found

    def _told(self, organization: str, run: Details) -> dict[str, Json]:
        return {
            "runId": run.summary.id,
            "runName": run.summary.name,
            "url": urls.run_url(self._public_url, organization, run.project, run.summary.id),
            "status": run.summary.status,
        }

    def _metric(self, name: str, where: series.Spans) -> dict[str, Json] | None:
        summary = series.summary(self._database, where)
        if summary is None:
            return None
        low, high = (summary.mean + sign * 2 * summary.deviation for sign in (-1, 1))
        odd = []
        if summary.count > 10 and summary.deviation > 0:
            odd = series.outside(self._database, where, low, high, ANOMALIES)
        return {
            "logName": name,
            "logGroup": series.group_of(name),
            "count": summary.count,
            "min": summary.lowest,
            "max": summary.highest,
            "mean": _number(summary.mean),
            "stddev": summary.deviation,
            "first": {"step": summary.first.step, "value": summary.first.value},
            "last": {"step": summary.last.step, "value": summary.last.value},
            "anomalies": [_anomaly(point, summary) for point in odd],
        }


def _anomaly(point: series.Point, summary: series.Summary) -> dict[str, Json]:
    value = point.value or 0.0
    above = value > summary.mean
    distance = abs(value - summary.mean) / summary.deviation
    side = "above" if above else "below"
    return {
        "step": point.step,
        "value": value,
        "type": "spike" if above else "drop",
        "description": f"Value {value:.4f} is {distance:.1f} stddev {side} mean",
    }


def _stats(summary: series.Summary | None) -> dict[str, Json] | None:
    if summary is None:
        return None
    first, last = summary.first.value or 0.0, summary.last.value or 0.0
    return {
        "count": summary.count,
        "min": summary.lowest,
        "max": summary.highest,
        "mean": _number(summary.mean),
        "final": last,
        "improvement": _number((first - last) / first * 100) if first else 0,
    }


def _verdict(name: str, compared: list[dict[str, Json]]) -> dict[str, Json]:
    """The run with the best last value: the lowest of a loss or an error, the highest of anything else."""
    valid = [run for run in compared if run["stats"] is not None]
    if not valid:
        return {"bestRun": None, "recommendation": f"No data found for metric '{name}' in the specified runs."}
    lowest = any(word in name.lower() for word in ("loss", "error"))
    best = (min if lowest else max)(valid, key=lambda run: run["stats"]["final"])
    reason = f"{'Lowest' if lowest else 'Highest'} final {name}: {best['stats']['final']:.4f}"
    return {
        "bestRun": {"runId": best["runId"], "runName": best["runName"], "reason": reason},
        "recommendation": "",
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
