"""Writes the results of NVML on this machine as a profile for the fake driver of the tests.

A bug report can thus become a test. Values, error codes and stalls are written as NVML returned them, UUIDs as
pseudonyms; host names and process names are not read.
"""

from __future__ import annotations

import hashlib
import re
from functools import partial
from typing import Any

from pluto_dist.doctor.examination import DaemonCall
from pluto_dist.doctor.gpus import installed_version
from pluto_dist.doctor.nvml_profile import functions
from pluto_dist.doctor.nvml_profile.recorder import SYSTEM, Recorder
from pluto_dist.inventory.gpu.nvidia import import_pynvml
from pluto_dist.inventory.gpu.nvidia_fields import MAX_NVLINKS
from pluto_dist.inventory.records import MIG_LIMIT
from pluto_dist.inventory.safe_read import attempt
from pluto_dist.version import __version__

MAX_DEVICES = 64  # of the fake driver, MIG instances included
NOT_FOUND = 6  # an empty MIG slot
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def dump_profile(timeout: float, *, keep_ids: bool = False) -> bytes:
    """The profile of this machine.

    Args:
        timeout: seconds. A driver that stops responding is recorded as a stall, with its results until then.
        keep_ids: whether to keep UUIDs and serial numbers.
    """
    recorder = Recorder()
    _, failure = attempt(partial(DaemonCall(partial(_record, recorder)).result, timeout))
    head = f"# pluto-dist {__version__}, nvidia-ml-py {installed_version('nvidia-ml-py')}"
    lines = [head, *recorder.lines()]
    if not keep_ids:
        lines = [f"{head}; ids are pseudonyms", *map(anonymous, lines[1:])]
    if failure is not None:
        lines.insert(1, f"# {failure}")
    return "\n".join([*lines, ""]).encode("utf-8", "surrogateescape")


def anonymous(line: str) -> str:
    """A line of a profile without hardware ids; the same id always gets the same pseudonym.

    A UUID cannot be guessed from its digest. A serial number can, so it is replaced by 0.

    >>> anonymous("dev.0.uuid=GPU-5fd4f087-86f3-7a43-b711-4771313afc50")
    'dev.0.uuid=GPU-6fabd3fa-e7ba-aeb1-f945-09ce522c7214'
    >>> anonymous("dev.0.serial=1650924040000"), anonymous("dev.0.temp=31")
    ('dev.0.serial=0', 'dev.0.temp=31')
    """
    key, _, value = line.partition("=")
    if key.endswith(".serial"):
        return f"{key}=0"
    if key.endswith(".fabric.cluster") and value.strip("0"):  # all zeros: not in a cluster
        return f"{key}={_digest(value)}"
    if key.endswith(".uuid"):
        return f"{key}={UUID.sub(_pseudonym, value) if UUID.search(value) else _digest(value)}"
    return line


def _pseudonym(found: re.Match[str]) -> str:
    digest = _digest(found.group())
    return "-".join((digest[:8], digest[8:12], digest[12:16], digest[16:20], digest[20:]))


def _digest(identifier: str) -> str:
    return hashlib.sha256(identifier.lower().encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _record(recorder: Recorder) -> None:
    nvml = import_pynvml()
    if recorder.call(SYSTEM, "nvmlInitWithFlags", lambda: (nvml.nvmlInit(),)) is None:
        return
    try:
        for symbol, (key, read) in functions.SYSTEM.items():
            if (value := recorder.call(SYSTEM, symbol, partial(read, nvml))) is not None:
                recorder.put(SYSTEM, key, value)
        count = recorder.call(SYSTEM, "nvmlDeviceGetCount_v2", nvml.nvmlDeviceGetCount) or 0
        recorder.put(SYSTEM, "count", count)
        _Devices(recorder, nvml, min(count, MAX_DEVICES)).record()
    finally:
        attempt(nvml.nvmlShutdown)


class _Devices:
    """Records all devices. MIG instances are numbered after the GPUs."""

    def __init__(self, recorder: Recorder, nvml: Any, count: int) -> None:
        self._recorder, self._nvml, self._count = recorder, nvml, count
        self._instances = 0

    def record(self) -> None:
        handles = {}
        for device in range(self._count):
            get = partial(self._nvml.nvmlDeviceGetHandleByIndex, device)
            handle, _ = attempt(partial(self._recorder.call, device, "nvmlDeviceGetHandleByIndex_v2", get))
            if handle is None:
                continue
            _, lost = attempt(partial(self._device, device, handle))
            if lost is None:
                handles[device] = handle
        for device in handles:
            attempt(partial(self._pairs, device, handles))

    def _device(self, device: int, handle: Any) -> None:
        for getter in functions.DEVICE:
            self._read(device, getter, handle)
        self._nvlinks(device, handle)
        self._mig(device, handle)

    def _read(self, device: int, getter: functions.Getter, handle: Any) -> None:
        result = self._recorder.call(device, getter.symbol, partial(getter.read, self._nvml, handle))
        if result is not None:
            for key, value in getter.values(result).items():
                self._recorder.put(device, key, value)

    def _nvlinks(self, device: int, handle: Any) -> None:
        """The number of links, and of active ones; in the fake driver the first links are the active ones."""
        states = []
        for link in range(MAX_NVLINKS):
            read = partial(self._nvml.nvmlDeviceGetNvLinkState, handle, link)
            state = self._recorder.call(device, "nvmlDeviceGetNvLinkState", read)
            if state is None:
                break
            states.append(bool(state))
        if states:
            self._recorder.put(device, "nvlink.links", len(states))
            self._recorder.put(device, "nvlink.up", sum(states))

    def _mig(self, device: int, handle: Any) -> None:
        slots, _ = attempt(partial(self._nvml.nvmlDeviceGetMaxMigDeviceCount, handle))
        for slot in range(min(slots or 0, MIG_LIMIT)):
            read = partial(self._nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, slot)
            symbol = "nvmlDeviceGetMigDeviceHandleByIndex"
            instance = self._recorder.call(device, symbol, read, expected=NOT_FOUND)
            number = self._count + self._instances
            if instance is None or number >= MAX_DEVICES:
                continue
            self._instances += 1
            self._recorder.put(device, f"mig.{slot}", number)
            for getter in functions.IDENTITY:
                self._read(number, getter, instance)

    def _pairs(self, device: int, handles: dict[int, Any]) -> None:
        for symbol, (key, args) in functions.PAIRS.items():
            found = {}
            for other in handles.keys() - {device}:
                read = partial(getattr(self._nvml, symbol), handles[device], handles[other], *args)
                if (result := self._recorder.call(device, symbol, read)) is not None:
                    found[other] = result
            if len(set(found.values())) == 1:
                self._recorder.put(device, key, next(iter(found.values())))
            else:
                for other, result in found.items():
                    self._recorder.put(device, f"{key}.{other}", result)
