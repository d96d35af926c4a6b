"""Encoded configs: the stored form and the warnings of each kind of value, and the laws that hold for any object.

``python tests/serialization/test_encode.py`` prints the table of values.
"""

from __future__ import annotations

import argparse
import array
import collections
import copy
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import itertools
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import time
import types
import uuid
from typing import Any, NamedTuple
from unittest import mock

import attrs
import numpy as np
import pydantic
import pydantic.v1
import pytest
import requests
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from pluto_dist.contract.run_requests import CreateRunRequest, refusals
from pluto_dist.errors import ConfigurationError
from pluto_dist.serialization.encode import encode
from pluto_dist.serialization.types import Encoded, Loss, summary
from pluto_dist.server import LocalServer

MEBIBYTE = 1024 * 1024
TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=8)
KEYS = TEXTS.filter(lambda key: key != "__proto__")
CLEAN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
CONFIGS = st.dictionaries(KEYS.filter(lambda key: key != "pluto_dist"), CLEAN, max_size=3)


class Precision(enum.Enum):
    HALF = "fp16"
    TUPLE = (8, 23)


class Level(enum.IntEnum):
    HIGH = 3


@dataclasses.dataclass
class Optim:
    lr: float = 0.1
    betas: tuple[float, float] = (0.9, 0.999)


@dataclasses.dataclass
class Spec:
    """Has the attributes of an array, but is not one."""

    shape: tuple[int, ...] = (1, 2)
    dtype: str = "float32"


class Point(NamedTuple):
    x: int
    y: int


@attrs.define
class Data:
    path: pathlib.Path
    _workers: int = 4


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    width: int = 8
    key: pydantic.SecretStr = pydantic.SecretStr("hunter2")
    hidden: str = pydantic.Field("never sent", exclude=True)


class Rows(pydantic.RootModel[dict[str, int]]):
    pass


class OldModel(pydantic.v1.BaseModel):
    width: int = 8
    hidden: str = pydantic.v1.Field("never sent", exclude=True)


class Foreign:
    def method(self) -> None: ...


class Raising:
    """Raises in every method that Python calls on an object."""

    def __repr__(self) -> str:
        raise ValueError("no repr")

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    @property
    def __class__(self) -> Any:
        raise RuntimeError("no class")

    def __iter__(self) -> Any:
        raise ValueError("no items")

    def __len__(self) -> int:
        raise ValueError("no length")

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        raise ValueError("no equality")

    def __bool__(self) -> bool:
        raise ValueError("no truth")


class Endless(collections.abc.Mapping):  # type: ignore[type-arg]
    """A mapping that never ends."""

    def __getitem__(self, key: Any) -> Any:
        return key

    def __iter__(self) -> Any:
        return itertools.count()

    def __len__(self) -> int:
        raise OverflowError


class Halfway(collections.abc.Mapping):  # type: ignore[type-arg]
    """One value, one that cannot be read, then an iterator that raises."""

    def __getitem__(self, key: Any) -> Any:
        return {"good": 1}[key]

    def __iter__(self) -> Any:
        yield from ("good", "bad")
        raise OSError

    def __len__(self) -> int:
        return 5


class Dated(datetime.date):
    def isoformat(self) -> Any:
        return Raising()


class Sticky(str):
    def replace(self, *args: Any) -> Any:
        raise ValueError


class Case(NamedTuple):
    """A value, its stored form, and words of its warning (None: no warning)."""

    id: str
    value: Any
    stored: Any
    warned: str | None = None


def f() -> None: ...


def generate() -> Any:
    yield 1


def nested(depth: int) -> Any:
    value: Any = "bottom"
    for _ in range(depth):
        value = [value]
    return value


def shared(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value, value]
    return value


HERE = __name__
OMEGA = {"lr": 0.1, "twice": "${lr}", "lost": "${nope}", "due": "???", "list": [1, "${lr}", "${nope}"]}
PLAIN_CASES = (
    Case("text", "a", "a"),
    Case("integer", 3, 3),
    Case("float", 1e-3, 1e-3),
    Case("bool", True, True),
    Case("none", None, None),
    Case("nan", math.nan, "NaN", "no JSON number"),
    Case("infinity", math.inf, "Infinity", "no JSON number"),
    Case("minus infinity", -math.inf, "-Infinity", "no JSON number"),
    Case("nan in a list", [1.0, math.nan], [1.0, "NaN"], "no JSON number"),
    Case("the largest exact integer", 2**53, 2**53),
    Case("an integer beyond", 2**53 + 1, "9007199254740993", "beyond 2**53"),
    Case("a negative one", -(2**63), "-9223372036854775808", "beyond 2**53"),
    Case("a huge integer", 10**5000, "integer of 16,610 bits", "too long"),
    Case("NUL", "a\x00b", "ab", "NUL"),
    Case("lone surrogate", "caf\udce9", "caf\ufffd", "lone surrogates"),
    Case("surrogate pair", "\ud83d\ude00", "\U0001f600"),
    Case("str subclass", Sticky("s\x00"), "s", "NUL"),
    Case("enum", Precision.HALF, "fp16"),
    Case("enum of a tuple", Precision.TUPLE, "TUPLE"),
    Case("int enum", Level.HIGH, 3),
    Case("flag", re.IGNORECASE | re.ASCII, 258),
    Case("path", pathlib.PurePosixPath("/data/x"), "/data/x"),
    Case("datetime", datetime.datetime(2025, 1, 2, 3, tzinfo=datetime.timezone.utc), "2025-01-02T03:00:00+00:00"),
    Case("date", datetime.date(2025, 1, 2), "2025-01-02"),
    Case("time", datetime.time(3, 4), "03:04:00"),
    Case("timedelta", datetime.timedelta(minutes=1.5), 90.0),
    Case("uuid", uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007"),
    Case("decimal", decimal.Decimal("0.10"), 0.1),
    Case("whole decimal", decimal.Decimal("1E+3"), 1000),
    Case("inexact decimal", decimal.Decimal("0.12345678901234567890"), "0.12345678901234567890"),
    Case("huge decimal", decimal.Decimal("1e400"), "1E+400"),
    Case("signalling decimal", decimal.Decimal("sNaN"), "NaN", "no JSON number"),
    Case("fraction", fractions.Fraction(1, 4), 0.25),
    Case("inexact fraction", fractions.Fraction(1, 3), "1/3"),
    Case("huge fraction", fractions.Fraction(10**400, 3), f"1{'0' * 400}/3"),
    Case("complex", 1 + 2j, "(1+2j)"),
    Case("tuple", (1, (2, 3)), [1, [2, 3]]),
    Case("set", {3, 1, 2}, [1, 2, 3]),
    Case("mixed set", {"b", 2, None, "a", (1, 2)}, [2, "a", "b", [1, 2], None]),
    Case("set of sets", {frozenset({"c", "b"}), frozenset({"a"})}, [["a"], ["b", "c"]]),
    Case("deque", collections.deque([2, 1]), [2, 1]),
    Case("dict values", {"a": 2, "b": 1}.values(), [2, 1]),
    Case("array.array", array.array("i", [1, 2]), [1, 2]),
    Case("range", range(3), [0, 1, 2]),
    Case("long range", range(10**30), "range(0, 1000000000000000000000000000000)"),
    Case("generator", generate(), "generator generate", "not consumed"),
    Case("endless iterator", itertools.count(), "itertools.count", "not consumed"),
    Case("named tuple", Point(1, 2), {"x": 1, "y": 2}),
    Case("bytes", b"caf\xc3\xa9", "café"),
    Case("binary bytes", b"\xff\x00", "base64:/wA="),
    Case("many binary bytes", bytearray(b"\xff" * 2000), "2,000 bytes", "not text"),
    Case("function", f, f"{HERE}.f"),
    Case("lambda", lambda: 0, f"{HERE}.<lambda>"),
    Case("builtin", len, "len"),
    Case("bound method", Foreign().method, f"{HERE}.Foreign.method"),
    Case("cached function", functools.lru_cache(f), f"{HERE}.f"),
    Case("class", Optim, f"{HERE}.Optim"),
    Case("alias", list[int], "list[int]"),
    Case("module", math, "math"),
    Case("partial", functools.partial(f), f"{HERE}.f"),
    Case("partial with arguments", functools.partial(torch.optim.SGD, lr=1), "torch.optim.sgd.SGD", "arguments"),
    Case("pattern", re.compile(r"\d+"), r"\d+"),
    Case("other object", Foreign(), f"<{HERE}.Foreign object>", "stored as its repr"),
    Case("mock", mock.Mock(), "<Mock>", "stored as its repr"),
    Case("long repr", ValueError("x" * 300), "ValueError('" + "x" * 185 + "...", "repr, cut"),
    Case("raising object", Raising(), f"<{HERE}.Raising>", "repr cannot be read"),
    Case("raising mapping", Halfway(), {"good": 1, "bad": "<unreadable>"}, "raised an exception"),
    Case("endless mapping", Endless(), "Endless of many values", "at most 100,000 values"),
    Case("namespace", argparse.Namespace(a=1), {"a": 1}),
    Case("dataclass", Optim(), {"lr": 0.1, "betas": [0.9, 0.999]}),
    Case("dataclass like an array", Spec(), {"shape": [1, 2], "dtype": "float32"}),
)
FOREIGN_CASES = (
    Case("attrs", Data(pathlib.PurePosixPath("/d")), {"path": "/d", "_workers": 4}),
    Case("pydantic", Model(extra=1), {"width": 8, "key": "**********", "extra": 1}),
    Case("pydantic root model", Rows({"a": 1}), {"a": 1}),
    Case("pydantic v1", OldModel(), {"width": 8}),
    Case(
        "omegaconf",
        OmegaConf.create(OMEGA),
        {"lr": 0.1, "twice": 0.1, "lost": "${nope}", "due": "???", "list": [1, 0.1, "${nope}"]},
        "cannot be resolved",
    ),
    Case("numpy float32", np.float32(0.5), 0.5),
    Case("numpy float64", np.float64("nan"), "NaN", "no JSON number"),
    Case("numpy longdouble", np.longdouble(0.5), 0.5),
    Case("numpy int64", np.int64(2**60), str(2**60), "beyond 2**53"),
    Case("numpy bool", np.bool_(True), True),
    Case("numpy str", np.str_("s"), "s"),
    Case("numpy datetime64", np.datetime64("2025-01-02T03:04:05.000000001"), "2025-01-02T03:04:05.000000001"),
    Case("numpy timedelta64", np.timedelta64(90, "m"), 5400.0),
    Case("numpy timedelta64 of months", np.timedelta64(2, "M"), "2 months"),
    Case("numpy record", np.array([(1, 2.0)], dtype="i4,f8")[0], {"f0": 1, "f1": 2.0}),
    Case("numpy 0-d", np.array(1.5), 1.5),
    Case("numpy 0-d of None", np.array(None), None),
    Case("numpy array", np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
    Case("numpy masked array", np.ma.masked_equal([1, 2], 2), [1, None]),
    Case("large numpy array", np.zeros((1024, 1024)), "float64 array of shape (1024, 1024)", "not copied"),
    Case(
        "empty numpy array of many rows", np.zeros((10**12, 0)), f"float64 array of shape ({10**12}, 0)", "not copied"
    ),
    Case("numpy dtype", np.dtype("float32"), "float32"),
    Case("numpy type", np.float32, "numpy.float32"),
    Case("torch scalar", torch.tensor(0.5, dtype=torch.bfloat16), 0.5),
    Case("torch half", torch.tensor([1, 2], dtype=torch.half), [1.0, 2.0]),
    Case("torch parameter", torch.nn.Parameter(torch.ones(2)), [1.0, 1.0]),
    Case("torch nan", torch.tensor([math.nan] * 64), ["NaN"] * 64, "no JSON number"),
    Case("large tensor", torch.zeros(65), "float32 tensor of shape (65,)", "not copied"),
    Case("tensor without data", torch.zeros(3, device="meta"), "float32 tensor of shape (3,) on meta", "not copied"),
    Case("0-d without data", torch.zeros((), device="meta"), "float32 tensor of shape () on meta", "not copied"),
    Case("sparse tensor", torch.eye(2).to_sparse(), "float32 tensor of shape (2, 2)", "not copied"),
    Case("torch dtype", torch.bfloat16, "torch.bfloat16"),
    Case("torch device", torch.device("cuda:0"), "cuda:0"),
    Case("torch size", torch.Size([2, 3]), [2, 3]),
    Case(
        "torch module", torch.nn.Linear(2, 1), "Linear(in_features=2, out_features=1, bias=True)", "stored as its repr"
    ),
    Case("torch generator", torch.Generator(), "<torch._C.Generator object>", "stored as its repr"),
)
CASES = PLAIN_CASES + FOREIGN_CASES


def check_storable(encoded: Encoded) -> str:
    """The law of every result: strict JSON, the same when read again, nothing that the tracker refuses."""
    text = json.dumps(encoded.value, allow_nan=False)
    read = json.loads(text)
    assert read == encoded.value and json.dumps(read) == text
    assert refusals(CreateRunRequest(run_name="r", project_name="p", config=text)) == ()
    assert len(text) <= MEBIBYTE
    again = encode(encoded.value)
    assert again.value == encoded.value and again.losses == ()
    assert all(loss.key.isprintable() and loss.what.isprintable() for loss in encoded.losses)
    assert not re.search(r"\bat 0x[0-9a-f]{6}", text)
    return text


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_value_is_stored_as_the_table_says(case: Case) -> None:
    """Every kind of value has one stored form; its loss is reported under its key."""
    encoded = encode({"k": case.value})

    assert encoded.value == {"k": case.stored}
    assert json.dumps(encoded.value) == json.dumps({"k": case.stored}), "1 is no 1.0 and no True"
    assert (case.warned is None) == (encoded.losses == ())
    assert case.warned is None or case.warned in " ".join(loss.what for loss in encoded.losses)
    assert all(re.split(r"[.\[]", loss.key)[0] == "k" for loss in encoded.losses)
    check_storable(encoded)


@pytest.mark.parametrize(
    ("keys", "stored", "warned"),
    [
        pytest.param([1, True + 1, None, 0.5], ["1", "2", "null", "0.5"], None, id="as json.dumps"),
        pytest.param([False], ["false"], None, id="bool"),
        pytest.param([Precision.HALF, Precision.TUPLE, Level.HIGH], ["fp16", "TUPLE", "3"], None, id="enum"),
        pytest.param([("a", 1), frozenset("ba"), ()], ["(a, 1)", "(a, b)", "()"], None, id="tuple"),
        pytest.param([2**64, math.nan, b"x"], [str(2**64), "NaN", "x"], None, id="numbers"),
        pytest.param([pathlib.PurePosixPath("/d"), torch.float16], ["/d", "torch.float16"], None, id="scalars"),
        pytest.param([Optim], [f"{HERE}.Optim"], None, id="class"),
        pytest.param(["", "a.b"], ["", "a.b"], None, id="unusual texts"),
        pytest.param([Foreign()], [f"<{HERE}.Foreign object>"], "stored as its repr", id="object"),
        pytest.param([Raising()], [f"<{HERE}.Raising>"], "repr cannot be read", id="raising object"),
        pytest.param([1, "1", 1.5, "1.5"], ["1", "1 (2)", "1.5", "1.5 (2)"], "an earlier key", id="collision"),
        pytest.param([1, "1", "1 (2)"], ["1", "1 (2)", "1 (2) (2)"], "an earlier key", id="collision with its cure"),
        pytest.param(["__proto__"], ["__proto___"], "which the tracker drops", id="proto"),
        pytest.param(["\x00__proto__"], ["__proto___"], "NUL", id="proto behind NUL"),
        pytest.param(["a\x00", "b\ud800"], ["a", "b\ufffd"], "NUL", id="unstorable"),
        pytest.param(["x" * 501, "x" * 502], ["x" * 497 + "...", "x" * 496 + " (2)"], "cut to 500", id="long"),
    ],
)
def test_a_key_becomes_a_text_of_its_own(keys: list[Any], stored: list[str], warned: str | None) -> None:
    """No key is lost, none has another meaning to the tracker, no value overwrites another."""
    encoded = encode({"deep": dict(zip(keys, itertools.count(), strict=False))})

    assert encoded.value == {"deep": dict(zip(stored, itertools.count(), strict=False))}
    assert warned in " ".join(loss.what for loss in encoded.losses) if warned else encoded.losses == ()
    check_storable(encoded)


def test_the_key_of_this_package_is_reserved_at_the_top_only() -> None:
    """A user's value under "pluto_dist" is stored beside that of this package."""
    encoded = encode({"pluto_dist_": 1, "pluto_dist": 2, "deep": {"pluto_dist": 3}})

    assert encoded.value == {"pluto_dist_": 1, "pluto_dist_ (2)": 2, "deep": {"pluto_dist": 3}}
    assert [loss.key for loss in encoded.losses] == ["pluto_dist_ (2)"]


WHOLE = [
    Case("none", None, {}),
    Case("dict", {"lr": 0.1}, {"lr": 0.1}),
    Case("mapping", types.MappingProxyType({"lr": 0.1}), {"lr": 0.1}),
    Case("argparse", argparse.Namespace(lr=0.1), {"lr": 0.1}),
    Case("simple namespace", types.SimpleNamespace(lr=0.1), {"lr": 0.1}),
    Case("dataclass", Optim(), {"lr": 0.1, "betas": [0.9, 0.999]}),
    Case("attrs", Data(pathlib.PurePosixPath("/d")), {"path": "/d", "_workers": 4}),
    Case("pydantic", Model(key="k"), {"width": 8, "key": "**********"}),
    Case("pydantic v1", OldModel(), {"width": 8}),
    Case("root model", Rows({"a": 1}), {"a": 1}),
    Case("named tuple", Point(1, 2), {"x": 1, "y": 2}),
    Case("omegaconf", OmegaConf.structured(Optim), {"lr": 0.1, "betas": [0.9, 0.999]}),
    Case("omegaconf of none", DictConfig(None), {}),
]


@pytest.mark.parametrize("case", WHOLE, ids=lambda case: case.id)
def test_whatever_maps_names_to_values_is_a_config(case: Case) -> None:
    """The objects that scripts use as a config are accepted."""
    assert encode(case.value).value == case.stored


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        pytest.param([("lr", 0.1)], "an object of type list", id="list"),
        pytest.param(3, "an object of type int", id="int"),
        pytest.param(Optim, "a class", id="class"),
        pytest.param(Foreign(), f"an object of type {HERE}.Foreign", id="object"),
        pytest.param(Raising(), f"an object of type {HERE}.Raising", id="raising object"),
        pytest.param(OmegaConf.create([1]), "an object of type omegaconf", id="list config"),
        pytest.param('{"key": "hunter2"}', "a text of 18 characters", id="JSON text"),
        pytest.param(pathlib.Path("config.toml"), "it is config.toml", id="other file"),
        pytest.param("missing.json", "there is no such file", id="missing file"),
        pytest.param("nul\x00.json", "cannot be read", id="impossible file"),
    ],
)
def test_anything_else_is_refused_with_what_was_seen_and_what_fixes_it(value: Any, seen: str) -> None:
    """The message has the argument, the type and a fix, and quotes no content."""
    with pytest.raises(ConfigurationError, match=re.escape(seen)) as caught:
        encode(value, argument="logger_settings")

    message = str(caught.value)
    assert message.startswith("logger_settings ") and message.count("\n") == 1
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("name", "text", "stored"),
    [
        pytest.param("c.json", '\ufeff{"lr": 0.1, "x": NaN}', {"lr": 0.1, "x": "NaN"}, id="json"),
        pytest.param(
            "c.yaml", "lr: 0.1\nat: 2025-01-02\n1: one\n", {"lr": 0.1, "at": "2025-01-02", "1": "one"}, id="yaml"
        ),
        pytest.param("c.YML", "", {}, id="empty yaml"),
        pytest.param("c.yml", "a: &a {b: *a}", {"a": {"b": "<cycle to a>"}}, id="yaml cycle"),
    ],
)
def test_a_file_is_read(tmp_path: pathlib.Path, name: str, text: str, stored: Any) -> None:
    """A path means the mapping in its file, given as text or as a path."""
    (tmp_path / name).write_text(text, encoding="utf-8")

    assert encode(tmp_path / name).value == encode(str(tmp_path / name)).value == stored


@pytest.mark.parametrize(
    ("name", "content", "seen"),
    [
        pytest.param("c.json", b"{", "Expecting property name", id="broken json"),
        pytest.param("c.json", b"[1]", "holds an object of type list", id="json list"),
        pytest.param("c.json", b"[" * 100_000, "recursion", id="deep json"),
        pytest.param("c.json", b"\xff", "decode", id="not UTF-8"),
        pytest.param("c.yaml", b"- hunter2", "holds an object of type list", id="yaml list"),
        pytest.param("c.yaml", b"a: 1\npassword: [hunter2", "in line 2", id="broken yaml"),
        pytest.param(
            "c.yaml", b"a: !!python/object:os.system {}", "could not determine a constructor", id="yaml object"
        ),
        pytest.param("c.yaml", b"a: !!int ''", "IndexError", id="yaml that yaml cannot read"),
    ],
)
def test_a_file_that_cannot_be_read_is_an_error_that_names_it(
    tmp_path: pathlib.Path, name: str, content: bytes, seen: str
) -> None:
    """The error has the file and the reason, and quotes nothing of the content."""
    (tmp_path / name).write_bytes(content)

    with pytest.raises(ConfigurationError, match=seen) as caught:
        encode(tmp_path / name)

    assert str(tmp_path / name) in str(caught.value) and "hunter2" not in str(caught.value)


def test_a_yaml_file_without_pyyaml_says_what_to_install(tmp_path: pathlib.Path) -> None:
    """yaml is imported only for a YAML file; if it is missing, the error has the command that installs it."""
    (tmp_path / "c.yaml").write_text("lr: 0.1")
    script = "import sys; sys.modules['yaml'] = None; import pluto_dist.serialization.encode as v\n"
    script += f"v.encode({str(tmp_path / 'c.yaml')!r})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert done.returncode and "Run: pip install pyyaml" in done.stderr


def test_nothing_is_imported() -> None:
    """Encoding loads no library: an object of a library that nobody imported cannot exist."""
    libraries = ["torch", "numpy", "omegaconf", "pydantic", "attrs", "attr", "yaml"]
    script = (
        "import sys, pluto_dist.serialization.encode as v\n"
        "v.encode({'a': [1, {2}, object(), len]})\n"
        f"print([name for name in {libraries} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_the_result_is_the_same_on_every_rank() -> None:
    """Each process hashes texts its own way; sets and losses are stored in one order all the same."""
    script = (
        "import json, pluto_dist.serialization.encode as v\n"
        "sets = {frozenset({'a', 'b', n, (n, 'x')}) for n in range(9)} | {'q', None, True, 2.5, float('nan'), 2**70}\n"
        "e = v.encode({'s': sets, frozenset('abc'): {'u', 'v', 'w'}})\n"
        "print(json.dumps(e.value), e.losses)"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
        ).stdout
        for seed in range(1, 6)
    }

    assert len(seen) == 1


class Remote:
    """Stands in for the device of a tensor on a GPU, which this machine lacks."""

    type = "cuda"

    def __str__(self) -> str:
        return "cuda:0"


@pytest.mark.parametrize(("shape", "copied"), [((), True), ((1,), True), ((2,), False), ((8, 8), False)])
def test_a_tensor_on_a_device_is_not_copied_unless_it_is_one_number(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], copied: bool
) -> None:
    """Copying from a device waits for its whole queue; neither tolist nor repr is called on a tensor there."""
    asked = []

    class OnDevice:
        device, dtype = Remote(), torch.float32

        def __init__(self) -> None:
            self.shape = shape

        def tolist(self) -> Any:
            asked.append("tolist")
            return 7.0 if shape == () else [7.0]

        def __repr__(self) -> str:
            asked.append("repr")
            return "copied"

    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(Tensor=OnDevice))
    stored = encode({"k": OnDevice()}).value["k"]

    assert asked == (["tolist"] if copied else [])
    assert copied or stored == f"float32 tensor of shape {shape} on cuda:0"


def test_an_array_of_an_unknown_library_is_described_without_its_repr() -> None:
    """It may live on a device, and its repr would copy it."""

    class Array:
        shape, dtype = (2, 2), "float32"

        def __repr__(self) -> str:
            raise AssertionError("copied")

    assert encode({"k": Array()}).value == {"k": "float32 Array of shape (2, 2)"}


def test_a_model_that_stands_for_itself_is_described() -> None:
    """A root model has no level of its own: one that holds itself ends as the name of its type."""

    class Root(pydantic.RootModel[Any]):
        pass

    root = Root(1)
    root.root = root

    assert encode({"k": root, "lr": 0.1}).value == {"k": f"<{Root.__module__}.{Root.__qualname__}>", "lr": 0.1}


def test_cycles_are_cut_where_they_close() -> None:
    """A container that holds itself is named by its path; one that is merely shared is written out twice."""
    config: dict[str, Any] = {"same": [1]}
    config |= {"again": config["same"], "me": config, "deep": {"list": []}}
    config["deep"]["list"].append(config["deep"])
    namespace = argparse.Namespace(inner=None)
    namespace.inner = {"up": namespace}
    config["namespace"] = namespace

    encoded = encode(config)

    assert encoded.value == {
        "same": [1],
        "again": [1],
        "me": "<cycle to config>",
        "deep": {"list": ["<cycle to deep>"]},
        "namespace": {"inner": {"up": "<cycle to namespace>"}},
    }
    assert {loss.key for loss in encoded.losses} == {"me", "deep.list[0]", "namespace.inner.up"}
    check_storable(encoded)


@pytest.mark.parametrize(("depth", "whole"), [(99, True), (100, False), (10_000, False)])
def test_depth_is_bounded(depth: int, whole: bool) -> None:
    """A hundred containers inside one another are stored; what lies deeper is described, and recursion never fails."""
    encoded = encode({"k": nested(depth)})

    assert (encoded.losses == ()) == whole
    assert "bottom" in check_storable(encoded) or not whole


def test_the_number_of_values_is_bounded_and_what_is_near_the_top_survives() -> None:
    """A list too long is described, not cut; the values beside it stay whole."""
    encoded = encode({"rows": list(range(100_001)), "lr": 0.1, "deep": {"er": {"s": 1}}})

    assert encoded.value == {"rows": "list of 100,001 values", "lr": 0.1, "deep": {"er": {"s": 1}}}
    assert summary(encoded.losses) == ("rows: left out: a config holds at most 100,000 values",)
    assert 0 < len(encode(Endless()).value) <= 100_000


def test_shared_values_do_not_explode() -> None:
    """Two to the power of sixty values, as objects shared sixty times, stop at the limit."""
    encoded = encode({"k": shared(60), "lr": 0.1}, seconds=60)

    assert encoded.value["lr"] == 0.1 and encoded.losses
    assert encode({"k": ["x" * 1_000_000] * 50_000}).value["k"].startswith("dropped: 1")


def test_a_large_document_loses_its_largest_top_level_values_first() -> None:
    """What is left fits into a mebibyte; every value that was dropped is named with its size."""
    config = {"small": "s" * 1000, "large": "l" * 900_000, "token": "t" * 3_200_000, "middle": {"m": "m" * 500_000}}
    encoded = encode(config)

    assert encoded.value == {
        "small": config["small"],
        "large": "dropped: 900.0 KB",
        "token": "dropped: 3.2 MB",
        "middle": config["middle"],
    }
    assert [loss.key for loss in encoded.losses] == ["large", "token"]
    assert encoded.suspects == ()
    check_storable(encoded)


@pytest.mark.parametrize("size", [MEBIBYTE - 9, MEBIBYTE - 8], ids=["fits", "one character too many"])
def test_the_limit_is_one_mebibyte_of_json_text(size: int) -> None:
    """Exactly so many characters as ``json.dumps`` gives."""
    encoded = encode({"k": "x" * size})

    assert (encoded.losses == ()) == (len(json.dumps({"k": "x" * size})) <= MEBIBYTE)
    check_storable(encoded)


def test_names_alone_may_be_too_long() -> None:
    """If no value is left to drop, the last keys are left out."""
    encoded = encode({f"{n:0500}": n for n in range(5000)})

    assert len(encoded.value) < 5000 and "keys are left out" in encoded.losses[-1].what
    check_storable(encoded)


@pytest.mark.parametrize(
    ("config", "suspects"),
    [
        pytest.param({"hub": [{"HF_TOKEN": "x"}]}, ("hub[0].HF_TOKEN",), id="token"),
        pytest.param(
            {"apiKey": "x", "api_key": b"y", "db-password": "z"}, ("apiKey", "api_key", "db-password"), id="keys"
        ),
        pytest.param({"secret": "", "max_tokens": 5, "auth": {"user": "u"}, "token": None}, (), id="no texts"),
        pytest.param(
            {"tokenizer": "gpt2", "author": "me", "pad_token": "<pad>", "cls_token": "[CLS]"}, (), id="no secrets"
        ),
        pytest.param({"Authorization": "x", "credentials": "y"}, ("Authorization", "credentials"), id="longer words"),
    ],
)
def test_what_looks_like_a_secret_travels_whole_and_is_named(config: Any, suspects: tuple[str, ...]) -> None:
    """The config is the user's: nothing is masked, the caller may warn."""
    encoded = encode(config)

    assert encoded.suspects == suspects and encoded.losses == ()


class Slow:
    """A value whose repr takes its time, then raises."""

    def __repr__(self) -> str:
        time.sleep(0.02)
        raise RuntimeError("unreadable")


class SlowMapping(dict):
    def __getitem__(self, key: Any) -> Any:
        time.sleep(0.02)
        raise RuntimeError("unreadable")


@pytest.mark.parametrize(
    "config",
    [
        pytest.param({"lr": 0.1, **{f"k{n}": Slow() for n in range(2000)}}, id="reprs"),
        pytest.param({"lr": 0.1, "inner": SlowMapping.fromkeys(range(2000))}, id="a mapping"),
        pytest.param({"lr": 0.1, "each": [[Slow()] for n in range(2000)]}, id="lists"),
    ],
)
def test_reading_a_config_takes_a_bounded_time(config: Any) -> None:
    """What cannot be read in time is left out, and named; what was read is kept."""
    began = time.monotonic()
    encoded = encode(config, seconds=0.5)

    assert time.monotonic() - began < 20  # 40 s in all
    assert encoded.value["lr"] == 0.1
    assert any("was not read in time" in loss.what for loss in encoded.losses)
    check_storable(encoded)


def test_interpolations_that_raise_take_no_longer_than_others() -> None:
    """2,000 of them do not convert the whole config 2,000 times."""
    began = time.monotonic()
    encoded = encode(OmegaConf.create({f"k{n}": "${nothing}" for n in range(2000)}))

    assert time.monotonic() - began < 20  # 0.6 s; 26 s if each converts the config
    assert set(encoded.value.values()) == {"${nothing}"}
    assert len(encoded.losses) == 2000


class ConfigDict:
    """What dict() takes as a mapping, without being a Mapping: ml_collections.ConfigDict."""

    def __init__(self, **values: Any) -> None:
        self._values = values

    def keys(self) -> list[str]:
        return list(self._values)

    def __getitem__(self, key: str) -> Any:
        return self._values[key]


def test_what_dict_takes_is_a_mapping() -> None:
    """Keys and items are enough, at the top and inside."""
    assert encode(ConfigDict(lr=0.1, optim=ConfigDict(name="adam"))).value == {"lr": 0.1, "optim": {"name": "adam"}}


def test_a_summary_is_bounded() -> None:
    """One line for a key however much it lost, at most ten and how many more."""
    losses = encode({f"k{n:02}": [math.nan, "\x00", math.inf] for n in range(14)}).losses

    assert len(losses) == 42
    assert len(summary(losses)) == 11 and summary(losses)[-1] == "... and 4 more"
    assert summary(losses, limit=14)[13].startswith("k13: NUL characters left out; no JSON number")
    assert summary([Loss("a", "cut")]) == ("a: cut",) and summary([]) == ()


def test_a_key_cannot_forge_a_line_of_the_log() -> None:
    """Losses are printed: their keys hold no line break and no escape."""
    assert encode({"a\n\x1b[31mERROR": math.nan}).losses[0].key == r"a\n\x1b[31mERROR"


@given(CONFIGS)
def test_clean_json_is_left_alone(config: dict[str, Any]) -> None:
    """Encoding a value that the tracker stores unchanged changes nothing, loses nothing and shares nothing."""
    encoded = encode(config)

    assert json.dumps(encoded.value) == json.dumps(config)
    assert encoded.losses == () and encoded.value is not config
    check_storable(encoded)


@given(st.integers() | st.integers(2**52, 2**54) | st.floats() | st.decimals() | st.fractions() | st.complex_numbers())
def test_a_number_is_exact_or_a_text(number: Any) -> None:
    """A number that is stored as a number equals it; every other one is a text."""
    stored = encode({"k": number}).value["k"]

    if isinstance(stored, str):
        assert stored
    elif isinstance(number, decimal.Decimal):
        assert decimal.Decimal(repr(stored)) == number
    else:
        assert stored == number and float(stored) == stored


@given(st.dictionaries(st.text(st.characters(), max_size=8), st.text(st.characters(), max_size=8), max_size=8))
def test_any_text_is_storable(config: dict[str, str]) -> None:
    """Any Python string is accepted, as key and as value; no entry is lost."""
    encoded = encode(config)

    assert len(encoded.value) == len(config)
    check_storable(encoded)


SHARED: list[Any] = [case.value for case in CASES if case.id != "endless mapping" and type(case.value) is not list]
ODD_LEAVES = (
    st.integers(0, len(SHARED) - 1).map(lambda n: SHARED[n])  # a sample's repr would be asked for
    | CLEAN
    | st.text(st.characters())
    | st.integers()
    | st.floats()
    | st.binary()
    | st.datetimes()
    | st.timedeltas()
    | st.decimals()
    | st.builds(generate)
    | st.builds(itertools.count)
    | st.builds(Raising)
    | st.builds(lambda: Dated(2025, 1, 2))
    | st.integers(0, 150).map(nested)
    | st.integers(4000, 4400).map(lambda n: 10**n)
    | st.builds(np.arange, st.integers(0, 70))
    | st.builds(torch.arange, st.integers(0, 70))
)
ODD_KEYS = st.text(st.characters(), max_size=5) | st.integers() | st.floats() | st.none() | st.booleans() | st.binary()
ODD = st.recursive(
    ODD_LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(ODD_KEYS | st.sampled_from(["__proto__", "pluto_dist", "a", "b"]), inner, max_size=4)
        | st.tuples(inner, inner)
        | st.builds(lambda v: types.SimpleNamespace(v=v), inner)
        | st.builds(lambda v: Optim(lr=v), inner)
        | st.frozensets(st.integers() | st.text() | st.floats() | st.tuples(st.integers()), max_size=4)
    ),
    max_leaves=5,
)


def tie(value: Any) -> Any:
    """``value`` with every list and dict in it made to hold itself and the whole."""
    pending = [value]
    while pending:
        inner = pending.pop()
        if type(inner) is list and len(inner) > 1:
            pending.extend(inner)
            inner.extend([inner, value])
        elif type(inner) is dict:
            pending.extend(inner.values())
            inner["me"] = inner
    return value


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.dictionaries(ODD_KEYS | st.sampled_from(["pluto_dist", "__proto__"]), ODD, max_size=4), st.booleans())
def test_any_object_becomes_storable_json(config: dict[Any, Any], tied: bool) -> None:
    """No object makes encoding raise; the tracker stores the result, and encoding it again loses nothing."""
    config = tie(copy.copy(config)) if tied else config
    encoded = encode(config)

    assert len(encoded.value) == len(config)
    check_storable(encoded)
    assert encode(config).value == encoded.value


@given(CONFIGS)
def test_the_argument_is_never_changed(config: dict[str, Any]) -> None:
    """Encoding only reads, and a change of its result does not change the argument."""
    config["pluto_dist"] = {"set": {1, 2}, "nan": [math.inf], "deque": collections.deque([1])}
    before = copy.deepcopy(config)
    encoded = encode(config)
    encoded.value.clear()

    assert config == before


@given(st.sets(st.integers() | st.text(max_size=3) | st.booleans() | st.none(), max_size=8))
def test_a_set_has_one_order(values: set[Any]) -> None:
    """Equal sets give equal lists, however they were made."""
    other: set[Any] = set()
    for value in sorted(values, key=repr):
        other.add(value)

    assert encode({"k": values}).value == encode({"k": other}).value


def test_the_tracker_stores_what_was_encoded() -> None:
    """Every value of the table comes back from the tracker as it was sent."""
    encoded = encode({case.id: case.value for case in CASES})
    with LocalServer() as server, requests.Session() as session:
        session.trust_env = False
        session.headers["Authorization"] = f"Bearer {server.api_key}"
        request = CreateRunRequest("values", "values", config=json.dumps(encoded.value))
        made = session.post(f"{server.url}/api/runs/create", json=request.to_json(), timeout=10).json()
        stored = session.get(f"{server.url}/api/runs/details/{made['runId']}", timeout=10).json()["config"]
    assert stored == encoded.value
    assert len(stored) == len(CASES) > 100


def print_table() -> None:
    """The values table, as Markdown."""
    print("| value | input | stored | warned |\n|---|---|---|---|")
    for case in CASES:
        encoded = encode({"k": case.value})
        try:
            shown = repr(case.value)
        except ValueError:
            shown = f"({case.id})"
        cells = (shown, json.dumps(encoded.value["k"], ensure_ascii=False), "; ".join(summary(encoded.losses)))
        cut = (cell.replace("\n", " ").replace("|", r"\|") for cell in cells)
        print("|", case.id, "|", " | ".join(cell if len(cell) < 90 else cell[:87] + "..." for cell in cut), "|")


if __name__ == "__main__":
    print_table()
