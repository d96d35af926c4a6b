"""A secret, and the environment without it."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle

import pytest

from pluto_dist.contract.secret import KEY_VARIABLES, Environ, Secret
from pluto_dist.settings.settings import Settings, load

KEY = "mlps_s3cr3t"


@pytest.fixture
def settings() -> Settings:
    return load({"PLUTO_API_KEY": KEY})


def test_nothing_shows_it(settings: Settings):
    """Neither repr nor pickle, asdict, the slots of the class, nor JSON with str as a way out."""
    secret = settings.api_key
    shown = (repr(settings), f"{secret}", repr(dataclasses.asdict(settings)), pickle.dumps(settings, 2))
    shown += (repr(Secret.__slots__), repr(secret._open), json.dumps(dataclasses.asdict(settings), default=str))
    assert not [each for each in shown if KEY in str(each)]


def test_copies(settings: Settings):
    """A copy is the secret itself; a pickled one is none."""
    assert copy.deepcopy(settings).api_key.reveal() == copy.copy(settings.api_key).reveal() == KEY
    assert pickle.loads(pickle.dumps(settings.api_key)).reveal() == ""


@pytest.mark.parametrize("name", KEY_VARIABLES)
def test_an_environment(name: str):
    """It has every variable but the key's, which stays with it over changes."""
    environ = Environ({name: f" {KEY}\n", "HOME": "/root", "LANG": "C"}).changed({"LANG": None, "A": "1"})
    assert dict(environ) == {"HOME": "/root", "A": "1"} and name not in environ
    assert Environ(environ).secret(name) == Secret(KEY) and KEY not in repr(vars(Environ)) + repr(environ)
    assert Environ({name: ""}).secret(name) is None


def test_masking():
    """In texts and in bytes; an empty secret masks nothing."""
    assert Secret(KEY).masked(f"a {KEY} b") == "a *** b"
    assert Secret(KEY).masked_bytes(KEY.encode()) == b"***"
    assert Secret("").masked("abc") == "abc" and Secret("").masked_bytes(b"abc") == b"abc"
