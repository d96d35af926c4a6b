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

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from pluto_dist.errors import ConfigurationError

HOSTED_API = "https://pluto-api.trainy.ai"
HOSTED_APP = "https://pluto.trainy.ai"
HOSTED_PY = "https://pluto-py.trainy.ai"

Mode = Literal["online", "offline", "disabled"]
MODES: tuple[Mode, ...] = get_args(Mode)
FAMILIES = ("argv", "env", "git", "gpu", "host", "network", "packages", "software")
"""What system metadata is made of; each can be left out by its name."""


class Secret:
    """A string that shows itself to nobody but the one who asks for it by name."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret('***')"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


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
        metadata: those of :data:`FAMILIES` that the run's system metadata has.
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
    metadata: frozenset[str] = frozenset(FAMILIES)


@dataclass(frozen=True, slots=True)
class Variable:
    """One setting: the environment variables that give it, first one wins, and what it defaults to."""

    setting: str
    names: tuple[str, ...]
    parse: Callable[[str], Any]
    default: Any
    meaning: str


def _text(value: str) -> str:
    if not value:
        raise ValueError("must not be empty")
    return value


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("must be a URL such as https://pluto.example.com")
    if parts.username or parts.password:
        raise ValueError("must not carry a user name or password")
    return value.rstrip("/")


def _key(value: str) -> str:
    key = value.strip()  # a secret mounted as a file ends in a line break
    if not is_header_word(key):
        raise ValueError("must be one word of printable ASCII, as an HTTP header carries it")
    return key


def is_header_word(text: str) -> bool:
    """Whether an HTTP header can carry ``text`` as one word."""
    return bool(text) and text.isascii() and text.isprintable() and " " not in text


def _yes_or_no(value: str) -> bool:
    words = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    try:
        return words[value.strip().lower()]
    except KeyError:
        raise ValueError("must be 1 or 0") from None


def _families(value: str) -> frozenset[str]:
    """What is left of all families: "0", "1", or "git=0,env=0"."""
    if "=" not in value:
        if (switch := _switch(value)) not in (True, False):
            raise ValueError("must be 1, 0, or such as git=0,env=0")
        return _chosen_families(switch is True)
    pairs = [item.partition("=") for item in value.split(",") if item.strip()]
    return _chosen_families({name.strip(): _switch(word) for name, _, word in pairs})


def _switch(word: str) -> bool | str:
    try:
        return _yes_or_no(word)
    except ValueError:
        return word


def _chosen_families(given: bool | Mapping[Any, Any]) -> frozenset[str]:
    """The families that ``given`` leaves; one that it does not name is in.

    >>> sorted(set(FAMILIES) - _chosen_families({"git": False, "env": True}))
    ['git']
    """
    if isinstance(given, bool):
        return frozenset(FAMILIES if given else ())
    unknown = [str(name) for name in given if name not in FAMILIES]
    no_switches = [str(name) for name, on in given.items() if name in FAMILIES and not isinstance(on, bool)]
    wrong = []
    if unknown:
        wrong.append(f"has no {', '.join(unknown)}: its parts are {', '.join(FAMILIES)}")
    if no_switches:
        wrong.append(f"must have True or False (1 or 0 in the environment) for {', '.join(no_switches)}")
    if wrong:
        raise ValueError("; ".join(wrong))
    return frozenset(name for name in FAMILIES if given.get(name, True))


def _above_zero(value: str) -> float:
    number = float(value)
    if not 0 < number < float("inf"):
        raise ValueError("must be a number above 0")
    return number


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value not in choices:
            raise ValueError(f"must be {' or '.join(choices)}")
        return value

    return parse


VARIABLES: tuple[Variable, ...] = (
    Variable("api_key", ("PLUTO_API_KEY", "MLOP_API_TOKEN"), _key, None, "the tracker's key; without one, offline"),
    Variable("url_api", ("PLUTO_URL_API", "MLOP_URL_API"), _url, HOSTED_API, "the tracker"),
    Variable("url_app", ("PLUTO_URL_APP", "MLOP_URL_APP"), _url, None, "its pages, if not at the same address"),
    Variable("url_py", ("PLUTO_URL_PY", "MLOP_URL_PY"), _url, None, "where it takes heartbeats, if elsewhere"),
    Variable("project", ("PLUTO_PROJECT", "MLOP_PROJECT"), _text, "pluto", "made where it does not exist"),
    Variable("run_id", ("PLUTO_RUN_ID", "MLOP_RUN_ID"), _text, None, "the run's external id, used verbatim"),
    Variable("resume", ("PLUTO_DIST_RESUME",), _yes_or_no, None, "`1`: go on with an earlier launch's run"),
    Variable(
        "mode", ("PLUTO_DIST_MODE",), _one_of(*MODES), "online", "`offline`: ask no tracker; `disabled`: do nothing"
    ),
    Variable("timeout", ("PLUTO_DIST_TIMEOUT",), _above_zero, 30.0, "the most that `init()` blocks, in seconds"),
    Variable(
        "on_error", ("PLUTO_DIST_ON_ERROR",), _one_of("raise", "warn"), "raise", "`warn`: go on without a tracker"
    ),
    Variable("attach_rate", ("PLUTO_DIST_ATTACH_RATE",), _above_zero, 50.0, "attaches a second, of the whole job"),
    Variable("heartbeat", ("PLUTO_DIST_HEARTBEAT",), _above_zero, 10.0, "seconds between two signs of life"),
    Variable("metadata", ("PLUTO_DIST_METADATA",), _families, None, "`0`: no system metadata; `git=0,env=0`: no such"),
)


def load(environ: Mapping[str, str], **arguments: Any) -> Settings:
    """The settings that ``arguments`` (those that are not ``None``) and ``environ`` give.

    Raises:
        ConfigurationError: names every value that cannot be used, and where it came from.
    """
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
    return Settings(**values)


def _shown(variable: Variable, given: Any) -> str:
    if variable.setting == "api_key" or (variable.parse is _url and "@" in str(given)):
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
    if variable.parse is _yes_or_no and isinstance(given, bool):
        return given
    if variable.parse is _above_zero and isinstance(given, (int, float)) and not isinstance(given, bool):
        return _above_zero(str(given))
    if variable.setting == "run_id" and isinstance(given, int) and not isinstance(given, bool):
        return str(given)  # the SDK takes the tracker's own number as an int
    if variable.parse is _families and isinstance(given, (bool, Mapping)):
        return _chosen_families(given)
    if not isinstance(given, str):
        if variable.parse is _families:
            raise ValueError("must be True, False or a mapping such as {'git': False}")
        raise ValueError(f"must be {'a number' if variable.parse is _above_zero else 'a string'}")
    return variable.parse(given)
