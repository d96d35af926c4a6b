"""Records between nodes: nothing is lost, and everything is checked."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inventory.inventories import INVENTORIES, PROCESSES
from pluto_dist.inventory.records import (
    DEVICE_LIMIT,
    Gpu,
    GpuReport,
    HostReport,
    MigInstance,
    NodeInventory,
    Process,
    SoftwareReport,
)
from pluto_dist.serialization.codec import TEXT_LIMIT
from pluto_dist.serialization.text import record_text

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(INVENTORIES)
def test_an_inventory_survives_json(inventory):
    """The record that a node reads equals the one that another node sent as JSON."""
    assert NodeInventory.from_json(json.loads(json.dumps(inventory.to_json()))) == inventory


@given(PROCESSES)
def test_a_process_survives_json(process):
    """The creator's process, too."""
    assert Process.from_json(json.loads(json.dumps(process.to_json()))) == process


@given(INVENTORIES)
def test_records_are_values(inventory):
    """Records contain neither lists nor dicts, so they are hashable and immutable."""
    assert hash(inventory) == hash(NodeInventory.from_json(inventory.to_json()))
    with pytest.raises(dataclasses.FrozenInstanceError):
        inventory.hostname = "other"


@pytest.mark.parametrize(
    ("arguments", "fields"),
    [((0,), {"colour": "green"}), ((0,), {"index": 1}), ((), {}), ((0,) * 99, {})],
    ids=["unknown", "repeated", "missing", "too many"],
)
def test_invalid_arguments(arguments, fields):
    """The constructor accepts the same arguments as that of a dataclass."""
    with pytest.raises(TypeError, match=r"Gpu\(\)"):
        Gpu(*arguments, **fields)


def test_records_are_dataclasses():
    """Position, name, default, replace, repr and equality by class are those of dataclasses."""
    gpu = Gpu(1, "H100", memory=80)
    assert (gpu.index, gpu.name, gpu.memory, gpu.uuid, gpu.pids) == (1, "H100", 80, None, ())
    assert dataclasses.replace(gpu, index=2) == Gpu(2, "H100", memory=80) != gpu
    assert repr(MigInstance("MIG-1")) == "MigInstance(uuid='MIG-1', name=None)"
    assert MigInstance("a", "b") != ("a", "b")
    assert HostReport() != SoftwareReport()
    assert copy.deepcopy(gpu) == pickle.loads(pickle.dumps(gpu)) == gpu


@given(JSON_VALUES)
def test_any_json_is_a_record_or_a_value_error(value):
    """No JSON value makes from_json fail in another way."""
    with contextlib.suppress(ValueError):
        assert isinstance(NodeInventory.from_json(value), NodeInventory)


@given(INVENTORIES, st.sampled_from([f.name for f in dataclasses.fields(NodeInventory)]), JSON_VALUES)
def test_any_invalid_field(inventory, name, value):
    """An invalid field is a ValueError that names the field."""
    changed = {**inventory.to_json(), name: value}
    try:
        NodeInventory.from_json(changed)
    except ValueError as error:
        assert str(error).startswith(f"NodeInventory.{name}")


@pytest.mark.parametrize(
    ("record", "value", "message"),
    [
        (NodeInventory, [], "NodeInventory: an object was expected, not list"),
        (NodeInventory, {"hostname": None}, "NodeInventory.hostname: a string was expected, not NoneType"),
        (NodeInventory, {"hostname": "é" * 513}, "NodeInventory.hostname: 1026 bytes, at most 1024"),
        (Gpu, {}, "Gpu.index is missing"),
        (Gpu, {"index": True}, "Gpu.index: an integer was expected, not bool"),
        (Gpu, {"index": 0, "memory": 2**53}, r"Gpu.memory: an integer from 0 to 2\*\*53 - 1"),
        (Gpu, {"index": 0, "memory": -1}, "Gpu.memory: an integer from 0"),
        (Gpu, {"index": 0, "temperature": 31.5}, "Gpu.temperature: an integer was expected, not float"),
        (Gpu, {"index": 0, "memory_kind": "hbm"}, "Gpu.memory_kind: one of unified was expected"),
        (Gpu, {"index": 0, "memory_kind": ["unified"]}, "Gpu.memory_kind: one of unified was expected"),
        (Gpu, {"index": 0, "mig": 1}, "Gpu.mig: true or false was expected"),
        (Gpu, {"index": 0, "pids": [1, "2"]}, r"Gpu.pids\[1\]: an integer was expected, not str"),
        (Gpu, {"index": 0, "pids": [1] * 1025}, "Gpu.pids: 1025 items, at most 1024"),
        (Gpu, {"index": 0, "pids": {}}, "Gpu.pids: an array was expected"),
        (HostReport, {"freq_max_mhz": float("nan")}, "HostReport.freq_max_mhz: a finite number"),
        (HostReport, {"freq_max_mhz": "3"}, "HostReport.freq_max_mhz: a number was expected"),
        (GpuReport, {"devices": [{}] * 1025}, "GpuReport.devices: 1025 items, at most 1024"),
        (GpuReport, {"devices": [{"name": "x"}]}, r"GpuReport.devices\[0\].index is missing"),
        (GpuReport, {"count": 1025}, "GpuReport: count is 1025, at most 1024"),
        (GpuReport, {"bad": []}, "GpuReport.bad: an object was expected"),
        (GpuReport, {"bad": {"03": "x"}}, "GpuReport.bad: '03' is not the index of a GPU"),
        (GpuReport, {"bad": {"1": 7}}, "GpuReport.bad.1: a string was expected, not int"),
        (GpuReport, {"bad": {"1": "x"}, "count": 1}, "GpuReport: GPU 1 is beyond the count of 1"),
        (
            GpuReport,
            {"bad": {"0": "x"}, "devices": [{"index": 0}], "count": 1},
            "GpuReport: a GPU is reported twice",
        ),
    ],
)
def test_messages(record, value, message):
    """The message names the field and the error."""
    with pytest.raises(ValueError, match=f"^{message}"):
        record.from_json(value)


def test_fields_of_another_version_are_dropped():
    """The inventory of a node with a newer version of this package is accepted."""
    assert NodeInventory.from_json({"hostname": "a", "colour": "green"}) == NodeInventory(hostname="a")


def test_the_largest_inventory_is_accepted():
    """The limits are those in the messages of from_json."""
    devices = [{"index": n, "name": "x" * TEXT_LIMIT} for n in range(DEVICE_LIMIT)]
    report = GpuReport.from_json({"devices": devices, "count": DEVICE_LIMIT})

    assert len(report.devices) == DEVICE_LIMIT


@given(st.text(st.characters(exclude_categories=())) | st.binary() | st.none())
def test_record_text_can_be_sent_and_stored(raw):
    """No NUL, no lone surrogate, at most 1 KiB, and None rather than nothing."""
    text = record_text(raw)

    assert text is None or (text and "\x00" not in text and len(text.encode()) <= TEXT_LIMIT)


def test_long_text_is_cut_between_characters():
    """The cut never leaves half a character."""
    assert record_text("é" * 600) == "é" * 512
