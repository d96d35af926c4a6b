"""The environment that points a job at this server, as a mapping and as a file of ``export`` lines.

Pure but for reading and writing that one file; the process's own environment is passed in.

>>> environment("http://127.0.0.1:8080", "mlps_x", {"no_proxy": "intra"})["NO_PROXY"]
'intra,127.0.0.1'
"""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

KEY = "PLUTO_API_KEY"
_URLS = ("PLUTO_URL_API", "PLUTO_URL_APP", "PLUTO_URL_INGEST", "PLUTO_URL_PY")


def environment(url: str, key: str, base: Mapping[str, str]) -> dict[str, str]:
    """What a job needs in its environment. The lists of hosts without proxy in ``base`` are extended."""
    host = urlsplit(url).hostname or ""
    direct = [part.strip() for part in (base.get("no_proxy") or base.get("NO_PROXY") or "").split(",") if part.strip()]
    no_proxy = ",".join(direct if host in direct else [*direct, host])
    return {KEY: key, **dict.fromkeys(_URLS, url), "NO_PROXY": no_proxy, "no_proxy": no_proxy}


def lines(variables: Mapping[str, str]) -> str:
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())


def key_in(path: Path) -> str | None:
    """The API key that an earlier start left in the file; ``None`` when there is no file or no key.

    Raises:
        OSError, UnicodeDecodeError: there is something at ``path`` that cannot be read.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    for line in content.splitlines():
        name, found, value = line.strip().removeprefix("export ").partition("=")
        if found and name.strip() == KEY:
            try:
                return "".join(shlex.split(value)) or None
            except ValueError:
                return None
    return None


def write(path: Path, variables: Mapping[str, str]) -> None:
    """Put the file in place in one step, readable by its owner only; a link at ``path`` is replaced.

    Raises:
        OSError: the folder is missing or cannot be written to.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    draft = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(lines(variables))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
