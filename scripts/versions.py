"""Runs tests in environments of other versions of Python, torch and the dependencies, as ``versions.toml`` lists them.

    scripts/versions                   the rows
    scripts/versions lowest            makes the environment, runs its tests, prints its line, removes it
    scripts/versions lowest --write    the same, and puts the line into the table of tests/README.md
    scripts/versions lowest -- -k gpu  what follows the second dash goes to pytest

torch other than the pinned one comes as a CUDA build of several GB, which runs without a GPU.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest's

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build" / "versions"
README = ROOT / "tests" / "README.md"
LOWERED = ("server",)  # besides the core: the extras that a user installs to run something of ours


@dataclass(frozen=True)
class Row:
    """One environment; see ``versions.toml``."""

    name: str
    python: str
    torch: str
    dependencies: str
    tests: str
    in_venv: bool = False
    paths: tuple[str, ...] = field(default=(), compare=False)

    def facts(self) -> str:
        """The first cells of the row's line in the table."""
        return f"| {self.name} | {self.python} | {self.torch} | {self.dependencies} | {self.tests} |"


def rows() -> list[Row]:
    """The table, with the version for "pinned", and each row's tests."""
    table = tomllib.loads((ROOT / "scripts" / "versions.toml").read_text(encoding="utf-8"))
    pinned = re.search(r"^torch==(\S+)$", (ROOT / "scripts" / "constraints.txt").read_text(encoding="utf-8"), re.M)
    assert pinned is not None, "scripts/constraints.txt names no version of torch"
    for row in table["rows"]:
        row["torch"] = pinned[1] if row["torch"] == "pinned" else row["torch"]
    return [Row(**row, paths=tuple(table["tests"][row["tests"]])) for row in table["rows"]]


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


def lower_bounds() -> dict[str, str]:
    """The lower bound of each dependency of the core and of the lowered extras, by its name and extras.

    >>> lower_bounds()["requests"]
    '2.31'
    """
    listed = [*project()["dependencies"]]
    for extra in LOWERED:
        listed += project()["optional-dependencies"][extra]
    return dict(re.fullmatch(r"([\w.\[\]-]+)>=([\w.]+)", each).groups() for each in listed)  # type: ignore[union-attr]


def wanted(row: Row) -> list[str]:
    """What pip installs: the package with all that its tests need, and the versions of the row."""
    lowest = [f"{name}=={bound}" for name, bound in lower_bounds().items() if name != "torch"]
    chosen = [] if row.dependencies == "newest" else lowest
    return chosen if row.in_venv else ["--editable", ".[dev]", f"torch=={row.torch}", *chosen]


def interpreter(version: str) -> str:
    """A Python of this version: on the PATH, or pyenv's.

    Raises:
        SystemExit: there is none.
    """
    pyenv = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python{version}"))
    found = shutil.which(f"python{version}") or next(map(str, reversed(pyenv)), None)
    if found is None or subprocess.run([found, "-c", ""], check=False, capture_output=True).returncode:
        found = next(map(str, reversed(pyenv)), None)  # pyenv's python3.12 on the PATH may be a stub that fails
    if found is None:
        raise SystemExit(f"scripts/versions: no Python {version} here, on the PATH or in ~/.pyenv/versions")
    return found


def make(row: Row, folder: Path) -> Path:
    """The row's environment in ``folder``; its interpreter."""
    shutil.rmtree(folder, ignore_errors=True)
    python = sys.executable if row.in_venv else interpreter(row.python)
    subprocess.run([python, "-m", "venv", *(["--without-pip"] if row.in_venv else []), folder], check=True)
    made = folder / "bin" / "python"
    if row.in_venv:
        site = next((ROOT / ".venv" / "lib").glob("python3.*/site-packages"))
        below = next((folder / "lib").glob("python3.*/site-packages")) / "_venv.pth"
        below.write_text(f"import site; site.addsitedir({str(site)!r})\n")
    if what := wanted(row):
        pip = [made, "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar=off", *what]
        done = subprocess.run(pip, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode or "yanked" in done.stderr:
            raise SystemExit(
                f"scripts/versions: pip cannot install {row.name}, or only a yanked release:\n{done.stderr}"
            )
    return made


def counts(report: Path) -> dict[str, int]:
    """How many tests passed, were skipped and failed, from pytest's XML report."""
    (suite,) = ET.parse(report).getroot().iter("testsuite")
    number = {name: int(suite.get(name, "0")) for name in ("tests", "skipped", "failures", "errors")}
    failed = number["failures"] + number["errors"]
    return {"passed": number["tests"] - number["skipped"] - failed, "skipped": number["skipped"], "failed": failed}


def run(row: Row, arguments: Sequence[str], *, keep: bool) -> tuple[str, int]:
    """The row's line of the table, and the exit code of its tests."""
    folder = BUILD / row.name
    began = time.monotonic()
    try:
        python = make(row, folder)
        report = BUILD / f"{row.name}.xml"
        report.unlink(missing_ok=True)
        command = [python, "-m", "pytest", "-q", f"--junit-xml={report}", *row.paths, *arguments]
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        if not report.exists():
            raise SystemExit(f"scripts/versions: pytest ended with exit code {code} and wrote no report")
        found = counts(report)
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
    minutes = (time.monotonic() - began) / 60
    return f"{row.facts()} {found['passed']} | {found['skipped']} | {found['failed']} | {minutes:.0f} |", code


def write(line: str) -> None:
    """Put ``line`` into the table of tests/README.md, in place of the one of its row."""
    start = line.partition(" | ")[0] + " |"
    lines = README.read_text(encoding="utf-8").splitlines(keepends=True)
    README.write_text("".join(f"{line}\n" if each.startswith(start) else each for each in lines), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description="Tests in environments of other versions; without a name: the rows.")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--write", action="store_true", help="put each line into the table of tests/README.md")
    parser.add_argument("--keep", action="store_true", help="leave the environments in build/versions")
    own, rest = sys.argv[1:], []
    if "--" in own:
        own, rest = own[: own.index("--")], own[own.index("--") + 1 :]
    asked = parser.parse_args(own)
    by_name = {row.name: row for row in rows()}
    if unknown := set(asked.names) - by_name.keys():
        parser.error(f"no row {', '.join(sorted(unknown))}; there are {', '.join(by_name)}")
    BUILD.mkdir(parents=True, exist_ok=True)
    if not asked.names:
        print("\n".join(row.facts() for row in by_name.values()))
    codes = [0]
    for name in asked.names:
        line, code = run(by_name[name], rest, keep=asked.keep)
        print(line, flush=True)
        codes.append(code)
        if asked.write:
            write(line)
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
