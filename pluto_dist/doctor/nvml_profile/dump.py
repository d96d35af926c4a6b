"""What does NVIDIA's library answer here, as a profile that the fake driver of the tests takes?

So that a bug report becomes a test. Values, error codes and stalls are written as NVML gave them, UUIDs as
pseudonyms; host names and what processes are called are not asked at all.
"""

from __future__ import annotations

import hashlib
import re
from functools import partial
from typing import Any

from pluto_dist.doctor.asking import Asked
from pluto_dist.doctor.installed import installed_version
from pluto_dist.doctor.nvml_profile import functions
from pluto_dist.doctor.nvml_profile.recorder import SYSTEM, Recorder
from pluto_dist.inventory.gpu.nvidia import import_pynvml
from pluto_dist.inventory.gpu.nvidia_fields import MOST_NVLINKS
from pluto_dist.inventory.limits import MIG_LIMIT
from pluto_dist.inventory.safe_read import attempt
from pluto_dist.version import __version__

DEVICES = 64  # of the fake driver, MIG instances included
NOT_FOUND = 6  # an empty MIG slot
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def write(timeout: float, *, keep_ids: bool = False) -> bytes:
    """This machine's profile.

    Args:
        timeout: seconds. A driver that answers no more is written as one that stalls, with what it said before.
        keep_ids: UUIDs and serial numbers as they are.
    """
    recorder = Recorder()
    _, failure = attempt(partial(Asked(partial(_record, recorder)).answer, timeout))
    head = f"# pluto-dist {__version__}, nvidia-ml-py {installed_version('nvidia-ml-py')}"
    lines = [head, *recorder.lines()]
    if not keep_ids:
        lines = [f"{head}; ids are pseudonyms", *map(anonymous, lines[1:])]
    if failure is not None:
        lines.insert(1, f"# {failure}")
    return "\n".join([*lines, ""]).encode("utf-8", "surrogateescape")


def anonymous(line: str) -> str:
    """The line of a profile without what names a piece of hardware; an id has the same pseudonym everywhere.

    A UUID is too random to be found again from its digest. A serial number is not, so none of it is kept.

    >>> anonymous("dev.0.uuid=GPU-5fd4f087-86f3-7a43-b711-4771313afc50")
    'dev.0.uuid=GPU-6fabd3fa-e7ba-aeb1-f945-09ce522c7214'
    >>> anonymous("dev.0.serial=1650924040000"), anonymous("dev.0.temp=31")
    ('dev.0.serial=0', 'dev.0.temp=31')
    """
    key, _, value = line.partition("=")
    if key.endswith(".serial"):
        return f"{key}=0"
    if key.endswith(".fabric.cluster") and value.strip("0"):  # all zeros: in no cluster
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
        _Devices(recorder, nvml, min(count, DEVICES)).record()
    finally:
        attempt(nvml.nvmlShutdown)


class _Devices:
    """The walk over all devices. MIG instances get the numbers after theirs."""

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
            self._take(device, getter, handle)
        self._nvlinks(device, handle)
        self._mig(device, handle)

    def _take(self, device: int, getter: functions.Getter, handle: Any) -> None:
        answer = self._recorder.call(device, getter.symbol, partial(getter.read, self._nvml, handle))
        if answer is not None:
            for key, value in getter.values(answer).items():
                self._recorder.put(device, key, value)

    def _nvlinks(self, device: int, handle: Any) -> None:
        """The fake takes the first ones for those that are up."""
        states = []
        for link in range(MOST_NVLINKS):
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
            if instance is None or number >= DEVICES:
                continue
            self._instances += 1
            self._recorder.put(device, f"mig.{slot}", number)
            for getter in functions.IDENTITY:
                self._take(number, getter, instance)

    def _pairs(self, device: int, handles: dict[int, Any]) -> None:
        for symbol, (key, args) in functions.PAIRS.items():
            found = {}
            for other in handles.keys() - {device}:
                read = partial(getattr(self._nvml, symbol), handles[device], handles[other], *args)
                if (answer := self._recorder.call(device, symbol, read)) is not None:
                    found[other] = answer
            if len(set(found.values())) == 1:
                self._recorder.put(device, key, next(iter(found.values())))
            else:
                for other, answer in found.items():
                    self._recorder.put(device, f"{key}.{other}", answer)
