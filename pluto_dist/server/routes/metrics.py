"""Endpoints that aggregate metrics: statistics of a run, comparison of runs, leaderboard of a project."""

from __future__ import annotations

import math
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from pluto_dist.contract.validation import Json
from pluto_dist.server.db import metrics, run_queries
from pluto_dist.server.db.records import RequestRejectedError, RunDetails, iso
from pluto_dist.server.openapi.schemas import (
    METRIC_FILTERS,
    NUMBER,
    OBJECT,
    PROJECT,
    RUN_IN_QUERY,
    TEXT,
    UNSIGNED,
    Schema,
    in_query,
    limit_in_query,
    list_schema,
)
from pluto_dist.server.routes import urls
from pluto_dist.server.routes.endpoint import Endpoint, Routes
from pluto_dist.server.transport import query_params
from pluto_dist.server.transport.responses import AsciiJSONResponse

RUNS_LIMIT, METRICS_LIMIT, ANOMALIES_LIMIT = 100, 100, 10
LEADERBOARD_DEFAULT = 20
_AGGREGATIONS: dict[str, Callable[[metrics.MetricSummary], float]] = {
    "LAST": lambda summary: summary.last.value or 0.0,
    "MIN": lambda summary: summary.minimum,
    "MAX": lambda summary: summary.maximum,
    "AVG": lambda summary: summary.mean,
    "VARIANCE": lambda summary: summary.stddev**2,
}


_DIRECTIONS = ("ASC", "DESC")
_IDS: Schema = {"type": "string", "pattern": "^[0-9]{1,15}(,[0-9]{1,15})*$"}


class MetricRoutes(Routes):
    """The handlers of these endpoints."""

    @Endpoint(
        "GET",
        "/api/runs/statistics",
        "Get statistics of a run's metrics",
        answer=list_schema("metrics", OBJECT, runId=NUMBER, runName=TEXT, projectName=TEXT, url=TEXT),
        parameters=(*RUN_IN_QUERY, *METRIC_FILTERS),
        errors=(400, 404),
    )
    async def statistics(self, request: Request) -> Response:
        organization = self._auth.organization(request)
        number = query_params.integer(request, "runId")
        project = query_params.required_text(request, "projectName")
        run = run_queries.details(self._database, organization, number)
        if run is None or run.project != project:
            raise RequestRejectedError(404, "Run not found")
        group = request.query_params.get("logGroup")
        with self._database.snapshot():
            found = metrics.series(self._database, number, request.query_params.get("logName"))
            selected = {k: v for k, v in found.items() if group is None or metrics.log_group(k) == group}
            rows = [self._statistics(name, metric) for name, metric in list(selected.items())[:METRICS_LIMIT]]
        return AsciiJSONResponse(
            {
                "runId": number,
                "runName": run.summary.name,
                "projectName": project,
                "url": urls.run_url(self._public_url, organization, project, number),
                "metrics": [row for row in rows if row is not None],
            }
        )

    @Endpoint(
        "GET",
        "/api/runs/compare",
        "Compare one metric of several runs",
        answer=list_schema("runs", OBJECT, projectName=TEXT, logName=TEXT, comparisonUrl=TEXT, summary=OBJECT),
        parameters=(PROJECT, in_query("runIds", _IDS, required=True), in_query("logName", required=True)),
        errors=(400,),
    )
    async def compare(self, request: Request) -> Response:
        organization = self._auth.organization(request)
        ids = query_params.integers(request, "runIds") or []
        project, name = (
            query_params.required_text(request, "projectName"),
            query_params.required_text(request, "logName"),
        )
        if not ids:
            raise RequestRejectedError(400, "No valid run IDs provided")
        if len(ids) > RUNS_LIMIT:
            raise RequestRejectedError(400, f"Too many runs to compare. Maximum is {RUNS_LIMIT}, got {len(ids)}")
        compared = []
        for run, summary in self._summaries(organization, project, name, ids):
            compared.append({**self._run_json(organization, run), "config": run.config, "stats": _stats(summary)})
        page = urls.run_url(self._public_url, organization, project, 0).rpartition("/")[0]
        return AsciiJSONResponse(
            {
                "projectName": project,
                "logName": name,
                "comparisonUrl": page,
                "runs": compared,
                "summary": _best_run(name, compared),
            }
        )

    @Endpoint(
        "GET",
        "/api/runs/leaderboard",
        "Rank a project's runs by a metric",
        answer=list_schema("runs", OBJECT, total=NUMBER),
        parameters=(
            PROJECT,
            in_query("logName", required=True),
            in_query("aggregation", {"type": "string", "enum": list(_AGGREGATIONS)}),
            in_query("direction", {"type": "string", "enum": list(_DIRECTIONS)}),
            in_query("offset", UNSIGNED),
            limit_in_query(),
        ),
        errors=(400,),
    )
    async def leaderboard(self, request: Request) -> Response:
        organization = self._auth.organization(request)
        project, name = (
            query_params.required_text(request, "projectName"),
            query_params.required_text(request, "logName"),
        )
        aggregation = query_params.choice(request, "aggregation", tuple(_AGGREGATIONS))
        direction = query_params.choice(request, "direction", _DIRECTIONS)
        limit = min(query_params.integer(request, "limit", default=LEADERBOARD_DEFAULT, minimum=1), RUNS_LIMIT)
        offset = query_params.integer(request, "offset", default=0)
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
                **self._run_json(organization, run),
                "value": _finite(value),
                "config": run.config,
                "tags": list(run.summary.tags),
                "createdAt": iso(run.summary.created_at),
            }
            for rank, (value, run) in enumerate(ranked[offset : offset + limit], start=offset + 1)
        ]
        head = {"projectName": project, "logName": name, "aggregation": aggregation, "direction": direction}
        return AsciiJSONResponse({**head, "runs": shown, "total": len(ranked)})

    def _summaries(
        self, organization: str, project: str, name: str, ids: list[int]
    ) -> list[tuple[RunDetails, metrics.MetricSummary | None]]:
        found = []
        for number in dict.fromkeys(ids):
            run = run_queries.details(self._database, organization, number)
            if run is not None and run.project == project:
                metric = metrics.series(self._database, number, name).get(name)
                found.append((run, None if metric is None else metrics.summary(self._database, metric)))
        return found

    def _run_json(self, organization: str, run: RunDetails) -> dict[str, Json]:
        return {
            "runId": run.summary.id,
            "runName": run.summary.name,
            "url": urls.run_url(self._public_url, organization, run.project, run.summary.id),
            "status": run.summary.status,
        }

    def _statistics(self, name: str, metric: metrics.MetricSeries) -> dict[str, Json] | None:
        summary = metrics.summary(self._database, metric)
        if summary is None:
            return None
        low, high = (summary.mean + sign * 2 * summary.stddev for sign in (-1, 1))
        outliers = []
        if summary.count > 10 and summary.stddev > 0:
            outliers = metrics.outliers(self._database, metric, low, high, ANOMALIES_LIMIT)
        return {
            "logName": name,
            "logGroup": metrics.log_group(name),
            "count": summary.count,
            "min": summary.minimum,
            "max": summary.maximum,
            "mean": _finite(summary.mean),
            "stddev": summary.stddev,
            "first": {"step": summary.first.step, "value": summary.first.value},
            "last": {"step": summary.last.step, "value": summary.last.value},
            "anomalies": [_anomaly(point, summary) for point in outliers],
        }


def _anomaly(point: metrics.Point, summary: metrics.MetricSummary) -> dict[str, Json]:
    value = point.value or 0.0
    above = value > summary.mean
    distance = abs(value - summary.mean) / summary.stddev
    side = "above" if above else "below"
    return {
        "step": point.step,
        "value": value,
        "type": "spike" if above else "drop",
        "description": f"Value {value:.4f} is {distance:.1f} stddev {side} mean",
    }


def _stats(summary: metrics.MetricSummary | None) -> dict[str, Json] | None:
    if summary is None:
        return None
    first, last = summary.first.value or 0.0, summary.last.value or 0.0
    return {
        "count": summary.count,
        "min": summary.minimum,
        "max": summary.maximum,
        "mean": _finite(summary.mean),
        "final": last,
        "improvement": _finite((first - last) / first * 100) if first else 0,
    }


def _best_run(name: str, compared: list[dict[str, Json]]) -> dict[str, Json]:
    """The run with the best last value: the lowest if the metric is a loss or an error, else the highest."""
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


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
