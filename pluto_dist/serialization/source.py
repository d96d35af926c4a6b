"""Reads a config from the argument of ``init()``: a mapping, or the file of one; the one module here that opens a file.

>>> read_mapping([0.1], "config")
Traceback (most recent call last):
    ...
pluto_dist.errors.ConfigurationError: config is not a mapping of names to values: it is an object of type list.
Pass a dict, a namespace, an instance of a dataclass, an attrs class or a pydantic model, a DictConfig, or \
the path of a .json, .yaml or .yml file.
"""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Any

from pluto_dist.errors import ConfigurationError
from pluto_dist.serialization.adapters import node
from pluto_dist.serialization.safe_access import attempt, is_a, type_name
from pluto_dist.serialization.types import Branch

_FIX = (
    "Pass a dict, a namespace, an instance of a dataclass, an attrs class or a pydantic model, a DictConfig, or "
    "the path of a .json, .yaml or .yml file."
)


def read_mapping(config: Any, argument: str) -> tuple[object, Branch]:
    """The mapping that ``config`` is, or that its file holds, and its branch; None is an empty mapping.

    Raises:
        ConfigurationError: it is not a mapping, or its file cannot be read.
    """
    path = attempt(lambda: os.fsdecode(config) if is_a(config, str, os.PathLike) else None, None)
    source = {} if config is None else config if path is None else _read(path, argument, is_text=is_a(config, str))
    found = node(source)
    if isinstance(found, Branch) and found.shape == "mapping":
        return source, found
    if path is not None:
        raise ConfigurationError(
            f"{argument} is a file that holds no mapping of names to values: {path} holds an object of type "
            f"{type_name(source)}.\nPut its values under names."
        )
    seen, fix = f"an object of type {type_name(config)}", _FIX
    if is_a(config, type):
        seen, fix = "a class", "Pass an instance of it."
    raise ConfigurationError(f"{argument} is not a mapping of names to values: it is {seen}.\n{fix}")


def _read(path: str, argument: str, *, is_text: bool) -> object:
    suffix = Path(path).suffix.lower()
    if suffix not in {".json", ".yaml", ".yml"}:
        # The text may be a secret.
        seen = f"a text of {len(path):,} characters" if is_text else path
        raise ConfigurationError(f"{argument} is not the path of a .json, .yaml or .yml file: it is {seen}.\n{_FIX}")
    yaml = None if suffix == ".json" else _yaml(path, argument)
    try:
        if not Path(path).is_file():
            raise FileNotFoundError("there is no such file; a relative path starts from the working directory")
        text = Path(path).read_text(encoding="utf-8-sig")
        return json.loads(text) if yaml is None else _yaml_value(yaml, text)
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"{argument} cannot be read from {path}: {error}.\nCorrect the path or the file; it must hold "
            f"{'JSON' if yaml is None else 'YAML without tags of Python objects'}, in UTF-8."
        ) from error


def _yaml(path: str, argument: str) -> Any:
    try:
        return importlib.import_module("yaml")
    except ImportError as error:
        raise ConfigurationError(
            f"{argument} is the YAML file {path}, but PyYAML is not installed.\nRun: pip install pyyaml"
        ) from error


def _yaml_value(yaml: Any, text: str) -> object:
    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, LookupError, AttributeError, TypeError) as error:  # the latter for a tag such as !!int ""
        mark = getattr(error, "problem_mark", None)  # its text would quote the file, secrets too
        where = "" if mark is None else f" in line {mark.line + 1}"
        raise ValueError(f"{getattr(error, 'problem', None) or type(error).__name__}{where}") from error
    return {} if found is None else found
