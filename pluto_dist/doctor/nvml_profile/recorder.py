"""Records calls of NVML: values, error codes and stalls, as the lines of a profile.

One thread calls the driver; another one may read the lines while a call blocks.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pluto_dist.inventory.gpu.nvidia import LOST_ERRORS, GpuLostError, error_name
from pluto_dist.inventory.safe_read import attempt

STALL_MS = 100  # a longer call is recorded as a stall
UNFINISHED_MS = 600_000  # for a call that has not returned

Key = tuple[int, str]  # device, and key of a value or name of a function
SYSTEM = -1
"""In place of a device for functions without one."""


class Recorder:
    """Records calls. ``device`` is a number or :data:`SYSTEM`, ``symbol`` a function's name in the library."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[Key, str] = {}
        self._errors: dict[Key, int] = {}
        self._succeeded: set[Key] = set()
        self._milliseconds: dict[str, int] = defaultdict(int)
        self._waiting: str | None = None
        self._notes: dict[str, None] = {}

    def put(self, device: int, key: str, value: object) -> None:
        """Record a value; an empty one is ignored. Bytes that are not UTF-8 are kept as surrogates."""
        text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)
        if text:
            with self._lock:
                self._values[device, key] = text

    def call(self, device: int, symbol: str, read: Callable[[], Any], *, expected: int = 0) -> Any:
        """The result of ``read``; if it fails, ``None``, and the error is recorded unless its code is ``expected``.

        Raises:
            GpuLostError: the device is lost; it must not be queried again.
        """
        with self._lock:
            self._waiting, began = symbol, time.monotonic()
        value, error = attempt(read)
        if isinstance(error, UnicodeDecodeError):  # pynvml decodes names, and fails if they are not UTF-8
            value, error = error.object, None
        with self._lock:
            self._waiting = None
            self._milliseconds[symbol] = max(self._milliseconds[symbol], round(1000 * (time.monotonic() - began)))
            if error is None:
                self._succeeded.add((device, symbol))
            elif isinstance(code := getattr(error, "value", None), int):
                self._errors.update({(device, symbol): code} if code != expected else {})
            else:  # raised by pynvml: the library or pynvml is too old to have the function
                self._notes[f"# {symbol}: {type(error).__name__}"] = None
        if error is not None and error_name(error) in LOST_ERRORS:
            raise GpuLostError(error_name(error))
        return value

    def lines(self) -> tuple[str, ...]:
        """The profile: notes, stalls, system values, values that all devices share, values of single devices."""
        with self._lock:
            # A function that succeeded for some arguments: for the others the fake's default is "not supported".
            failed = {key: code for key, code in self._errors.items() if key not in self._succeeded}
            stalls = {symbol: spent for symbol, spent in self._milliseconds.items() if spent >= STALL_MS}
            if self._waiting is not None:
                stalls[self._waiting] = UNFINISHED_MS
            entries = self._values | {(device, f"{symbol}.rc"): str(code) for (device, symbol), code in failed.items()}
            notes = tuple(self._notes)
        system = (f"{key}={value}" for (device, key), value in entries.items() if device == SYSTEM)
        devices = {key: value for key, value in entries.items() if key[0] != SYSTEM}
        return (*notes, *(f"{symbol}.ms={spent}" for symbol, spent in stalls.items()), *system, *_lines_of(devices))


def _lines_of(entries: Mapping[Key, str]) -> Iterator[str]:
    """The lines of the devices; ``dev.*`` if the value is the same for all that respond.

    >>> list(_lines_of({(0, "name"): "A", (0, "temp"): "30", (1, "name"): "A", (1, "temp"): "31"}))
    ['dev.*.name=A', 'dev.0.temp=30', 'dev.1.temp=31']
    """
    of_device: dict[int, set[str]] = defaultdict(set)
    of_key: dict[str, list[str]] = defaultdict(list)
    for (device, key), value in entries.items():
        of_device[device].add(key)
        of_key[key].append(value)
    answering = sum(len(keys) > 1 for keys in of_device.values())
    shared = {key for key, values in of_key.items() if len(values) == answering > 1 and len(set(values)) == 1}
    yield from (f"dev.*.{key}={of_key[key][0]}" for key in of_key if key in shared)
    yield from (f"dev.{device}.{key}={value}" for (device, key), value in entries.items() if key not in shared)
