"""One request that waits for its tracker, and the order in which those of a run are sent.

Pure but for the clock. What is read back is data, checked by the codec and by the contract.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pluto_dist.contract.run_ref import Reference, RunName
from pluto_dist.contract.run_requests import CreateRunRequest, UpdateConfigRequest, UpdateStatusRequest
from pluto_dist.contract.validation import Record
from pluto_dist.serialization import codec

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
    """One request that waits.

    Attributes:
        run: of the request.
        launch: token of the launch that made it.
        kind: operation of the contract.
        at: when, in ms since 1970 by the writer's clock; of one process's entries none is earlier than the one before.
        request: as it is to be sent; its ``run_id`` is 0 if no tracker had answered yet.
        key: of the attempt's record, of a create and of an end; "" if it is not known, and for a change of the config.
        fork_of: the display id of the run that a create forks from, if only that is known.
        resumes: whether the launch continues a run that exists only if no other launch is alive in it.
        begins: whether it goes into no run that another launch, or program, has begun (``resume=False``).
    """

    run: RunName
    launch: str
    kind: Kind
    at: int
    request: Request
    key: str = ""
    fork_of: str = ""
    resumes: bool = False
    begins: bool = False

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
            **{name: True for name in _OPTIONAL if getattr(self, name)},
        }

    @classmethod
    def from_json(cls, body: Any) -> Entry:
        """The entry in ``body``.

        Raises:
            ValueError: there is none in it.
        """
        found = _OPTIONAL | codec.decode_fields(body, "entry", _DECODERS, _DECODERS.keys() - _OPTIONAL.keys())
        if found["format"] != FORMAT:
            raise ValueError(f"it is not of format {FORMAT}")
        reference = codec.decode_fields(found["reference"], "reference", _REFERENCE, _REFERENCE)
        request: Any = REQUESTS[found["kind"]].from_json(body.get("request"))
        name = RunName(found["origin"], found["project"], Reference.of(reference["kind"], reference["value"]))
        of_create = (found["key"], found["fork_of"], *(found[name] for name in _OPTIONAL))
        return cls(name, found["launch"], found["kind"], found["at"], request, *of_create)


_text = codec.text_of(1 << 20)
_DECODERS: dict[str, codec.Decode] = {
    "format": codec.decode_int,
    "origin": _text,
    "project": _text,
    "reference": codec.decode_object,
    "launch": _text,
    "kind": codec.one_of(*KINDS),
    "at": codec.decode_int,
    "key": _text,
    "fork_of": _text,
    "resumes": codec.decode_bool,
    "begins": codec.decode_bool,
}
_OPTIONAL = {"resumes": False, "begins": False}  # what an earlier version does not write
_REFERENCE: dict[str, codec.Decode] = {"kind": _text, "value": _text}


def in_order(entries: Sequence[Entry]) -> list[Entry]:
    """``entries`` in the order in which they are to be sent.

    Launches in the order of their first entry; of a launch first what creates the run, then what changes it, last its
    end, so that a clock that is set back during a launch does not change the order.
    """
    begun: dict[str, int] = {}
    for entry in entries:
        begun[entry.launch] = min(entry.at, begun.get(entry.launch, entry.at))
    return sorted(entries, key=lambda entry: (begun[entry.launch], entry.launch, KINDS.index(entry.kind), entry.at))


_clock = threading.Lock()
_last_at = 0


def next_ms() -> int:
    """The time of this process's next entry in ms since 1970; never earlier than that of the last one."""
    global _last_at  # noqa: PLW0603  # one order for all entries of a process
    with _clock:
        _last_at = max(_last_at + 1, time.time_ns() // 1_000_000)
        return _last_at
