"""Messages between ranks, as records, and how text from the store becomes one.

What is read from the store is data from the network: JSON of at most 1 MiB, checked by the codec. Neither a key nor a
pickle is ever written there. Whether what it says is true is asked of the tracker (``lifecycle.belief``).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pluto_dist.contract.run_ref import Reference
from pluto_dist.contract.run_requests import CreateRunResponse
from pluto_dist.contract.validation import parse_document
from pluto_dist.errors import ExchangeError, readable
from pluto_dist.serialization import codec
from pluto_dist.serialization.text import parse_digits

T = TypeVar("T")
MESSAGE_LIMIT = 1 << 20  # characters
_text = codec.text_of(MESSAGE_LIMIT)


@dataclass(frozen=True, slots=True)
class Member:
    """One rank as the others see it.

    Attributes:
        rank: global rank.
        node: name of the node within the launch: its node rank, or its host if that is unknown.
        nonce: equal on the ranks of a node in one attempt, different in the next.
        host: host name, for messages.
    """

    rank: int
    node: str
    nonce: str
    host: str


@dataclass(frozen=True, slots=True)
class AgreedId:
    """The id of a run, the rank that proposed it, its source, and the variables that name that rank's launch."""

    reference: Reference
    source: str
    rank: int
    host: str
    variables: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.reference.kind,
            "value": self.reference.value,
            "source": self.source,
            "variables": dict(self.variables),
            "rank": self.rank,
            "host": self.host,
        }

    @classmethod
    def from_json(cls, value: Any, where: str = "AgreedId") -> AgreedId:
        """The id in ``value``; ValueError if there is none."""
        decoders = {
            "kind": _text,
            "value": _text,
            "source": _text,
            "variables": codec.pairs(_text, MESSAGE_LIMIT),
            "rank": codec.decode_int,
            "host": _text,
        }
        fields = codec.decode_fields(value, where, decoders, decoders)
        reference = Reference.of(fields["kind"], fields["value"])
        source = readable(fields["source"], kept="")
        return cls(reference, source, fields["rank"], fields["host"], fields["variables"])


@dataclass(frozen=True, slots=True)
class PriorAttempt:
    """What an earlier attempt of this launch recorded of its run.

    Attributes:
        run_id: the tracker's number of the run; ``None`` if it was not known (the run may exist all the same).
        joined: whether ``init()`` returned in it, online or offline.
    """

    run_id: int | None
    joined: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of creating the run, equal on every rank.

    Attributes:
        kind: "online", "offline" (``message`` is the reason) or "error" (``error`` is the class of the exception).
        answer: the tracker's, if online.
        resumed: whether an earlier attempt or launch was already in this run.
        error: name of the exception's class.
        message: of the exception, or the reason.
        at: when it was made, seconds since 1970; read by earlier versions alone.
    """

    kind: Literal["online", "offline", "error"]
    answer: CreateRunResponse | None = None
    resumed: bool = False
    error: str = ""
    message: str = ""
    at: float = 0.0

    def is_to_be_kept(self, on_error: str) -> bool:
        """Whether the run's requests are kept for later: the tracker may take them once it answers, or has the key."""
        return self.kind == "offline" or (self.error == "AuthenticationError" and on_error == "warn")

    def to_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "answer": self.answer and self.answer.to_json()}

    @classmethod
    def from_json(cls, value: Any, where: str = "Outcome") -> Outcome:
        """The outcome in ``value``; ValueError if there is none."""
        decoders = {
            "kind": codec.one_of("online", "offline", "error"),
            "resumed": codec.decode_bool,
            "error": _text,
            "message": _text,
            "at": codec.decode_float,
        }
        fields = codec.decode_fields(value, where, decoders, decoders)
        answer = CreateRunResponse.from_json(value.get("answer")) if fields["kind"] == "online" else None
        return cls(answer=answer, **fields)


def dump(message: Mapping[str, Any]) -> str:
    """``message`` as text in the store."""
    return json.dumps(message, separators=(",", ":"))


def load(text: str, decode: codec.Decode, what: str) -> Any:
    """The message in ``text``, as ``decode`` makes it.

    Args:
        text: a value of the store.
        decode: from the JSON value, and a name for errors, to the result.
        what: what the message is, for errors.

    Raises:
        ExchangeError: it is too long, not JSON, or not such a message.
    """
    if len(text) > MESSAGE_LIMIT:
        raise ExchangeError(f"a message in the store has {len(text)} characters; at most {MESSAGE_LIMIT} are read")
    try:
        message = parse_document(text)
    except ValueError as error:
        raise ExchangeError(f"a message in the store is not JSON: {text[:80]!r}") from error
    try:
        return decode(message, what)
    except ValueError as error:
        raise ExchangeError(f"a message in the store is not as expected ({str(error)[:300]}): {text[:80]!r}") from error


def number(text: str) -> int:
    """The number in a message.

    Raises:
        ExchangeError: it is not a number.
    """
    found = parse_digits(text)
    if found is None:
        raise ExchangeError(f"the store holds {text[:40]!r} where a number should be")
    return found
