"""A tracker to read from, hosted or embedded; and the two changes that commands make: cancel and delete.

Every method asks the tracker, waits at most ``timeout`` seconds, and raises the errors of ``pluto_dist.errors``. Where
the hosted tracker cannot answer what the embedded one can, the method says so.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pluto_dist.contract.run_requests import UpdateStatusRequest
from pluto_dist.contract.secret import Environ
from pluto_dist.errors import ConfigurationError, RequestRefusedError, TrackerUnavailableError, UnexpectedAnswerError
from pluto_dist.query import records
from pluto_dist.query.records import (
    ConsoleLine,
    Datum,
    Point,
    Project,
    RunDetails,
    RunSummary,
    StatusChange,
    StoredFile,
)
from pluto_dist.settings import keychain, settings

if TYPE_CHECKING:
    import pandas

RUNS_PER_PAGE, POINTS_PER_PAGE, LINES_PER_PAGE = 200, 10_000, 1000
DATA_LIMIT, NAMES_LIMIT = 1000, 500
DOWNLOAD_SECONDS = 60.0  # without a byte


class Tracker:
    """The tracker that the environment names, with its key.

    Args:
        url: origin of its API; ``PLUTO_URL_API`` by default.
        api_key: its key; ``PLUTO_API_KEY`` by default, else the one that ``pluto login`` stored.
        timeout: seconds that a method waits for the tracker, retries included.
        environ: environment variables; those of this process by default.
        who: names this client in the server's log.

    Raises:
        ConfigurationError: there is no key, or a setting cannot be used.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = 20.0,
        environ: Mapping[str, str] | None = None,
        who: str = "query",
    ) -> None:
        from pluto_dist.client.tracker_client import TrackerClient, user_agent  # loads requests

        loaded = settings.load(Environ(os.environ if environ is None else environ), url_api=url, api_key=api_key)
        self.settings = keychain.with_stored_key(loaded)
        self.timeout = timeout
        if self.settings.api_key is None:
            raise ConfigurationError(
                f"no API key: set PLUTO_API_KEY to a key of {self.settings.url_api}; "
                "`pluto-dist server` is a tracker of your own"
            )
        self.client = TrackerClient(
            self.settings.url_api, self.settings.url_py, self.settings.api_key, user_agent=user_agent(who)
        )

    def __repr__(self) -> str:
        return f"Tracker({self.settings.url_api!r})"

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self.client.close()

    @property
    def deadline(self) -> float:
        """When a request that begins now must have ended, on the monotonic clock."""
        return time.monotonic() + self.timeout

    def projects(self) -> tuple[Project, ...]:
        """All projects, the one that changed last first."""
        found = records.all_of(Project.of, self._get("/api/runs/projects").get("projects"))
        return tuple(
            sorted(found, key=lambda each: each.updated_at.timestamp() if each.updated_at else 0, reverse=True)
        )

    def runs(
        self,
        project: str,
        *,
        status: Iterable[str] = (),
        tags: Iterable[str] = (),
        search: str = "",
        sort: str = "-createdAt",
        limit: int | None = None,
    ) -> Iterator[RunSummary]:
        """The runs of a project, page by page.

        Args:
            project: its name.
            status: only runs with one of these.
            tags: only runs with one of these.
            search: only runs with this in their name.
            sort: createdAt, updatedAt, name, status, config.<key>.value or summary_metrics.<name>; "-" before it is
                descending.
            limit: of runs; all by default.
        """
        query = {"status": ",".join(status), "tags": ",".join(tags), "search": search, "sort": sort}
        query = {name: value for name, value in query.items() if value} | {"projectName": project}
        offset = 0
        while limit is None or offset < limit:
            size = RUNS_PER_PAGE if limit is None else min(RUNS_PER_PAGE, limit - offset)
            page = self._get("/api/runs/list", query | {"limit": str(size), "offset": str(offset)}).get("runs")
            yield from records.all_of(RunSummary.of, page)
            offset += size
            if not isinstance(page, list) or len(page) < size:
                return

    def run(self, reference: str | int, project: str | None = None) -> RunDetails:
        """The run that ``reference`` names: its number, display id, external id, or the address of its page.

        Args:
            reference: of the run.
            project: where a display id or an external id is looked for; all projects by default.

        Raises:
            RequestRefusedError: with status 404 if there is none, 409 if there are several.
        """
        from pluto_dist.query.references import find_all

        found = find_all(self, str(reference), project)
        if len(found) > 1:
            projects = ", ".join(each.project for each in found)
            raise RequestRefusedError(f"{reference!r} names runs of several projects: {projects}. Name one.", 409)
        return found[0]

    def details(self, run: int) -> RunDetails:
        """The run with the tracker's number ``run``; RequestRefusedError with status 404 if there is none."""
        found = RunDetails.of(self.client.everything(run, deadline=self.deadline))
        if found is None:
            raise UnexpectedAnswerError(f"{self.settings.url_api} answered details of run {run} without its number")
        return found

    def metric_names(self, run: RunDetails) -> tuple[str, ...]:
        """The names of the run's metrics: those that it announced, and the first 500 that it logged."""
        query = {"projectName": run.project, "runIds": str(run.id), "limit": str(NAMES_LIMIT)}
        logged = self._get("/api/runs/metric-names", query).get("metricNames")
        names = {name for name in (logged if isinstance(logged, list) else ()) if isinstance(name, str)}
        return tuple(sorted(names | {each.name for each in run.log_names if each.type == "METRIC"}))

    def metrics(self, run: RunSummary, name: str) -> list[Point]:
        """All points of one metric as the run logged them, by step; those that are not finite, too.

        The hosted tracker has a point twice if it was sent twice.
        """
        found: list[Point] = []
        first = 0
        while True:
            query = self._named(run) | {"logName": name, "stepMin": str(first), "limit": str(POINTS_PER_PAGE)}
            body = self._get("/api/runs/metrics/raw", query)
            page = records.all_of(Point.of, body.get("rows"))
            if not body.get("truncated") or not page:
                return [*found, *page]
            last = page[-1].step
            kept = [point for point in page if point.step < last]
            # A step that has more points than a page is as long as the page; what is beyond is not shown.
            found += kept or page
            first = last if kept else last + 1

    def metrics_frame(self, run: RunDetails, names: Iterable[str] = ()) -> pandas.DataFrame:
        """The points of metrics, all by default, with the columns metric, step, time and value. Needs pandas."""
        import pandas

        rows = [
            (name, point.step, point.time_ms, point.value)
            for name in tuple(names) or self.metric_names(run)
            for point in self.metrics(run, name)
        ]
        frame = pandas.DataFrame(rows, columns=["metric", "step", "time", "value"])
        frame["time"] = pandas.to_datetime(frame["time"], unit="ms", utc=True)
        return frame

    def last_values(self, run: RunSummary) -> dict[str, float]:
        """The last value of each of the first 100 metrics, by name."""
        listed = self._get("/api/runs/statistics", self._named(run)).get("metrics")
        found = {}
        for each in listed if isinstance(listed, list) else ():
            last = each.get("last") if isinstance(each, dict) else None
            value = last.get("value") if isinstance(last, dict) else None
            if isinstance(value, (int, float)):
                found[str(each.get("logName"))] = float(value)
        return found

    def console(self, run: RunSummary, *, offset: int = 0) -> Iterator[ConsoleLine]:
        """The console lines of all ranks by time, page by page, from the line ``offset``."""
        while True:
            page = self.console_page(run, offset)
            yield from page
            offset += LINES_PER_PAGE
            if len(page) < LINES_PER_PAGE:
                return

    def console_page(self, run: RunSummary, offset: int) -> tuple[ConsoleLine, ...]:
        """At most :data:`LINES_PER_PAGE` console lines from the line ``offset``."""
        query = self._named(run) | {"limit": str(LINES_PER_PAGE), "offset": str(offset)}
        return records.all_of(ConsoleLine.of, self._get("/api/runs/logs", query).get("logs"))

    def console_length(self, run: RunSummary) -> int:
        """How many console lines the run has."""
        total = self._get("/api/runs/logs", self._named(run) | {"limit": "1"}).get("total")
        return total if type(total) is int else 0

    def data(self, run: RunSummary) -> tuple[Datum, ...] | None:
        """Histograms, tables and texts; ``None`` on the hosted tracker, which does not give them out."""
        listed = self._get("/api/runs/data", self._named(run) | {"limit": str(DATA_LIMIT)}).get("data")
        return records.all_of(Datum.of, listed) if isinstance(listed, list) else None

    def files(self, run: RunSummary) -> tuple[StoredFile, ...]:
        """The run's files, with addresses that serve their bytes for some days."""
        return records.all_of(StoredFile.of, self._get("/api/runs/files", self._named(run)).get("files"))

    def download(self, file: StoredFile, path: Path) -> None:
        """Write the bytes of ``file`` to ``path``.

        Raises:
            TrackerUnavailableError: the file cannot be had.
            OSError: ``path`` cannot be written.
        """
        import requests

        try:  # without the API key: the address is signed, and may be another origin's
            with requests.get(file.url, stream=True, timeout=DOWNLOAD_SECONDS) as response, path.open("wb") as target:
                response.raise_for_status()
                for chunk in response.iter_content(1 << 20):
                    target.write(chunk)
        except requests.RequestException as error:
            raise TrackerUnavailableError(f"file {file.name!r} cannot be downloaded: {type(error).__name__}") from None

    def status_history(self, run: RunSummary) -> tuple[StatusChange, ...]:
        """The changes of the run's status, the oldest first."""
        query = {"runId": str(run.id)}
        body = self._get("/api/runs/status/history", query)
        return records.all_of(StatusChange.of, body.get("events"))

    def page(self, run: RunSummary) -> str:
        """The address of the run's page."""
        known = run.raw.get("url") if isinstance(run, RunDetails) else None
        url = known or self._get("/api/runs/statistics", self._named(run)).get("url")
        if not isinstance(url, str) or not url.startswith(("http://", "https://")):
            raise UnexpectedAnswerError(f"{self.settings.url_api} answered no address of run {run.id}")
        return url

    def cancel(self, run: RunSummary) -> None:
        """Set the run CANCELLED: its job stops at its next heartbeat."""
        self.client.update_status(UpdateStatusRequest(run.id, "CANCELLED"), deadline=self.deadline)

    def delete(self, run: RunSummary) -> None:
        """Delete the run and all that it logged, for good.

        Raises:
            RequestRefusedError: with status 404 if the tracker cannot: the hosted one deletes on its pages alone.
        """
        self.client.delete_run(run.id, deadline=self.deadline)

    def _named(self, run: RunSummary) -> dict[str, str]:
        return {"runId": str(run.id), "projectName": run.project}

    def _get(self, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        body = self.client.get(path, query, deadline=self.deadline)
        if not isinstance(body, dict):
            raise UnexpectedAnswerError(f"{self.settings.url_api} answered {path} with no object")
        return body
