"""Whether a script uses this package itself, read from its source before it runs.

Read are the script and, of the modules that it imports, those in its own folder (for ``-m package.module``: in the
folder of the package), again with what they import. Nothing is imported. A use that cannot be seen there, such as one
in an installed library, is no error: the run is then open before the script calls ``init()``, which adds to it.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

MOST_FILES = 500
MOST_BYTES = 4 << 20  # of one file
_NAME = re.compile(rb"\bpluto_dist\b")
_INSTALLED = ("site-packages", "dist-packages")


def script_uses_package(path: Path) -> bool:
    """Whether a script, or a folder with a ``__main__.py``, names this package.

    Args:
        path: of the script, as python would be given it.
    """
    script = path / "__main__.py" if path.is_dir() else path
    return _reads_name(script, script.parent, None)


def module_uses_package(name: str, folders: Sequence[str]) -> bool:
    """The same for ``python -m name``.

    Args:
        name: of the module.
        folders: where python looks for modules, in order.
    """
    for folder in map(Path, folders):
        for path in (*_files(folder, name), *_files(folder, f"{name}.__main__")):
            top = name.partition(".")[0] if folder.name in _INSTALLED else None
            if _reads_name(path, folder, top):
                return True
    return False


def _reads_name(script: Path, folder: Path, top: str | None) -> bool:
    """Whether ``script`` or what it imports from ``folder`` (of package ``top`` alone, if given) names this package."""
    waiting, seen = [script], {script}
    while waiting and len(seen) <= MOST_FILES:
        path, source = waiting.pop(), b""
        with suppress(OSError):
            source = path.read_bytes() if path.stat().st_size <= MOST_BYTES else b""
        if _NAME.search(source):
            return True
        for name in _imported(source, _package_of(path, folder)):
            if top is None or name.partition(".")[0] == top:
                found = [file for file in _files(folder, name) if file not in seen]
                seen.update(found)
                waiting += found
    return False


def _package_of(path: Path, folder: Path) -> list[str]:
    return list(path.parent.relative_to(folder).parts) if folder in path.parents else []


def _imported(source: bytes, package: list[str]) -> Iterator[str]:
    """The names that ``source`` imports, absolute; what follows ``from x import`` may be a module too."""
    tree: ast.AST = ast.Module([], [])
    with suppress(SyntaxError, ValueError, RecursionError, MemoryError), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the script's own, which python shows when it runs
        tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            yield base
            yield from (f"{base}.{alias.name}".removeprefix(".") for alias in node.names)


def _files(folder: Path, name: str) -> list[Path]:
    """The files below ``folder`` that are executed when module ``name`` is imported."""
    parts, found = name.split("."), []
    for count in range(1, len(parts) + 1):
        base = folder.joinpath(*parts[:count])
        found += [base / "__init__.py"] if base.is_dir() else [base.with_name(f"{base.name}.py")]
    return [path for path in found if path.is_file()]
