"""What the user set, from three places: argument, then environment variable, then default.

Every variable this package reads stands in :data:`VARIABLES`; ``os.environ`` itself is read by ``api``
and comes in as a Mapping. The official SDK's names come first, then its older MLOP_* names; new ones
start with PLUTO_DIST_.

>>> load({"PLUTO_PROJECT": "digits"}).project
'digits'
>>> load({"PLUTO_API_KEY": "mlpi_secret"}).api_key
Secret('***')
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pluto_dist.contract.secret import Secret
from pluto_dist.errors import ConfigurationError
from pluto_dist.settings.converters import (
    FAMILIES,
    above_zero,
    chosen_families,
    families,
    folder,
    key,
    one_of,
    text,
    url,
    yes_or_no,
)

HOSTED_API = "https://pluto-api.trainy.ai"
HOSTED_APP = "https://pluto.trainy.ai"
HOSTED_PY = "https://pluto-py.trainy.ai"

SDK_EXPORTS = "PLUTO_DIST_HANDED_OVER"  # what a run put into the environment for the SDK, see `handover`

Mode = Literal["online", "offline", "disabled"]
MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True, slots=True)
class Settings:
    """What one ``init()`` works with. Times in seconds, rates per second.

    Attributes:
        api_key: the tracker's key, or ``None``: the run is kept offline.
        url_api: origin of the tracker's API.
        url_app: origin of the tracker's pages.
        url_py: origin that takes heartbeats.
        project: project name.
        run_id: the user's own id for the run, or ``None``.
        resume: go on with the run of an earlier launch; ``False`` makes an existing run an error.
        mode: "online", "offline" or "disabled".
        timeout: the most that ``init()`` blocks, and the most that ``finish()`` waits for other ranks.
        on_error: whether a wrong key or argument raises, or warns and goes on offline.
        attach_rate: how many attaches a second the whole job sends to the tracker.
        heartbeat: seconds between two signs of life.
        dir: where what belongs to runs is kept on disk, or ``None``: in the user's folder for state.
        metadata: those of :data:`FAMILIES` that the run's system metadata has.
        spool: where what an outage keeps goes, or ``None`` where the user has no folder at all.
    """

    api_key: Secret | None
    url_api: str
    url_app: str
    url_py: str
    project: str
    run_id: str | None
    resume: bool | None
    mode: Mode
    timeout: float
    on_error: Literal["raise", "warn"]
    attach_rate: float
    heartbeat: float
    dir: Path | None = None
    metadata: frozenset[str] = frozenset(FAMILIES)
    spool: Path | None = None


@dataclass(frozen=True, slots=True)
class Variable:
    """One setting: the environment variables that give it, first one wins, and what it defaults to."""

    setting: str
    names: tuple[str, ...]
    parse: Callable[[str], Any]
    default: Any
    meaning: str


VARIABLES: tuple[Variable, ...] = (
    Variable("api_key", ("PLUTO_API_KEY", "MLOP_API_TOKEN"), key, None, "the tracker's key; without one, offline"),
    Variable("url_api", ("PLUTO_URL_API", "MLOP_URL_API"), url, HOSTED_API, "the tracker"),
    Variable("url_app", ("PLUTO_URL_APP", "MLOP_URL_APP"), url, None, "its pages, if not at the same address"),
    Variable("url_py", ("PLUTO_URL_PY", "MLOP_URL_PY"), url, None, "where it takes heartbeats, if elsewhere"),
    Variable("project", ("PLUTO_PROJECT", "MLOP_PROJECT"), text, "pluto", "made where it does not exist"),
    Variable("run_id", ("PLUTO_RUN_ID", "MLOP_RUN_ID"), text, None, "the run's external id, used verbatim"),
    Variable("resume", ("PLUTO_DIST_RESUME",), yes_or_no, None, "`1`: go on with an earlier launch's run"),
    Variable(
        "mode",
        ("PLUTO_DIST_MODE",),
        one_of(*MODES),
        "online",
        "`offline`: ask no tracker; `disabled`: do nothing",
    ),
    Variable("timeout", ("PLUTO_DIST_TIMEOUT",), above_zero, 30.0, "the most that `init()` blocks, in seconds"),
    Variable(
        "on_error",
        ("PLUTO_DIST_ON_ERROR",),
        one_of("raise", "warn"),
        "raise",
        "`warn`: go on without a tracker",
    ),
    Variable("attach_rate", ("PLUTO_DIST_ATTACH_RATE",), above_zero, 50.0, "attaches a second, of the whole job"),
    Variable("heartbeat", ("PLUTO_DIST_HEARTBEAT",), above_zero, 10.0, "seconds between two signs of life"),
    Variable("dir", ("PLUTO_DIR",), folder, None, "where an outage's requests are kept, else in the state folder"),
    Variable("metadata", ("PLUTO_DIST_METADATA",), families, None, "`0`: no system metadata; `git=0,env=0`: no such"),
)


def load(environ: Mapping[str, str], **arguments: Any) -> Settings:
    """The settings that ``arguments`` (those that are not ``None``) and ``environ`` give.

    Raises:
        ConfigurationError: names every value that cannot be used, and where it came from.
    """
    environ = without_sdk_exports(environ)
    values: dict[str, Any] = {}
    problems: list[str] = []
    for variable in VARIABLES:
        given = arguments.get(variable.setting)
        name = f"{variable.setting}="
        if given is None:
            name, given = _from_environment(environ, variable)
        try:
            values[variable.setting] = variable.default if given is None else _parsed(variable, given)
        except ValueError as error:
            problems.append(f"{name} {error}; it is {_shown(variable, given)}")
    if problems:
        raise ConfigurationError(*problems)
    if values["metadata"] is None:
        values["metadata"] = frozenset(FAMILIES)
    if values["api_key"] is not None:
        values["api_key"] = Secret(values["api_key"])
    # The hosted tracker has an origin for each; any other serves all from one unless told otherwise, and no key
    # of it may travel to the hosted one.
    hosted = values["url_api"] == HOSTED_API
    values["url_app"] = values["url_app"] or (HOSTED_APP if hosted else values["url_api"])
    values["url_py"] = values["url_py"] or (HOSTED_PY if hosted else values["url_api"])
    return Settings(**values, spool=spool_folder(environ, values["dir"]))


def without_sdk_exports(environ: Mapping[str, str]) -> Mapping[str, str]:
    """``environ`` without what a run of this package put there for the SDK: that names another run, not this one.

    >>> dict(without_sdk_exports({"PLUTO_RUN_ID": "a", SDK_EXPORTS: '{"PLUTO_RUN_ID": "a"}'}))
    {}
    >>> without_sdk_exports({"PLUTO_RUN_ID": "the user's", SDK_EXPORTS: '{"PLUTO_RUN_ID": "a"}'})["PLUTO_RUN_ID"]
    "the user's"
    """
    if not (told := environ.get(SDK_EXPORTS)):
        return environ
    with suppress(ValueError):
        handed = json.loads(told)
        if isinstance(handed, dict):
            kept = {name: value for name, value in environ.items() if handed.get(name, None) != value}
            return {name: value for name, value in kept.items() if name != SDK_EXPORTS}
    return environ


def spool_folder(environ: Mapping[str, str], chosen: Path | None) -> Path | None:
    """Where what an outage keeps goes: below PLUTO_DIR, else the user's folder for state (XDG base directories).

    >>> spool_folder({"HOME": "/home/ada"}, None), spool_folder({}, Path("/scratch")), spool_folder({}, None)
    (PosixPath('/home/ada/.local/state/pluto-dist/spool'), PosixPath('/scratch/pluto-dist/spool'), None)
    """
    state, home = (Path(environ.get(name, "")) for name in ("XDG_STATE_HOME", "HOME"))
    if chosen is not None:
        above = chosen.absolute()
    elif state.is_absolute():
        above = state
    elif home.is_absolute():
        above = home / ".local" / "state"
    else:
        return None
    return above / "pluto-dist" / "spool"


def _shown(variable: Variable, given: Any) -> str:
    if variable.setting == "api_key" or (variable.parse is url and "@" in str(given)):
        return "not shown, for it may hold a secret"
    return repr(given)[:200]


def _from_environment(environ: Mapping[str, str], variable: Variable) -> tuple[str, str | None]:
    for name in variable.names:
        if environ.get(name):  # an empty variable counts as unset, as in the SDK
            return name, environ[name]
    return variable.names[0], None


def _parsed(variable: Variable, given: Any) -> Any:
    if isinstance(given, Secret):
        return given.reveal()
    if variable.parse is yes_or_no and isinstance(given, bool):
        return given
    if variable.parse is above_zero and isinstance(given, (int, float)) and not isinstance(given, bool):
        return above_zero(str(given))
    if variable.setting == "run_id" and isinstance(given, int) and not isinstance(given, bool):
        return str(given)  # the SDK takes the tracker's own number as an int
    if variable.parse is families and isinstance(given, (bool, Mapping)):
        return chosen_families(given)
    if not isinstance(given, str):
        if variable.parse is families:
            raise ValueError("must be True, False or a mapping such as {'git': False}")
        raise ValueError(f"must be {'a number' if variable.parse is above_zero else 'a string'}")
    return variable.parse(given)
