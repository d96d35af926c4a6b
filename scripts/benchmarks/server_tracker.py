"""The tracker of the benchmark ``server``, seen from outside: what it is sent, and what its process uses up for it."""

from __future__ import annotations

import itertools
import json
import math
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import psutil
from init import CONFIG, MIB, PROJECT, Server
from traffic import Answers, drive, get, post

METADATA = {f"key {n}": f"value {n} of the machine" for n in range(40)}


@dataclass(frozen=True)
class Cost:
    """The answers to one round of requests, and the server's CPU seconds for all of them."""

    answers: Answers
    cpu: float

    @property
    def cpu_each(self) -> float:
        return self.cpu / self.answers.count

    @property
    def length(self) -> int:
        """Bytes of the last answer."""
        return len(self.answers.last)


class Tracker:
    """A running ``pluto-dist server``."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._process = psutil.Process(server.pid)
        url = urlsplit(server.environ["PLUTO_URL_API"])
        self._address = (str(url.hostname), int(url.port or 0))
        self._key = server.environ["PLUTO_API_KEY"]

    @property
    def memory(self) -> float:
        """Resident MiB."""
        return self._process.memory_info().rss / MIB

    def post(self, path: str, body: object) -> bytes:
        return post(self._address, path, self._key, json.dumps(body).encode())

    def get(self, path: str) -> bytes:
        return get(self._address, path, self._key)

    def create(self, external_id: str, *, config_of: int | None = None, project: str = PROJECT) -> bytes:
        """A create-run request; with the config and the metadata of a rank, or with the external id alone."""
        body = {"runName": "bench", "projectName": project, "externalId": external_id}
        if config_of is not None:
            config = json.dumps({**CONFIG, "rank": config_of})
            body |= {"config": config, "systemMetadata": json.dumps(METADATA)}
        return self.post("/api/runs/create", body)

    def names(self) -> Iterator[str]:
        """External ids that no run has."""
        stem = uuid.uuid4().hex
        return (f"bench-{stem}-{n}" for n in itertools.count())

    def made(self, external_id: str) -> dict[str, object]:
        """Make a run; the server's answer."""
        answers = self.ask(iter([self.create(external_id)])).answers
        answer: dict[str, object] = json.loads(answers.last.partition(b"\r\n\r\n")[2])
        return answer

    def ask(
        self, requests: Iterator[bytes], at_once: int = 16, keep_alive: bool = False, seconds: float = math.inf
    ) -> Cost:
        before = self._used()
        answers = drive(self._address, requests, at_once=at_once, keep_alive=keep_alive, seconds=seconds)
        return Cost(answers, self._used() - before)

    def _used(self) -> float:
        times = self._process.cpu_times()
        return times.user + times.system
