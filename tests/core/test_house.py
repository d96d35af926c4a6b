"""The architecture: facts come in at the door, decisions are pure, and imports go strictly downward."""

from __future__ import annotations

import ast
import graphlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pluto_dist

ROOT = Path(pluto_dist.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}

# A module, or a package with all its modules, imports only what stands on a lower floor.
FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "settings", "parsing", "topology", "version", "console", "pacing", "attempts"}),
    frozenset({"launchers", "wire", "values"}),
    frozenset({"identity", "inventory", "launch_folder", "deadline", "responses", "keychain", "plan", "notes"}),
    frozenset({"arguments", "torch_calls"}),
    frozenset({"store", "meeting", "exchange", "client", "spool", "gathering", "reporting", "explanation", "handover"}),
    frozenset({"replay", "outbox", "creating", "leading", "joining", "rejoining", "noting"}),
    frozenset({"ending", "beating", "hooks", "lifecycle", "run", "process"}),
    frozenset({"api", "launch", "server", "syncing", "doctor"}),
    frozenset({"wrapped"}),
    frozenset({"cli", "__main__", "__init__"}),
)
# Where one floor is a short ladder of its own. The design puts settings beside errors and run beside lifecycle;
# plan, store, gathering, replay, outbox, creating, leading, joining, beating and process are steps of its "identity",
# "exchange", "lifecycle" and "api".
LADDERS = frozenset(
    {
        ("settings", "errors"),
        ("settings", "parsing"),
        ("plan", "identity"),
        ("run", "ending"),
        ("notes", "launch_folder"),
        ("meeting", "store"),
        ("exchange", "store"),
        ("gathering", "exchange"),
        ("reporting", "exchange"),
        ("outbox", "replay"),
        ("creating", "replay"),
        ("joining", "replay"),
        ("joining", "creating"),
        ("leading", "creating"),
        ("leading", "outbox"),
        ("noting", "creating"),
        ("rejoining", "outbox"),
        ("beating", "ending"),
        ("lifecycle", "beating"),
        ("lifecycle", "ending"),
        ("run", "hooks"),
        ("run", "lifecycle"),
        ("process", "run"),
        ("__main__", "cli"),
    }
)
SERVER_MAY_IMPORT = {"server", "wire", "version", "values"}

# Path within the package, and the reason.
LONG_FILES = {"wire.py": "the whole contract, which is read as one page"}
LONG_FUNCTIONS = {
    ("api.py", "init"): "its signature and its documentation are the public interface",
    ("server/openapi.py", "_paths"): "a table, one entry per operation",
}
WAYS_TO_THE_ENVIRONMENT = ("os.environ", "os.environb", "os.getenv", "os.putenv", "os.unsetenv")
READS_ENVIRONMENT = {
    "api.py": "the one place",
    "cli/server.py": "the same for the commands, which run without init()",
    "cli/doctor.py": "the same",
    "cli/explain.py": "the same",
    "cli/sync.py": "the same",
    "cli/nodes.py": "the same",
    "cli/run.py": "the same",
    "cli/wrap.py": "the same",
    "launch/agent.py": "what its workers inherit, in one named function",
    "handover.py": "what the SDK and children inherit, in one named function",
    "server/local.py": "the default of an argument, for NO_PROXY",
}


def inside(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_of(path: Path) -> str:
    """``pluto_dist.server.app`` for its file; a package's own name for its ``__init__``."""
    return ".".join(["pluto_dist", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__")


MODULES = {module_of(path): path for path in FILES}


def part_of(module: str) -> str:
    """The module or package directly below pluto_dist; the package itself is ``__init__``."""
    return [*module.split("."), "__init__"][1]


def imported(path: Path) -> Iterator[str]:
    """Every module that ``path`` imports, absolute, at whatever place in the file."""
    package = module_of(path) if path.name == "__init__.py" else module_of(path).rpartition(".")[0]
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            source = ".".join(filter(None, [base, node.module]))
            for alias in node.names:
                submodule = f"{source}.{alias.name}"
                yield submodule if submodule in MODULES else source


OWN = {name: {target for target in imported(path) if target in MODULES} for name, path in MODULES.items()}


def test_every_module_has_a_floor():
    """A new module is given its floor; a floor names no module that is gone."""
    floors = [part for floor in FLOORS for part in floor]
    assert len(floors) == len(set(floors))
    assert {part_of(name) for name in MODULES} <= set(floors)


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_downward(name):
    """A module imports only from lower floors, from its own package, or down one of the named ladders."""
    floor_of = {part: number for number, floor in enumerate(FLOORS) for part in floor}
    own = part_of(name)
    for target in OWN[name]:
        part = part_of(target)
        downward = floor_of[part] < floor_of[own]
        assert part == own or downward or (own, part) in LADDERS, f"{name} imports {target}"


def test_the_ladders_are_in_use():
    """Every exception on a floor is one that the code needs."""
    pairs = {(part_of(name), part_of(target)) for name, targets in OWN.items() for target in targets}
    assert pairs >= LADDERS


def test_there_is_no_cycle():
    """No two modules import each other, inside a package neither, and inside functions neither."""
    graphlib.TopologicalSorter({name: targets - {name} for name, targets in OWN.items()}).prepare()


def test_the_server_shares_only_the_contract():
    """The embedded tracker knows nothing of the client side."""
    for name in MODULES:
        if part_of(name) == "server":
            assert {part_of(target) for target in OWN[name]} <= SERVER_MAY_IMPORT, name


def test_nobody_imports_the_commands():
    """The commands are on top: nothing below needs click."""
    for name, path in MODULES.items():
        if part_of(name) not in ("cli", "__main__"):
            assert not any(part_of(target) == "cli" for target in OWN[name])
            assert not any(target.split(".")[0] == "click" for target in imported(path)), name


def test_few_import_torch():
    """torch is imported where the ranks meet and where its agent is started, and there only inside functions."""
    users = {inside(path) for path in FILES if any(target.split(".")[0] == "torch" for target in imported(path))}
    assert users == {"store.py", "meeting.py", "launch/agent.py", "launch/command.py", "wrapped.py"}


def test_no_pickle_anywhere():
    """What other processes wrote is never unpickled."""
    for path in FILES:
        assert not {target.split(".")[0] for target in imported(path)} & {"pickle", "marshal", "shelve", "dill"}, path
        assert not re.search(r"_object_list\(|_object\(.*src", path.read_text(encoding="utf-8")), path


def test_one_place_reads_the_environment():
    """os.environ and os.getenv stand in the named modules only; two write them, for children and the SDK."""
    readers, writers = set(), set()
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in WAYS_TO_THE_ENVIRONMENT:
                readers.add(inside(path))
                assert node.attr == "environ", path
            targets = getattr(node, "targets", [getattr(node, "target", None)])
            written = [t.value for t in targets if isinstance(t, ast.Subscript)]
            if any(isinstance(value, ast.Attribute) and value.attr == "environ" for value in written):
                writers.add(inside(path))
    assert readers <= READS_ENVIRONMENT.keys()
    assert writers == {"launch/agent.py", "handover.py"}


@pytest.mark.parametrize("path", FILES, ids=inside)
def test_files_and_functions_are_short(path):
    """No file over 300 lines, no function over 40, but those with a reason."""
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= 300 or inside(path) in LONG_FILES
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= 40 or (inside(path), node.name) in LONG_FUNCTIONS, f"{node.name} has {length} lines"


def test_exceptions_are_needed():
    """A file or function that became short loses its exception."""
    assert all(len((ROOT / name).read_text(encoding="utf-8").splitlines()) > 300 for name in LONG_FILES)


@pytest.mark.parametrize("path", FILES, ids=inside)
def test_every_module_answers_a_question(path):
    """Every module has a docstring."""
    assert ast.get_docstring(TREES[path])


@pytest.mark.parametrize("path", FILES, ids=inside)
def test_broad_excepts_say_why(path):
    """Who catches everything says why on the same line; nothing is caught bare."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None
            if isinstance(node.type, ast.Name) and node.type.id == "Exception":
                comment = lines[node.lineno - 1].partition("#")[2]
                reason = re.sub(r"noqa: [A-Z0-9, ]+|[^a-z ]", "", comment)
                assert len(reason.split()) >= 3, lines[node.lineno - 1]
            elif isinstance(node.type, ast.Name) and node.type.id == "BaseException":
                assert isinstance(node.body[-1], ast.Raise), "what catches BaseException raises it again"


@pytest.mark.parametrize("path", FILES, ids=inside)
def test_no_drawers(path):
    """No module without a subject, and no words that the field has left behind."""
    assert path.stem not in ("utils", "util", "helpers", "common", "misc")
    assert not re.search(r"\b(master|main_process|process_index)\b", path.read_text(encoding="utf-8"))


HEAVY = ("torch", "requests", "urllib3", "pynvml", "psutil", "click", "starlette", "uvicorn", "sqlite3", "numpy")


@pytest.mark.parametrize(
    "statement", ["import pluto_dist", "import pluto_dist.errors", "import pluto_dist.settings, pluto_dist.identity"]
)
def test_importing_is_light(statement):
    """A fresh interpreter that imports the package has loaded none of what init() needs."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert not {name.split(".")[0] for name in json.loads(done.stdout)} & set(HEAVY)


def test_all_is_the_public_interface():
    """__all__ names what the package exports, all of it can be had, and nothing else."""
    exported = {
        alias.asname or alias.name
        for node in ast.walk(TREES[ROOT / "__init__.py"])
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pluto_dist")
        for alias in node.names
    }
    assert sorted(exported) == sorted(pluto_dist.__all__)
    assert len(pluto_dist.__all__) == len(set(pluto_dist.__all__))
    assert all(getattr(pluto_dist, name) is not None for name in pluto_dist.__all__)
    assert set(dir(pluto_dist)) == set(pluto_dist.__all__)
    with pytest.raises(AttributeError, match="unheard_of"):
        getattr(pluto_dist, "unheard_of")  # noqa: B009  # a name that no type checker lets stand
    assert pluto_dist.init.__doc__
    assert pluto_dist.Run.__doc__


def test_every_error_is_in_the_tree_that_is_drawn():
    """The docstring of errors draws every exception, and no other."""
    drawn = set(re.findall(r"[A-Z]\w+Error\b", pluto_dist.errors.__doc__.partition("The leader publishes")[0]))
    defined = {node.name for node in TREES[ROOT / "errors.py"].body if isinstance(node, ast.ClassDef)}
    assert drawn - {"ValueError"} == defined


def errors_below(root: type[Exception]) -> Iterator[type[Exception]]:
    for child in root.__subclasses__():
        yield child
        yield from errors_below(child)


@pytest.mark.parametrize(
    "error", list(errors_below(pluto_dist.errors.PlutoDistError)), ids=lambda error: error.__name__
)
def test_an_error_arrives_as_it_was(error):
    """An error that one rank publishes is the same error, with the same words, on the others."""
    again = pluto_dist.errors.received(error.__name__, "why\nand what to do")
    assert type(again) is error
    assert str(again) == "why\nand what to do"


@pytest.mark.parametrize("name", ["", "SystemExit", "ValueError", "PlutoDistError", "__class__"])
def test_an_error_of_another_version(name):
    """A name that is not in the tree becomes the base class; nothing is looked up elsewhere."""
    assert type(pluto_dist.errors.received(name, "m")) is pluto_dist.errors.PlutoDistError
