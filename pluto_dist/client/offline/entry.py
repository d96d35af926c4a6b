"""One request that waits for its tracker, and the order in which those of a run are to be sent.

Pure but for the clock. What is read back is data, and believed only in the shape of the contract.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pluto_dist.contract.run_ref import Reference, RunName
from pluto_dist.contract.run_requests import CreateRunRequest, UpdateConfigRequest, UpdateStatusRequest
from pluto_dist.contract.validation import ContractError, Record

FORMAT = 1

Kind = Literal["create", "config", "status"]
KINDS: tuple[Kind, ...] = get_args(Kind)
REQUESTS: dict[Kind, type[Record]] = {
    "create": CreateRunRequest,
    "config": UpdateConfigRequest,
    "status": UpdateStatusRequest,
}
Request = CreateRunRequest | UpdateConfigRequest | UpdateStatusRequest


@dataclass(frozen=True, slots=True)
class Entry:
    """One request that is to be sent.

    Attributes:
        run: whose it is.
        launch: the token of the launch that wanted to send it.
        kind: which operation of the contract.
        at: when, in ms since 1970 by the writer's clock; of one process's entries none is earlier than the one before.
        request: as it is to be sent; its ``run_id`` is 0 where no tracker had answered yet.
        key: under which a create's attempt is recorded; "" for other requests.
        fork_of: the display id of the run that a create forks from, where only that is known.
    """

    run: RunName
    launch: str
    kind: Kind
    at: int
    request: Request
    key: str = ""
    fork_of: str = ""

    def to_json(self) -> dict[str, Any]:
        reference = {"kind": self.run.reference.kind, "value": self.run.reference.value}
        return {
            "format": FORMAT,
            "origin": self.run.origin,
            "project": self.run.project,
            "reference": reference,
            "launch": self.launch,
            "kind": self.kind,
            "at": self.at,
            "key": self.key,
            "fork_of": self.fork_of,
            "request": self.request.to_json(),
        }

    @classmethod
    def from_json(cls, body: Any) -> Entry:
        """The entry in ``body``.

        Raises:
            ValueError: it is none.
        """
        if not isinstance(body, dict) or body.get("format") != FORMAT:
            raise ValueError(f"it is not of format {FORMAT}")
        reference = body.get("reference")
        texts = [body.get(name) for name in ("origin", "project", "launch", "key", "fork_of")]
        if not all(isinstance(text, str) for text in texts) or type(body.get("at")) is not int:
            raise ValueError("a field is missing, or has another type")
        if body.get("kind") not in KINDS or not isinstance(reference, dict):
            raise ValueError("its kind is unknown")
        try:
            request: Any = REQUESTS[body["kind"]].from_json(body.get("request"))
        except ContractError as error:
            raise ValueError(str(error)) from error
        name = RunName(body["origin"], body["project"], Reference.of(reference.get("kind"), reference.get("value")))
        return cls(name, body["launch"], body["kind"], body["at"], request, body["key"], body["fork_of"])


def in_order(entries: Sequence[Entry]) -> list[Entry]:
    """``entries`` in the order in which they are to be sent.

    Launches by their first entry; of a launch first what creates the run, then what changes it, last its end:
    so a clock that was set back in the middle of a launch mixes up nothing.
    """
    begun: dict[str, int] = {}
    for entry in entries:
        begun[entry.launch] = min(entry.at, begun.get(entry.launch, entry.at))
    return sorted(entries, key=lambda entry: (begun[entry.launch], entry.launch, KINDS.index(entry.kind), entry.at))


_clock = threading.Lock()
_last_at = 0


def next_ms() -> int:
    """The time for this process's next entry: its clock, but never earlier than the last one."""
    global _last_at  # noqa: PLW0603  # one order for all entries of a process
    with _clock:
        _last_at = max(_last_at + 1, time.time_ns() // 1_000_000)
        return _last_at
