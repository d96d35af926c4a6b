"""Removes secrets from command lines, environment variables and URLs, by name and by format. Pure.

Redacting a harmless value is better than leaking a secret: every value whose name may be that of a secret is removed,
except for known harmless names ("tokenizer", "num_key_value_heads=8").

>>> argv(["train.py", "--api-key", "abc", "--max-tokens=512", "HF_TOKEN=hf_x", "https://me:pw@host/data"])
('train.py', '--api-key', '***', '--max-tokens=512', 'HF_TOKEN=***', 'https://***@host/data')
>>> environment({"NCCL_DEBUG": "INFO", "NCCL_NET_TOKEN": "x", "HOME": "/root"})
{'NCCL_DEBUG': 'INFO'}
>>> url("https://me:pw@github.com/o/r.git"), url("git@github.com:o/r.git"), url("/srv/r.git")
('https://github.com/o/r.git', 'git@github.com:o/r.git', None)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

MASK = "***"
TEXT_LIMIT = 16_384  # characters of a text; the rest is cut off
VALUE_LIMIT = 256  # bytes of one environment variable's value
ALLOWED = re.compile(r"(NCCL|TORCH|TORCHELASTIC|PYTORCH|FI|UCX)_\w+|OMP_NUM_THREADS")
"""Variables that are recorded, beside those of the GPU vendors."""

_SECRET = re.compile(
    r"token(?!i[sz])|(?<!mon|tur|don)key(?!board|point|frame|word)|secret|passw(?:or)?d|passphrase|pwd"
    r"|auth(?!or(?!i))|credential|bearer|cookie",
    re.IGNORECASE,
)
_COUNT = re.compile(r"(?:^|[-_.])(?:num|n|max|min|total|per|len|length|size|dim|heads)(?:[-_.]|$)", re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?[\d_.]+(?:[eE][+-]?\d+)?")
_OPTION = re.compile(r"[+~-]*[\w.@/:-]+")  # --db.password=x, +db@env.token=x
_NAME = re.compile(r"(?<![\w.\-])([\w.\-]+)['\"]?\s*[=:]\s*")  # api_key=, "api_key": , ?token=
_VALUE = re.compile(r"\"[^\"]*\"?|'[^']*'?|[^\s,;&'\"}\])]+")
_USER_INFO = re.compile(  # a password may contain @, : and /
    r"(?<=://)(?:[^\s'\"<>/:]{0,256}:[^\s'\"<>]{0,2048}@|[^\s'\"<>/]{0,2048}@)"
)
_AUTHORIZATION = re.compile(r"(authorization['\"]?\s*[:=]\s*)[^'\"]*", re.IGNORECASE)
_BEARER = re.compile(r"\b((?:bearer|basic)\s+)[\w.~+/=-]{6,}", re.IGNORECASE)
_KEYS = re.compile(
    r"\b(?:mlp[si]_[\w-]+"  # Pluto
    r"|hf_[A-Za-z0-9]{10,}"  # Hugging Face
    r"|sk-[\w-]{12,}|[sr]k_(?:live|test)_\w+"  # OpenAI, Anthropic; Stripe
    r"|gh[pousr]_\w{10,}|github_pat_\w+|glpat-[\w-]+"  # GitHub, GitLab
    r"|(?:AKIA|ASIA)[A-Z0-9]{12,}"  # AWS
    r"|AIza[\w-]{20,}|ya29\.[\w-]+"  # Google
    r"|xox[abeoprs]-[\w-]+"  # Slack
    r"|eyJ[\w-]+\.[\w-]+(?:\.[\w-]*)*)"  # JSON Web Token
)


def is_secret_name(name: str, value: str = "") -> bool:
    """Whether ``value`` under ``name`` may be a secret; a number under a name of a quantity is not.

    >>> is_secret_name("HF_TOKEN"), is_secret_name("tokenizer"), is_secret_name("author"), is_secret_name("hot-keys")
    (True, False, False, True)
    >>> is_secret_name("max_tokens", "512"), is_secret_name("max_tokens", "s3cr3t")
    (False, True)
    """
    if not _SECRET.search(name):
        return False
    return not (_COUNT.search(name) and _NUMBER.fullmatch(value))


def text(value: str) -> str:
    """``value`` without NUL and without anything in the format of a secret.

    >>> text("curl -H 'Authorization: Bearer abcdefgh' https://u:p@h/x?sig=1 AKIAIOSFODNN7EXAMPLE")
    "curl -H 'Authorization: ***' https://***@h/x?sig=1 ***"
    >>> text("fetch --out=/tmp/x api_key=abc;lr=1e-3")
    'fetch --out=/tmp/x api_key=***;lr=1e-3'
    """
    value = value.replace("\x00", "")[:TEXT_LIMIT]
    value = _USER_INFO.sub(f"{MASK}@", value)
    value = _AUTHORIZATION.sub(rf"\g<1>{MASK}", value)
    value = _BEARER.sub(rf"\g<1>{MASK}", value)
    value = _KEYS.sub(MASK, value)
    return _without_assigned(value)


def _without_assigned(value: str) -> str:
    """``value`` with VALUE masked in every ``NAME=VALUE`` and ``NAME: VALUE`` with a secret's name."""
    parts, end = [], 0
    for name in _NAME.finditer(value):
        assigned = _VALUE.match(value, name.end())
        if name.start() >= end and assigned and is_secret_name(name[1], assigned[0]):
            parts += [value[end : name.end()], MASK]
            end = assigned.end()
    return "".join(parts) + value[end:]


def argv(words: Iterable[str]) -> tuple[str, ...]:
    """A command line without secrets: ``--*key VALUE``, ``--*key=VALUE``, ``NAME=VALUE`` and what ``text`` removes.

    The word after an option with a secret's name is masked, unless it is an option itself; after a switch without a
    value ("--use-auth-token train.py") this masks a harmless word.
    """
    redacted: list[str] = []
    option = ""  # the option whose value the next word may be
    for word in words:
        name, sign, value = word.partition("=")
        if option and not word.startswith("--"):
            redacted.append(MASK if is_secret_name(option, word) else text(word))
            option = ""
            continue
        is_assigned = sign and _OPTION.fullmatch(name) and is_secret_name(name, value)
        redacted.append(f"{text(name)}={MASK}" if is_assigned else text(word))
        option = word if word.startswith("-") and not sign and _SECRET.search(word) else ""
    return tuple(redacted)


def environment(environ: Mapping[str, str], prefixes: tuple[str, ...] = ()) -> dict[str, str]:
    """The variables of NCCL and torch without secrets, sorted by name; values of at most 256 bytes.

    Args:
        environ: the environment.
        prefixes: of other variables to keep, those of the GPU vendors.
    """
    others = re.compile("|".join(rf"{re.escape(prefix)}\w+" for prefix in prefixes) or "(?!)")
    return {
        name: text(value).encode("utf-8", "replace")[:VALUE_LIMIT].decode("utf-8", "ignore")
        for name, value in sorted(environ.items())
        if (ALLOWED.fullmatch(name) or others.fullmatch(name)) and not is_secret_name(name, value)
    }


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that a child process may inherit: all except those with a secret's name."""
    return {name: value for name, value in environ.items() if not is_secret_name(name)}


def url(value: str) -> str | None:
    """A remote's URL without user and password; ``None`` for one that JavaScript's ``new URL`` rejects.

    The Pluto UI's page fails on a path and on ``user@host:o/r.git``.
    """
    value = value.replace("\x00", "").strip()
    if re.fullmatch(r"git@[\w.-]+:[\w./~-]+", value):
        return text(value)
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("https", "http", "ssh") and parts.hostname is not None and parts.port != 0
    except ValueError:
        return None
    if not usable:
        return None
    host = parts.netloc.rpartition("@")[2]
    return text(f"{parts.scheme}://{host}{parts.path}")
