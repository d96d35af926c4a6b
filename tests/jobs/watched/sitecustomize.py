"""Watches the frames of pluto_dist in a process: what their local variables refer to must not have the API key in it.

Python imports this at its start, in every process of a job whose PYTHONPATH has this folder. It reports to the folder
WATCHED, one file per process: each finding on a line, and at the end how many frames were looked at. A traceback that
shows local variables shows no more: it can begin at any line of any function. The key is in WATCHED/key.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections import Counter, deque
from types import BuiltinFunctionType, FrameType, FunctionType, ModuleType, TracebackType
from typing import Any

FOLDER, KEY = os.environ.get("WATCHED"), ""
DEPTH, MOST_ITEMS, MOST_LOOKS = 5, 200, 2  # MOST_LOOKS: at each line of each function
OPENED_IN = "contract/secret.py"  # the one place
_PACKAGE = os.sep + "pluto_dist" + os.sep
_OPAQUE = (ModuleType, type, FunctionType, BuiltinFunctionType, FrameType, TracebackType, int, float, bool, type(None))

_looks: Counter[tuple[Any, int]] = Counter()
_found: set[str] = set()


def holds_key(value: Any, depth: int = DEPTH) -> bool:
    """Whether the key is in ``value``, its repr, its items or its attributes."""
    if isinstance(value, _OPAQUE):
        return False
    if isinstance(value, str):
        return KEY in value
    if isinstance(value, (bytes, bytearray)):
        return KEY.encode() in value
    if depth == 0:
        return False
    inside = _inside(value)
    if (depth == DEPTH or not inside) and KEY in _repr(value):
        return True
    return any(holds_key(inner, depth - 1) for inner in inside)


def _inside(value: Any) -> list[Any]:
    if isinstance(value, (dict, os._Environ)):
        return [each for pair in list(value.items())[:MOST_ITEMS] for each in pair]
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        return list(value)[:MOST_ITEMS]
    inside = list(getattr(value, "__dict__", {}).values())
    for cls in type(value).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            try:
                inside.append(object.__getattribute__(value, name))
            except AttributeError:
                continue
    inside += [getattr(value, name) for name in ("__self__", "args", "keywords") if type(value).__name__ in _CALLS
               and hasattr(value, name)]  # fmt: skip
    return inside


_CALLS = ("method", "partial")


def _repr(value: Any) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001  # an object that is half built, or anybody's
        return ""


def _look(frame: FrameType, event: str, arg: Any) -> Any:
    code = frame.f_code
    _looks[code, frame.f_lineno] += 1
    if _looks[code, frame.f_lineno] <= MOST_LOOKS and not code.co_filename.endswith(OPENED_IN):
        _check(frame)
        if event == "exception":
            _walk(arg[1], arg[2])
    return _look


def _check(frame: FrameType) -> None:
    for name, value in list(frame.f_locals.items()):
        if holds_key(value):
            _found.add(f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}: {name}")


def _walk(error: BaseException | None, trace: TracebackType | None, depth: int = 5) -> None:
    """All frames of an exception and of what led to it, of libraries too."""
    while error is not None and depth:
        while trace is not None:
            if not trace.tb_frame.f_code.co_filename.endswith(OPENED_IN):
                _check(trace.tb_frame)
            trace = trace.tb_next
        if holds_key(error):
            _found.add(f"{type(error).__name__}: {str(error)[:80]!r}")
        error, depth = error.__cause__ or error.__context__, depth - 1
        trace = None if error is None else error.__traceback__


def _trace(frame: FrameType, event: str, arg: Any) -> Any:
    return _look if _PACKAGE in frame.f_code.co_filename else None


def _report() -> None:
    sys.settrace(None)
    with open(f"{FOLDER}/{os.getpid()}.txt", "w") as file:  # noqa: PTH123
        file.writelines(f"{line}\n" for line in sorted(_found))
        file.write(f"frames {sum(_looks.values())}\n")


if FOLDER:
    with open(f"{FOLDER}/key") as file:  # noqa: PTH123
        KEY = file.read()
    threading.settrace(_trace)
    sys.settrace(_trace)
    atexit.register(_report)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_found.clear)
