"""The settings, each from the first of three sources: argument, environment variable, default.

:data:`VARIABLES` lists every variable that a user may set. The environment comes in as a Mapping: nothing here reads
``os.environ``. The official SDK's names come first, then its older MLOP_* names; names of this package start with
PLUTO_DIST_.

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

from pluto_dist.contract.secret import KEY_VARIABLES, Environ, Secret
from pluto_dist.errors import ConfigurationError
from pluto_dist.settings.converters import (
    FAMILIES,
    api_key,
    boolean,
    enabled_families,
    folder,
    metadata_families,
    nonempty_text,
    one_of,
    positive_number,
    run_id,
    url,
)

HOSTED_API = "https://pluto-api.trainy.ai"
HOSTED_APP = "https://pluto.trainy.ai"
HOSTED_PY = "https://pluto-py.trainy.ai"
HOSTED_INGEST = "https://pluto-ingest.trainy.ai"

SDK_EXPORTS = "PLUTO_DIST_HANDED_OVER"  # JSON of the variables that a run exported for the SDK, see lifecycle/sdk

Mode = Literal["online", "offline", "disabled"]
MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one ``init()``. Times in seconds, rates per second.

    Attributes:
        api_key: the tracker's key; with ``None`` the run is kept offline.
        url_api: origin of the tracker's API.
        url_app: origin of the tracker's pages.
        url_py: origin that receives heartbeats.
        url_ingest: origin that takes logged values, as `pluto-dist import` sends them.
        project: project name.
        run_id: the user's own id for the run, or ``None``.
        resume: continue the run of an earlier launch; ``False`` makes an existing run an error.
        mode: "online", "offline" or "disabled".
        timeout: the most that ``init()`` blocks, and the most that ``finish()`` waits for other ranks.
        on_error: "raise" on a wrong key or argument, or "warn" and continue offline.
        attach_rate: attach requests per second that the whole job sends to the tracker.
        heartbeat: seconds between heartbeats.
        dir: folder for the files of runs; with ``None`` the user's folder for state.
        metadata: those of :data:`FAMILIES` that the run's system metadata has.
        spool: folder for the requests of an outage, or ``None`` if the user has no folder at all.
    """

    api_key: Secret | None
    url_api: str
    url_app: str
    url_py: str
    url_ingest: str
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
    """One setting: its environment variables (the first that is set counts), converter, default and meaning."""

    setting: str
    names: tuple[str, ...]
    convert: Callable[[Any], Any]
    default: Any
    meaning: str


VARIABLES: tuple[Variable, ...] = (
    Variable("api_key", KEY_VARIABLES, api_key, None, "the tracker's key; without one, offline"),
    Variable("url_api", ("PLUTO_URL_API", "MLOP_URL_API"), url, HOSTED_API, "address of the tracker's API"),
    Variable("url_app", ("PLUTO_URL_APP", "MLOP_URL_APP"), url, None, "address of its pages, if another"),
    Variable("url_py", ("PLUTO_URL_PY", "MLOP_URL_PY"), url, None, "address for heartbeats, if another"),
    Variable("url_ingest", ("PLUTO_URL_INGEST", "MLOP_URL_INGEST"), url, None, "address for logged values, if another"),
    Variable("project", ("PLUTO_PROJECT", "MLOP_PROJECT"), nonempty_text, "pluto", "created if it does not exist"),
    Variable("run_id", ("PLUTO_RUN_ID", "MLOP_RUN_ID"), run_id, None, "the run's external id, used verbatim"),
    Variable("resume", ("PLUTO_DIST_RESUME",), boolean, None, "`1`: continue the run of an earlier launch"),
    Variable(
        "mode",
        ("PLUTO_DIST_MODE",),
        one_of(*MODES),
        "online",
        "`offline`: contact no tracker; `disabled`: do nothing",
    ),
    Variable("timeout", ("PLUTO_DIST_TIMEOUT",), positive_number, 30.0, "the most that `init()` blocks, in seconds"),
    Variable(
        "on_error",
        ("PLUTO_DIST_ON_ERROR",),
        one_of("raise", "warn"),
        "raise",
        "`warn`: continue without a tracker",
    ),
    Variable(
        "attach_rate",
        ("PLUTO_DIST_ATTACH_RATE",),
        positive_number,
        50.0,
        "attach requests per second, for the whole job",
    ),
    Variable("heartbeat", ("PLUTO_DIST_HEARTBEAT",), positive_number, 10.0, "seconds between heartbeats"),
    Variable("dir", ("PLUTO_DIR",), folder, None, "folder for the requests of an outage; default: the state folder"),
    Variable(
        "metadata",
        ("PLUTO_DIST_METADATA",),
        metadata_families,
        None,
        "`0`: no system metadata; `git=0,env=0`: without these parts",
    ),
)

_ARGUMENTS: dict[Callable[[str], Any], str] = {
    boolean: "True or False",
    positive_number: "a number",
    metadata_families: "True, False or a mapping such as {'git': False}",
}


def load(environ: Mapping[str, str], **arguments: Any) -> Settings:
    """The settings that ``arguments`` (those that are not ``None``) and ``environ`` give.

    Raises:
        ConfigurationError: lists every value that cannot be used, with its argument or variable.
    """
    environ = without_sdk_exports(Environ(environ))
    values: dict[str, Any] = {}
    problems: list[str] = []
    for variable in VARIABLES:
        given = arguments.get(variable.setting)
        name = f"{variable.setting}="
        if given is None:
            name, given = _from_environment(environ, variable)
        try:
            values[variable.setting] = variable.default if given is None else _converted(variable, given)
        except ValueError as error:
            problems.append(f"{name} {error}; it is {_shown(variable, given)}")
    if problems:
        raise ConfigurationError(*problems)
    if values["metadata"] is None:
        values["metadata"] = frozenset(FAMILIES)
    # The hosted tracker has one origin for each. Any other has one for all unless set otherwise: its key must never
    # be sent to the hosted tracker.
    hosted = values["url_api"] == HOSTED_API
    values["url_app"] = values["url_app"] or (HOSTED_APP if hosted else values["url_api"])
    values["url_py"] = values["url_py"] or (HOSTED_PY if hosted else values["url_api"])
    values["url_ingest"] = values["url_ingest"] or (HOSTED_INGEST if hosted else values["url_api"])
    return Settings(**values, spool=spool_folder(environ, values["dir"]))


def without_sdk_exports(environ: Environ) -> Environ:
    """``environ`` without the variables that a run of this package exported for the SDK: they name that run.

    >>> exported = {SDK_EXPORTS: '{"PLUTO_RUN_ID": "a"}'}
    >>> dict(without_sdk_exports(Environ({"PLUTO_RUN_ID": "a", **exported})))
    {}
    >>> dict(without_sdk_exports(Environ({"PLUTO_RUN_ID": "the user's", **exported})))
    {'PLUTO_RUN_ID': "the user's"}
    """
    if not (text := environ.get(SDK_EXPORTS)):
        return environ
    with suppress(ValueError):
        exported = json.loads(text)
        if isinstance(exported, dict):
            same = [name for name, value in environ.items() if exported.get(name) == value]
            return environ.changed(dict.fromkeys([*same, SDK_EXPORTS]))
    return environ


def spool_folder(environ: Mapping[str, str], chosen: Path | None) -> Path | None:
    """The folder for the requests of an outage: below PLUTO_DIR, else in the user's state folder (XDG).

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
    if variable.setting == "api_key" or (variable.convert is url and "@" in str(given)):
        return "not shown, as it may hold a secret"
    return repr(given)[:200]


def from_environment(environ: Mapping[str, str], setting: str) -> str | None:
    """The value of the variables of one setting, as text; ``None`` if none is set, or for a secret.

    >>> from_environment({"PLUTO_PROJECT": "digits"}, "project"), from_environment({}, "project")
    ('digits', None)
    """
    found = _from_environment(Environ(environ), next(each for each in VARIABLES if each.setting == setting))[1]
    return found if isinstance(found, str) else None


def _from_environment(environ: Environ, variable: Variable) -> tuple[str, str | Secret | None]:
    read: Callable[[str], str | Secret | None] = environ.secret if variable.names == KEY_VARIABLES else environ.get
    for name in variable.names:
        if given := read(name):  # an empty variable counts as unset, as in the SDK
            return name, given
    return variable.names[0], None


def _converted(variable: Variable, given: Any) -> Any:
    if variable.names == KEY_VARIABLES and isinstance(given, Secret):
        return api_key(given)
    if variable.convert is boolean and isinstance(given, bool):
        return given
    if variable.convert is positive_number and isinstance(given, (int, float)) and not isinstance(given, bool):
        return positive_number(str(given))
    if variable.setting == "run_id" and isinstance(given, int) and not isinstance(given, bool):
        return run_id(str(given))  # the SDK takes the tracker's own number as an int
    if variable.convert is metadata_families and isinstance(given, (bool, Mapping)):
        return enabled_families(given)
    if not isinstance(given, str):
        raise ValueError(f"must be {_ARGUMENTS.get(variable.convert, 'a string')}")
    return variable.convert(given)
