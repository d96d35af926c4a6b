"""The architecture: imports go downward, facts come in at the entry points, decisions are pure, tests mirror it."""

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
TESTS = Path(__file__).parents[1]
FILES = sorted(ROOT.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}

# A package (or module) imports only what stands before it in this list, or its own modules. The longest name that
# fits a module counts: `server.db.files` belongs to `server.db`, `server.app` to `server`.
LAYERS = (
    "version",
    "errors",
    "log",
    "background",
    "private_files",
    "serialization",
    "contract",
    "settings",
    "environments",
    "identity",
    "inventory",
    "inventory.gpu",
    "inventory.probes",
    "inventory.report",
    "client",
    "client.offline",
    "query",
    "transfer",
    "rendezvous",
    "lifecycle",
    "run",
    "api",
    "launcher",
    "integrations",
    "doctor",
    "doctor.nvml_profile",
    "server.settings",
    "server.api_keys",
    "server.transport",
    "server.db",
    "server.openapi.schemas",
    "server.routes",
    "server.pages",
    "server.openapi",
    "server",
    "cli",
    "__main__",
    "__init__",
)
SERVER_MAY_IMPORT = {"server", "contract", "version", "serialization", "private_files"}
MODULES_AT_THE_TOP = 8  # beside __init__ and __main__
LINES_OF_A_FILE, LINES_OF_A_FUNCTION, PARAMETERS = 500, 40, 6

# Path within the package, and the reason.
LONG_FUNCTIONS = {
    ("api.py", "init"): "its signature and its documentation are the public interface",
}
MANY_PARAMETERS = {
    ("api.py", "init"): "as many as the contract has fields",
    ("server/local.py", "__init__"): "LocalServer's, which is public",
}
WAYS_TO_THE_ENVIRONMENT = ("os.environ", "os.environb", "os.getenv", "os.putenv", "os.unsetenv")
READS_ENVIRONMENT = {
    "api.py": "init()",
    "cli/server.py": "a command, which runs without init()",
    "cli/doctor.py": "the same",
    "cli/explain.py": "the same",
    "cli/sync.py": "the same",
    "cli/nodes.py": "the same",
    "cli/runs.py": "the same",
    "cli/open.py": "the same: whether there is a display",
    "cli/asking.py": "the same: whether colours are wanted",
    "query/tracker.py": "the default of an argument",
    "cli/run.py": "the same",
    "cli/wrap.py": "the same",
    "launcher/agent.py": "what its workers inherit, in one named function",
    "lifecycle/sdk.py": "what the SDK and children inherit, in one named function",
    "server/local.py": "the default of an argument, for NO_PROXY",
}
IMPORTS_TORCH = {
    "rendezvous/store.py": "torch.distributed's stores",
    "rendezvous/connect.py": "the same, and the default process group",
    "launcher/agent.py": "its elastic agent",
    "launcher/command.py": "torchrun's parser",
    "launcher/script.py": "the error file of its agent",
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


def layer_of(module: str) -> int:
    """The place in :data:`LAYERS` of the longest name that fits ``module``."""
    name = module.removeprefix("pluto_dist").removeprefix(".") or "__init__"
    fitting = [layer for layer in LAYERS if f"{name}.".startswith(f"{layer}.")]
    return LAYERS.index(max(fitting, key=len))


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


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_downward(name):
    """A module imports only from earlier layers, or from its own."""
    for target in OWN[name]:
        assert layer_of(target) <= layer_of(name), f"{name} imports {target}"


@pytest.mark.parametrize("layer", LAYERS)
def test_every_layer_is_there(layer):
    """The list names no package that is gone."""
    assert layer == "__init__" or f"pluto_dist.{layer}" in MODULES


def test_there_is_no_cycle():
    """No two modules import each other, inside a package neither, and inside functions neither."""
    graphlib.TopologicalSorter({name: targets - {name} for name, targets in OWN.items()}).prepare()


def test_the_top_is_small():
    """Few modules stand beside the packages."""
    assert len({path for path in FILES if path.parent == ROOT} - {ROOT / "__init__.py", ROOT / "__main__.py"}) <= (
        MODULES_AT_THE_TOP
    )


def test_the_server_imports_nothing_of_the_client_side():
    """The embedded tracker shares the contract, the codec and the private files with it."""
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
    """torch is imported in the named modules only, and there only inside functions."""
    users = {inside(path) for path in FILES if any(target.split(".")[0] == "torch" for target in imported(path))}
    assert users == IMPORTS_TORCH.keys()
    for path in FILES:
        for node in TREES[path].body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == "torch" for name in names), path


# The tests.

NO_MIRROR = {
    "cli/test_help.py": "the --help texts of all commands",
    "compatibility": "files and messages of an earlier version",
    "fakenvml": "the fake driver, and its own test",
    "fuzz": "requests made from the OpenAPI document",
    "hosted": "the hosted tracker as it was measured, over the embedded one",
    "jobs": "real jobs: torchrun, mpirun, srun",
    "project": "the tree, the documentation, the scripts",
    "properties": "laws over generated launches",
    "real_gpu": "what only a machine with GPUs can show",
    "server/browser": "the pages in a real browser",
    "server/contract": "the contract row by row, asked of any tracker",
    "server/over_http": "the embedded tracker as a whole, over real HTTP",
    "simulation": "whole jobs, simulated",
}


def mirrored(test: Path) -> Path:
    """The module that a test module is about: ``client/deadline.py`` for ``client/test_deadline.py``."""
    inner = test.relative_to(TESTS)
    return ROOT / inner.parent / f"{inner.stem.removeprefix('test_')}.py"


TEST_MODULES = [
    test
    for test in sorted(TESTS.rglob("test_*.py"))
    if not any(test.is_relative_to(TESTS / folder) for folder in NO_MIRROR)
]


@pytest.mark.parametrize("test", TEST_MODULES, ids=lambda test: test.relative_to(TESTS).as_posix())
def test_tests_mirror_the_package(test):
    """A test module has the name and the place of the module, or of the package, that it is about."""
    module = mirrored(test)
    assert module.exists() or (module.with_suffix("") / "__init__.py").exists()


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
    assert writers == {"launcher/agent.py", "lifecycle/sdk.py"}


@pytest.mark.parametrize("path", FILES, ids=inside)
def test_files_and_functions_are_short(path):
    """No file over 500 lines, no function over 40 or with more than 6 parameters, but those with a reason."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LINES_OF_A_FILE
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            key = (inside(path), node.name)
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= LINES_OF_A_FUNCTION or key in LONG_FUNCTIONS, f"{node.name} has {length} lines"
            count = parameters(node)
            is_command = path.parent.name == "cli" and bool(node.decorator_list)
            assert count <= PARAMETERS or is_command or key in MANY_PARAMETERS, f"{node.name} has {count} parameters"


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many parameters ``function`` has, ``self`` and ``cls`` left out."""
    listed = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return sum(each.arg not in ("self", "cls") for each in listed)


def test_exceptions_are_needed():
    """A function that became short, or got fewer parameters, loses its exception."""
    functions = {
        (inside(path), node.name): node
        for path in FILES
        for node in ast.walk(TREES[path])
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    for key in LONG_FUNCTIONS:
        assert (functions[key].end_lineno or 0) - functions[key].lineno >= LINES_OF_A_FUNCTION
    assert all(parameters(functions[key]) > PARAMETERS for key in MANY_PARAMETERS)


@pytest.mark.parametrize("path", FILES, ids=inside)
def test_every_module_has_a_docstring(path):
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


def test_the_scripts_generator_is_left_alone():
    """A script seeds `random`: whatever else draws from it changes the training's result."""
    found = {
        (path.name, name)
        for path in FILES
        if re.search(r"^\s*import random$", text := path.read_text(), re.MULTILINE)
        for name in re.findall(r"\brandom\.(\w+)", text)
    }
    assert {name for _, name in found} == {"SystemRandom"}, found


def test_one_place_reads_digits():
    """Text becomes a number by parse_digits: isdigit() takes what int() refuses, and int() refuses long numbers."""
    found = {
        inside(path)
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in ("isdigit", "isdecimal", "isnumeric")
    }
    assert found == {"serialization/text.py"}


HEAVY = ("torch", "requests", "urllib3", "pynvml", "psutil", "click", "starlette", "uvicorn", "sqlite3", "numpy")


@pytest.mark.parametrize(
    "statement",
    ["import pluto_dist", "import pluto_dist.errors", "import pluto_dist.settings.settings, pluto_dist.identity"],
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
    drawn = set(re.findall(r"[A-Z]\w+Error\b", pluto_dist.errors.__doc__.partition("Rank 0 publishes")[0]))
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
