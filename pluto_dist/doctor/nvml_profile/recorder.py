"""What did the driver answer so far? Values, error codes and stalls, as the lines of a profile.

The driver is asked in one thread, and another may want the lines while it does not answer.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pluto_dist.inventory.gpu.nvidia import GONE, GpuGoneError, error_name
from pluto_dist.inventory.safe_read import attempt

STALL_MS = 100  # what takes longer is written as a stall
FOR_EVER_MS = 600_000  # for a call that has not come back

Place = tuple[int, str]
SYSTEM = -1
"""The device of what is no device's."""


class Recorder:
    """Records calls. ``device`` is a number or :data:`SYSTEM`, ``symbol`` the library's name of a function."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[Place, str] = {}
        self._errors: dict[Place, int] = {}
        self._answered: set[Place] = set()
        self._milliseconds: dict[str, int] = defaultdict(int)
        self._waiting: str | None = None
        self._notes: dict[str, None] = {}

    def put(self, device: int, key: str, value: object) -> None:
        """Record a value; an empty one is as good as none. Bytes that are no UTF-8 are kept, as surrogates."""
        text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)
        if text:
            with self._lock:
                self._values[device, key] = text

    def call(self, device: int, symbol: str, read: Callable[[], Any], *, expected: int = 0) -> Any:
        """What ``read`` gives, or ``None`` and its error is recorded, but for the ``expected`` code.

        Raises:
            GpuGoneError: the device is lost; it must not be asked again.
        """
        with self._lock:
            self._waiting, began = symbol, time.monotonic()
        value, error = attempt(read)
        if isinstance(error, UnicodeDecodeError):  # pynvml decodes names, and fails over what is no UTF-8
            value, error = error.object, None
        with self._lock:
            self._waiting = None
            self._milliseconds[symbol] = max(self._milliseconds[symbol], round(1000 * (time.monotonic() - began)))
            if error is None:
                self._answered.add((device, symbol))
            elif isinstance(code := getattr(error, "value", None), int):
                self._errors.update({(device, symbol): code} if code != expected else {})
            else:  # pynvml's own: the library is too old to have the function, or pynvml is
                self._notes[f"# {symbol}: {type(error).__name__}"] = None
        if error is not None and error_name(error) in GONE:
            raise GpuGoneError(error_name(error))
        return value

    def lines(self) -> tuple[str, ...]:
        """The profile: notes, stalls, the system, what all devices share, what each has of its own."""
        with self._lock:
            # A function of several values that gave one of them: what it did not give is unsupported, as by default.
            failed = {place: code for place, code in self._errors.items() if place not in self._answered}
            stalls = {symbol: spent for symbol, spent in self._milliseconds.items() if spent >= STALL_MS}
            if self._waiting is not None:
                stalls[self._waiting] = FOR_EVER_MS
            entries = self._values | {(device, f"{symbol}.rc"): str(code) for (device, symbol), code in failed.items()}
            notes = tuple(self._notes)
        system = (f"{key}={value}" for (device, key), value in entries.items() if device == SYSTEM)
        devices = {place: value for place, value in entries.items() if place[0] != SYSTEM}
        return (*notes, *(f"{symbol}.ms={spent}" for symbol, spent in stalls.items()), *system, *_lines_of(devices))


def _lines_of(entries: Mapping[Place, str]) -> Iterator[str]:
    """The devices' lines; ``dev.*`` where all that answer say the same.

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
