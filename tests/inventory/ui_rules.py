"""The rules by which the Pluto UI shows a document, derived from observations of its pages.

A card is hidden if its part of the top level does not parse; a page fails if ``new URL`` rejects the remote's URL. A
document without a part has no such card, which is not a fault.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

CARDS = ("process", "platform", "cpu", "memory", "os_info", "cuda", "nccl", "gpu", "git", "konduktor", "env")


def faults(document: dict[str, Any]) -> list[str]:
    """Why a card would be hidden or a page fail; empty if everything is shown."""
    found = [f"{path} is null" for name in CARDS for path in nulls_in(document.get(name, {}), name)]
    found += [f"{name} is null" for name, value in document.items() if value is None]
    for check in (_gpu, _git, _konduktor, _numbers):
        found += check(document)
    return found


def nulls_in(value: object, path: str) -> list[str]:
    """The paths of nulls in ``value``."""
    if isinstance(value, dict):
        return [found for key, item in value.items() for found in nulls_in(item, f"{path}.{key}")]
    if isinstance(value, list):
        return [found for n, item in enumerate(value) for found in nulls_in(item, f"{path}[{n}]")]
    return [path] if value is None else []


def is_integer(value: object) -> bool:
    return type(value) is int and abs(value) < 2**53


def _gpu(document: dict[str, Any]) -> Iterator[str]:
    for vendor, card in document.get("gpu", {}).items():
        if not isinstance(card, dict) or not isinstance(card.get("driver"), str) or not is_integer(card.get("count")):
            yield f"gpu.{vendor} without driver or count"
            continue
        for device in card["devices"]:
            if not is_integer(device.get("temp")) or not isinstance(device.get("name"), str):
                yield "a device without an integer temp or a name"
            if not is_integer(device.get("memory", {}).get("total")) or device["memory"]["total"] <= 0:
                yield "a device without memory"
            if not all(is_integer(pid) for pid in device["pid"]):
                yield "a device whose pid is not a list of integers"
            if {"utilization", "clockSpeed"} & {name for name, value in device.items() if value is None}:
                yield "a device with a null"


def _git(document: dict[str, Any]) -> Iterator[str]:
    git = document.get("git")
    if git is None:
        return
    if not isinstance(git.get("diff"), dict):
        yield "git without diff"
    if not isinstance(git.get("commit"), str) or not isinstance(git.get("branch", ""), str):
        yield "git without a commit"
    url = git.get("url")
    if url is not None and not (url.startswith("git@") or can_be_a_url(url)):
        yield f"new URL({url!r}) throws"


def can_be_a_url(text: str) -> bool:
    """Whether the WHATWG URL parser accepts ``text`` with one of the schemes of a remote."""
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https", "ssh") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        return False


def _konduktor(document: dict[str, Any]) -> Iterator[str]:
    for name, value in document.get("konduktor", {}).items():
        if not (is_integer(value) if name == "total_gpus" else isinstance(value, str)):
            yield f"konduktor.{name} is {value!r}"


def _numbers(document: dict[str, Any]) -> Iterator[str]:
    for card, names in (("cpu", ("physical", "virtual")), ("memory", ("virt", "swap"))):
        for name in names:
            if name in document.get(card, {}) and not is_integer(document[card][name]):
                yield f"{card}.{name} is not an integer"
