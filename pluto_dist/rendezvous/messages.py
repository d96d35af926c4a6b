"""What ranks tell each other, as records; and how the text that carries it is checked.

Whatever is read back is data from the network: JSON of at most 1 MiB, checked before it becomes a record. No key
and no pickle travels.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pluto_dist.contract.run_ref import Reference
from pluto_dist.contract.run_requests import CreateRunResponse
from pluto_dist.contract.validation import ContractError, parse_document
from pluto_dist.errors import ExchangeError

MESSAGE_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class Member:
    """One rank as the others see it.

    Attributes:
        rank: global rank.
        node: names the node within the launch (its node rank, or its host where that is unknown).
        nonce: equal on the ranks of a node in one attempt, another in the next.
        host: host name, for messages.
    """

    rank: int
    node: str
    nonce: str
    host: str


@dataclass(frozen=True, slots=True)
class AgreedId:
    """The id of a run, who derived it, from what, and which variables name that rank's launch."""

    reference: Reference
    source: str
    rank: int
    host: str
    variables: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class PriorAttempt:
    """What an earlier attempt of this launch left behind.

    Attributes:
        run_id: the tracker's number of its run; ``None`` where none was heard (it may exist all the same).
        lived: whether ``init()`` returned in it, online or offline.
    """

    run_id: int | None
    lived: bool


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt ended, as far as a rank could say so before it died."""

    reason: str
    rank: int
    host: str

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the run came into being, equal on every rank.

    Attributes:
        kind: "online", "offline" (``message`` says why) or "error" (``error`` is its class).
        answer: the tracker's, when online.
        resumed: whether an earlier attempt or launch already lived in this run.
        at: when it was published, seconds since 1970 by the publisher's clock: the start of the attaches' queue.
    """

    kind: Literal["online", "offline", "error"]
    answer: CreateRunResponse | None = None
    resumed: bool = False
    error: str = ""
    message: str = ""
    at: float = 0.0

    def is_to_be_kept(self, on_error: str) -> bool:
        """Whether what this run records is kept for later: the tracker may take it once it answers, or has the key."""
        return self.kind == "offline" or (self.error == "AuthenticationError" and on_error == "warn")


def read_outcome(text: str) -> Outcome:
    """The outcome in a message.

    Raises:
        ExchangeError: there is none in it.
    """
    shape = {"kind": str, "resumed": bool, "error": str, "message": str, "at": float}
    fields = load(text, shape)
    if fields["kind"] not in ("online", "offline", "error"):
        raise ExchangeError(f"the store holds an outcome of unknown kind {fields['kind'][:40]!r}")
    answer = None
    if fields["kind"] == "online":
        try:
            answer = CreateRunResponse.from_json(fields.get("answer"))
        except ContractError as error:
            raise ExchangeError(f"the store holds an answer that is {error}") from error
    return Outcome(fields["kind"], answer, fields["resumed"], fields["error"], fields["message"], fields["at"])


def dump(message: Mapping[str, Any]) -> str:
    """``message`` as it travels."""
    return json.dumps(message, separators=(",", ":"))


def load(text: str, shape: Mapping[str, type]) -> dict[str, Any]:
    """The fields of a message, those of ``shape`` checked.

    Raises:
        ExchangeError: it is too long, no JSON, or lacks one of them.
    """
    if len(text) > MESSAGE_LIMIT:
        raise ExchangeError(f"a message in the store has {len(text)} characters; at most {MESSAGE_LIMIT} are read")
    try:
        message = parse_document(text)
    except ValueError as error:
        raise ExchangeError(f"a message in the store is not JSON: {text[:80]!r}") from error
    for name, wanted in shape.items():
        if not isinstance(message, dict) or type(message.get(name)) is not wanted:
            raise ExchangeError(f"a message in the store lacks {name!r} of type {wanted.__name__}: {text[:80]!r}")
    return dict(message)


def number(text: str) -> int:
    """The number in a message.

    Raises:
        ExchangeError: it is none.
    """
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ExchangeError(f"the store holds {text[:40]!r} where a number should be")
    return int(text)
