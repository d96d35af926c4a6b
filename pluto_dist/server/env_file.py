"""The environment variables with which a job uses this server, as a mapping and as a file of ``export`` lines.

>>> variables("http://127.0.0.1:8080", "mlps_x", {"no_proxy": "intra"})["NO_PROXY"]
'intra,127.0.0.1'
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from pluto_dist import private_files

KEY = "PLUTO_API_KEY"
_URLS = ("PLUTO_URL_API", "PLUTO_URL_APP", "PLUTO_URL_INGEST", "PLUTO_URL_PY")


def variables(url: str, key: str, base: Mapping[str, str]) -> dict[str, str]:
    """The variables of a job. ``NO_PROXY`` and ``no_proxy`` extend the list in ``base``."""
    host = urlsplit(url).hostname or ""
    direct = [part.strip() for part in (base.get("no_proxy") or base.get("NO_PROXY") or "").split(",") if part.strip()]
    no_proxy = ",".join(direct if host in direct else [*direct, host])
    return {KEY: key, **dict.fromkeys(_URLS, url), "NO_PROXY": no_proxy, "no_proxy": no_proxy}


def export_lines(exports: Mapping[str, str]) -> str:
    """Lines for ``sh``."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in exports.items())


def read_key(path: Path) -> str | None:
    """The API key in a file that an earlier start wrote; ``None`` if there is no file or no key.

    Raises:
        OSError, UnicodeDecodeError: the file cannot be read.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    for line in content.splitlines():
        name, separator, value = line.strip().removeprefix("export ").partition("=")
        if separator and name.strip() == KEY:
            try:
                return "".join(shlex.split(value)) or None
            except ValueError:
                return None
    return None


def foreign_line(path: Path) -> str | None:
    """The first line of ``path`` that :func:`write` does not write; ``None`` if there is none, or no file.

    Raises:
        OSError, UnicodeDecodeError: the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    own = tuple(f"export {name}=" for name in (KEY, *_URLS, "NO_PROXY", "no_proxy"))
    return next((line for line in lines if line.strip() and not line.startswith(own)), None)


def write(path: Path, exports: Mapping[str, str]) -> None:
    """Write the file atomically with mode 0600; a symbolic link at ``path`` is replaced.

    Raises:
        OSError: the folder does not exist or is not writable.
    """
    private_files.write(path, export_lines(exports).encode(), durable=True)
