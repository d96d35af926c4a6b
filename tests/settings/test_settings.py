"""Argument, then environment, then default; and a key that is shown nowhere."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from pluto_dist.contract.secret import Secret
from pluto_dist.errors import ConfigurationError
from pluto_dist.settings.converters import FAMILIES
from pluto_dist.settings.settings import HOSTED_API, HOSTED_APP, HOSTED_INGEST, HOSTED_PY, VARIABLES, Settings, load

KEY = "mlps_s3cr3t-s3cr3t-s3cr3t"

# setting: (text in the environment, what it becomes, an argument, what it becomes, default)
TABLE: dict[str, tuple[str, Any, Any, Any, Any]] = {
    "api_key": (KEY, Secret(KEY), "mlpi_other", Secret("mlpi_other"), None),
    "url_api": ("http://a:1/", "http://a:1", "https://b/x", "https://b/x", HOSTED_API),
    "url_app": ("http://a:1/", "http://a:1", "https://b", "https://b", HOSTED_APP),
    "url_py": ("http://a:1/", "http://a:1", "https://b", "https://b", HOSTED_PY),
    "url_ingest": ("http://a:1/", "http://a:1", "https://b", "https://b", HOSTED_INGEST),
    "project": ("digits", "digits", "my project", "my project", "pluto"),
    "run_id": ("job-7", "job-7", 42, "42", None),
    "resume": ("1", True, False, False, None),
    "mode": ("offline", "offline", "disabled", "disabled", "online"),
    "timeout": ("2.5", 2.5, 7, 7.0, 30.0),
    "on_error": ("warn", "warn", "raise", "raise", "raise"),
    "attach_rate": ("10", 10.0, 20.5, 20.5, 50.0),
    "heartbeat": ("4", 4.0, 5, 5.0, 10.0),
    "dir": ("/scratch", Path("/scratch"), "/data", Path("/data"), None),
    "metadata": ("0", frozenset(), {"git": False}, frozenset(FAMILIES) - {"git"}, frozenset(FAMILIES)),
}
SPELLINGS = [(variable.setting, name) for variable in VARIABLES for name in variable.names]


def test_the_table_knows_every_setting():
    """Each field of Settings but the derived one has its variable, and each variable its row here."""
    fields = [field.name for field in dataclasses.fields(Settings)]
    assert fields == [*(variable.setting for variable in VARIABLES), "spool"]
    assert TABLE.keys() == {variable.setting for variable in VARIABLES}


@pytest.mark.parametrize("setting", TABLE)
def test_defaults(setting):
    """Without argument and variable the default holds."""
    assert getattr(load({}), setting) == TABLE[setting][4]


@pytest.mark.parametrize(("setting", "name"), SPELLINGS)
def test_environment_beats_default(setting, name):
    """Every variable, the SDK's older names too, gives its setting."""
    text, value, *_ = TABLE[setting]
    assert getattr(load(MappingProxyType({name: text})), setting) == value


@pytest.mark.parametrize(("setting", "name"), SPELLINGS)
def test_argument_beats_environment(setting, name):
    """An argument wins over the variable; None as an argument is no argument."""
    text, value, argument, as_setting, _ = TABLE[setting]
    assert getattr(load({name: text}, **{setting: argument}), setting) == as_setting
    assert getattr(load({name: text}, **{setting: None}), setting) == value


@pytest.mark.parametrize(("setting", "name"), SPELLINGS)
def test_an_empty_variable_is_unset(setting, name):
    """An empty variable counts as unset, as in the SDK."""
    assert getattr(load({name: ""}), setting) == TABLE[setting][4]


@pytest.mark.parametrize("variable", [v for v in VARIABLES if len(v.names) > 1], ids=lambda v: v.setting)
def test_first_names_first(variable):
    """The SDK's present name beats its older one, which counts if the present one is unset or empty."""
    text, value, argument, *_ = TABLE[variable.setting]
    new, old = variable.names
    assert getattr(load({new: text, old: str(argument)}), variable.setting) == value
    assert getattr(load({new: "", old: text}), variable.setting) == value
    assert old.startswith("MLOP_")


@pytest.mark.parametrize(
    ("environ", "arguments", "blamed"),
    [
        ({"PLUTO_URL_API": "pluto.example.com"}, {}, "PLUTO_URL_API"),
        ({"MLOP_URL_API": "ftp://x"}, {}, "MLOP_URL_API"),
        ({"PLUTO_URL_API": "http://[::1"}, {}, "PLUTO_URL_API"),
        ({"PLUTO_URL_PY": "http://"}, {}, "PLUTO_URL_PY"),
        ({"PLUTO_URL_APP": "http://me:pw@x"}, {}, "PLUTO_URL_APP"),
        ({"PLUTO_URL_API": "http://x:port"}, {}, "PLUTO_URL_API"),
        ({"PLUTO_URL_API": "http://x:99999"}, {}, "PLUTO_URL_API"),
        ({"PLUTO_DIST_RESUME": "maybe"}, {}, "PLUTO_DIST_RESUME"),
        ({"PLUTO_DIST_MODE": "Online"}, {}, "PLUTO_DIST_MODE"),
        ({"PLUTO_DIST_ON_ERROR": "ignore"}, {}, "PLUTO_DIST_ON_ERROR"),
        *(
            ({"PLUTO_DIST_TIMEOUT": bad}, {}, "PLUTO_DIST_TIMEOUT")
            for bad in ("0", "-1", "nan", "inf", "soon", "1e999")
        ),
        ({}, {"project": ""}, "project="),
        ({}, {"project": 5}, "project="),
        ({}, {"run_id": ""}, "run_id="),
        ({}, {"run_id": True}, "run_id="),
        ({}, {"run_id": 1.5}, "run_id="),
        ({}, {"run_id": 10**30}, "run_id= is read as the tracker's own number"),
        ({"PLUTO_RUN_ID": "JOB-20261128093000"}, {}, "PLUTO_RUN_ID is read as a display id"),
        ({"MLOP_RUN_ID": "20261128093000123456789"}, {}, "MLOP_RUN_ID is read as the tracker's own number"),
        ({"PLUTO_RUN_ID": "caf\udce9"}, {}, "PLUTO_RUN_ID contains a lone surrogate"),
        ({"PLUTO_RUN_ID": "x" * 256}, {}, "PLUTO_RUN_ID has 256 characters"),
        ({}, {"timeout": True}, "timeout="),
        ({}, {"timeout": 0}, "timeout="),
        ({}, {"timeout": float("nan")}, "timeout="),
        ({}, {"timeout": 10**400}, "timeout="),
        ({}, {"resume": 1}, "resume= must be True or False"),
        ({}, {"mode": "noop"}, "mode="),
        ({}, {"on_error": []}, "on_error="),
    ],
)
def test_a_value_that_cannot_be_used(environ, arguments, blamed):
    """The error names where the value came from."""
    with pytest.raises(ConfigurationError) as caught:
        load(environ, **arguments)
    assert blamed in str(caught.value)


def test_all_problems_at_once():
    """One error lists every value that cannot be used, with its origin and what it is."""
    environ = {"PLUTO_URL_API": "nowhere", "PLUTO_DIST_RESUME": "maybe", "PLUTO_DIST_HEARTBEAT": "often"}
    with pytest.raises(ConfigurationError) as caught:
        load(environ, timeout=-1, mode="later", project="")
    lines = str(caught.value).splitlines()[1:]
    assert len(lines) == 6
    for words in (
        "PLUTO_URL_API",
        "'nowhere'",
        "PLUTO_DIST_RESUME",
        "'maybe'",
        "PLUTO_DIST_HEARTBEAT",
        "timeout=",
        "mode=",
    ):
        assert words in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("text", "value"), [("1", True), ("true", True), ("YES", True), (" 1 ", True), ("0", False), ("no", False)]
)
def test_yes_and_no(text, value):
    """The words that PLUTO_DIST_RESUME takes."""
    assert load({"PLUTO_DIST_RESUME": text}).resume is value


def test_the_key_is_in_no_representation():
    """repr, str and format of the key, and of all that holds it, show nothing of it."""
    settings = load({"PLUTO_API_KEY": KEY})
    assert settings.api_key is not None
    for shown in (
        repr(settings),
        str(settings),
        f"{settings.api_key}",
        repr(settings.api_key),
        str(dataclasses.asdict(settings)),
        str(settings.api_key.__reduce_ex__.__doc__),
        repr(dataclasses.replace(settings, mode="offline")),
    ):
        assert "s3cr3t" not in shown
    assert settings.api_key.reveal() == KEY


@pytest.mark.parametrize("given", [5, b"mlps_s3cr3t", ["mlps_s3cr3t"], ""])
def test_a_key_that_cannot_be_used_is_not_shown(given):
    """The error about a key does not show it."""
    with pytest.raises(ConfigurationError) as caught:
        load({"PLUTO_DIST_TIMEOUT": "x"}, api_key=given)
    assert "api_key" in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize(
    "key", [KEY + "\n", " " + KEY, KEY + "\r\n", "\ufeff" + KEY, "mlps_\u200bs3cr3t", "mlps_s3\x00cr3t"]
)
def test_a_key_that_no_header_can_carry(key):
    """Blanks around a key (a mounted secret's last line break) are dropped; a key that cannot be sent is refused."""
    try:
        settings = load({"PLUTO_API_KEY": key})
    except ConfigurationError as error:
        assert "s3cr3t" not in str(error)  # the other outcome is as good
        return
    assert settings.api_key == Secret(KEY)


def test_a_password_in_a_url_is_not_shown():
    """A URL with a password is refused, and the error does not repeat the password."""
    with pytest.raises(ConfigurationError) as caught:
        load({"PLUTO_URL_API": "https://me:s3cr3t@pluto.example.com"})
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "app", "py"),
    [
        ({}, HOSTED_APP, HOSTED_PY),
        ({"PLUTO_URL_API": HOSTED_API + "/"}, HOSTED_APP, HOSTED_PY),
        ({"PLUTO_URL_API": "http://own:8"}, "http://own:8", "http://own:8"),
        ({"MLOP_URL_API": "http://own:8"}, "http://own:8", "http://own:8"),
        ({"PLUTO_URL_API": "http://own:8", "PLUTO_URL_APP": "http://app"}, "http://app", "http://own:8"),
        ({"PLUTO_URL_API": "http://own:8", "PLUTO_URL_PY": "http://py"}, "http://own:8", "http://py"),
        ({"PLUTO_URL_PY": "http://py"}, HOSTED_APP, "http://py"),
    ],
)
def test_no_key_of_another_tracker_goes_to_the_hosted_one(environ, app, py):
    """With another API address, pages and heartbeats use it too unless they have their own."""
    settings = load(environ)
    assert (settings.url_app, settings.url_py) == (app, py)


def test_settings_are_read_from_what_is_passed(monkeypatch):
    """The process's own environment plays no part, and the mapping is left as it is."""
    monkeypatch.setenv("PLUTO_PROJECT", "of the process")
    environ = {"PLUTO_DIST_MODE": "offline"}
    assert load(environ).project == "pluto"
    assert environ == {"PLUTO_DIST_MODE": "offline"}


def test_equal_secrets():
    """Secrets compare by value and hash alike, and equal no plain string."""
    assert Secret(KEY) == Secret(KEY)
    assert len({Secret(KEY), Secret(KEY)}) == 1
    assert Secret(KEY) != KEY


@pytest.mark.parametrize(
    ("text", "argument", "left_out"),
    [
        ("git=0,env=0", {"git": False, "env": False}, {"git", "env"}),
        (" git = no , gpu=1,", {"git": False, "gpu": True}, {"git"}),
        ("1", True, set()),
        ("false", False, set(FAMILIES)),
        ("", {}, set()),
    ],
)
def test_metadata_is_left_out_by_family(text, argument, left_out):
    """The variable and the argument mean the same; a family that is not named is in."""
    assert load({"PLUTO_DIST_METADATA": text}).metadata == frozenset(FAMILIES) - left_out
    assert load({}, metadata=argument).metadata == frozenset(FAMILIES) - left_out


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("gti=0,disc=0,env=0", ("gti, disc", "argv, env, git, gpu, host, network, packages, software")),
        ("git=off", ("True or False", "for git")),
        ("gti=0,env=2", ("has no gti", "for env")),
        ("git", ("must be 1, 0, or a list such as git=0,env=0",)),
        ({"gti": False, "env": "no"}, ("has no gti", "for env", "argv, env, git")),
        ({3: True}, ("has no 3",)),
        (3, ("True, False or a mapping",)),
        (["git"], ("True, False or a mapping",)),
    ],
)
def test_unknown_families_are_all_named(given, words):
    """An error about metadata names every unknown family, every value that is not a switch, and the known families."""
    environ, arguments = ({"PLUTO_DIST_METADATA": given}, {}) if isinstance(given, str) else ({}, {"metadata": given})
    with pytest.raises(ConfigurationError) as caught:
        load(environ | {"PLUTO_DIST_TIMEOUT": "x"}, **arguments)
    assert len(caught.value.problems) == 2
    for part in words:
        assert part in str(caught.value)
