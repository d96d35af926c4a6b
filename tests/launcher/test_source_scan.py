"""Whether a script uses this package, told from its source: real files in real folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from pluto_dist.launcher.source_scan import module_uses_package, script_uses_package

USE = "import pluto_dist\npluto_dist.init()\n"
TREES = {
    "the script itself": ({"train.py": USE}, True),
    "a script that does not": ({"train.py": "import torch, os.path\n"}, False),
    "a name that begins alike": ({"train.py": "import pluto_distributed\n"}, False),
    "a module beside it": ({"train.py": "from tracking import begin", "tracking.py": USE}, True),
    "a module beside it that is not imported": ({"train.py": "import data", "data.py": "", "other.py": USE}, False),
    "two modules away": ({"train.py": "import a", "a.py": "def f():\n    from b import g", "b.py": USE}, True),
    "in a package": (
        {
            "train.py": "from lib import core",
            "lib/__init__.py": "",
            "lib/core.py": "from . import log",
            "lib/log.py": USE,
        },
        True,
    ),
    "in the package's __init__": ({"train.py": "import lib.core", "lib/__init__.py": USE, "lib/core.py": ""}, True),
    "two modules that import each other": ({"train.py": "import a", "a.py": "import b", "b.py": "import a"}, False),
    "a script with a syntax error": ({"train.py": "x = ("}, False),
    "a script that is no text": ({"train.py": b"\x00\xff" * 9}, False),
    "a script that is not there": ({}, False),
}


def write(folder: Path, files: dict[str, str | bytes]) -> None:
    for name, source in files.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(source if isinstance(source, bytes) else source.encode())


@pytest.mark.parametrize(("files", "uses"), TREES.values(), ids=TREES)
def test_a_script(tmp_path, files, uses):
    """A use counts in the script and in what it imports from its own folder."""
    write(tmp_path, files)
    assert script_uses_package(tmp_path / "train.py") is uses
    assert module_uses_package("train", [str(tmp_path / "nowhere"), str(tmp_path)]) is uses


def test_a_folder_and_a_package(tmp_path):
    """A folder is its __main__.py; python -m package is the package and its __main__."""
    write(tmp_path, {"app/__main__.py": "from run import go", "app/run.py": USE, "app/__init__.py": ""})
    assert script_uses_package(tmp_path / "app")
    assert not module_uses_package("app", [str(tmp_path)])  # its `run` is not beside app
    write(tmp_path, {"app/__main__.py": "from .run import go"})
    assert module_uses_package("app", [str(tmp_path)])


def test_installed_modules_are_searched_within_their_package_alone(tmp_path):
    """What a module among the installed ones imports of other packages is not read: torch has thousands of files."""
    site = tmp_path / "site-packages"
    write(site, {"tool/__init__.py": "", "tool/train.py": "import torch", "torch/__init__.py": USE})
    assert not module_uses_package("tool.train", [str(site)])
    write(site, {"tool/train.py": "from tool import log", "tool/log.py": USE})
    assert module_uses_package("tool.train", [str(site)])
