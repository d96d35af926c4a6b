"""A mutant: one small fault in the package, as data."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pluto_dist

PACKAGE = Path(pluto_dist.__file__).parent


@dataclass(frozen=True)
class Mutant:
    """One small fault in the package.

    Attributes:
        name: of the mutant, for the command line.
        file: path within the package.
        before: text of the file, which occurs there exactly once.
        after: what stands there in the mutant.
        breaks: the guarantee that the mutant does not give.
    """

    name: str
    file: str
    before: str
    after: str
    breaks: str

    def applied(self, source: str) -> str:
        """``source``, the text of :attr:`file`, with the fault.

        Raises:
            ValueError: the text to replace is not there, or more than once.
        """
        if (count := source.count(self.before)) != 1:
            raise ValueError(f"mutant {self.name}: pluto_dist/{self.file} has this {count} times:\n{self.before}")
        return source.replace(self.before, self.after)


UNCHANGED = Mutant("unchanged", "__init__.py", "", "", "nothing: it is the package as it is")


def copy_package(folder: Path, mutant: Mutant) -> Path:
    """A copy of the package in ``folder``, with the mutant's fault; the file that has it."""
    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    file = folder / PACKAGE.name / mutant.file
    if mutant is not UNCHANGED:
        file.write_text(mutant.applied(file.read_text(encoding="utf-8")), encoding="utf-8")
    return file
