"""Access to values whose code may raise anything; the one module of this package that catches every exception.

>>> attempt(lambda: 1 + 1, Leaf("?"))
2
>>> described(print).value
'<built-in function print>'
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

from pluto_dist.serialization.types import REPR_LIMIT, Leaf

T = TypeVar("T")
D = TypeVar("D")

_NAME_OF = type.__dict__["__name__"].__get__  # whatever a metaclass makes of __name__
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+| id='\d+'")  # the second is unittest.mock's


def attempt(read: Callable[[], T], otherwise: D) -> T | D:
    """What ``read`` returns, or ``otherwise`` if it raises.

    Reading a config runs code of its objects (properties, ``__iter__``, ``__repr__``, resolvers), which may raise
    anything. That must not lose the other values or stop the training.
    """
    try:
        return read()
    except Exception:  # noqa: BLE001  # border: the code of any object; a value that cannot be read is described
        return otherwise


def child(read: Callable[[], object]) -> object:
    """What ``read`` returns, or a leaf that stands for an unreadable value."""
    return attempt(read, Leaf("<unreadable>", "raised an exception when it was read"))


def take(values: Iterable[T], limit: int, until: float = math.inf) -> tuple[list[T], str | None]:
    """The first ``limit`` values, and why they are fewer if the iterator raises or is not done in time.

    Args:
        values: iterated over once.
        limit: number of values.
        until: on the monotonic clock.
    """
    taken: list[T] = []

    def fill() -> str | None:
        for value in islice(values, limit):
            taken.append(value)
            if time.monotonic() > until:
                return "was not read in time"
        return None

    return taken, attempt(fill, "raised an exception")


def attributes(value: object, names: Iterable[str]) -> Iterator[tuple[object, object]]:
    """The named attributes of ``value``; one that cannot be read does not affect the others."""
    for name in names:
        yield name, child(lambda name=name: getattr(value, name))  # type: ignore[misc]


def is_a(value: object, *types: type) -> bool:
    """Whether the type of ``value`` is one of these; ``isinstance`` would read the object's ``__class__`` too."""
    return issubclass(type(value), types)


def size_of(value: object) -> int | None:
    """``len(value)``, or None if it has none."""
    return attempt(lambda: len(value), None)  # type: ignore[arg-type]


def short_name(value: object) -> str:
    """The name of the type of ``value``."""
    name: str = _NAME_OF(type(value))
    return name


def type_name(value: object) -> str:
    """The qualified name of the type of ``value``, without ``builtins``."""
    return attempt(lambda: qualified(type(value)), "object")


def qualified(value: object) -> str:
    """``module.name`` of a class or function, without ``builtins``.

    Raises:
        TypeError: it has no such name.
    """
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not isinstance(name, str):
        raise TypeError("no qualified name")
    return f"{module}.{name}" if isinstance(module, str) and module != "builtins" else name


def described(value: object) -> Leaf:
    """The repr of ``value`` without addresses, cut to 200 characters; its type if the repr fails."""
    text = attempt(lambda: str.__str__(repr(value)), None)
    name = type_name(value)
    if text is None:
        return Leaf(f"<{name}>"[:REPR_LIMIT], "its repr cannot be read; stored as the name of its type")
    text = _ADDRESS.sub("", text)
    if len(text) > REPR_LIMIT:
        return Leaf(text[: REPR_LIMIT - 3] + "...", f"an object of type {name}; stored as its repr, cut")
    return Leaf(text, f"an object of type {name}; stored as its repr")
