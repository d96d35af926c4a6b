"""A wrapped script behaves as a plain one: every probe runs both ways, and what can be seen of it is compared."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import pluto_dist
from pluto_dist.cli.wrap import init_arguments, wrap
from pluto_dist.launcher.script import Target

WRAPPED = ("-m", "pluto_dist", "--offline")


@dataclass(frozen=True)
class Seen:
    """What can be seen of a process, without our own lines and without addresses."""

    code: int
    out: str
    err: str


def started(command: list[str], folder: Path) -> Seen:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PLUTO_", "MLOP_", "TORCHELASTIC_"))
    }
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=kept | {"PYTHONHASHSEED": "0", "COLUMNS": "80"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="backslashreplace",
        check=False,
        timeout=60,
        input="typed\n",
    )
    err = "".join(line for line in done.stderr.splitlines(True) if not line.startswith("pluto_dist: "))
    return Seen(done.returncode, *(re.sub(r"0x[0-9a-f]{6,}", "0x", text) for text in (done.stdout, err)))


def both(folder: Path, *command: str, flags: tuple[str, ...] = ()) -> Seen:
    """``python FLAGS COMMAND`` as it is, once that is the same with the wrapper in front."""
    plain = started([*flags, *command], folder)
    assert started([*flags, *WRAPPED, *command], folder) == plain
    return plain


FACTS = """
import sys
main = sys.modules["__main__"]
print(sys.argv, sys.path, sys.flags, sys.exc_info(), sys.stdin.readline())
print(main.__dict__ is globals(), list(globals()), [globals()[name] for name in sorted(globals()) if name != "main"])
print([type(__loader__), getattr(__loader__, "name", None), getattr(__loader__, "path", None)])
x: int = 1
print(__annotations__)
"""

LOCAL = """
import sys
import secrets, requests, logging, queue, click
print([module.__file__ for module in (secrets, requests, click)], secrets.API, requests.get, click.x)
print(logging.getLogger, queue.Queue)
"""
RAISES = """
def deeper(n):
    if n == 0:
        raise ValueError("no\\ndata")
    deeper(n - 1)
deeper(3)
"""
# What the script is, by what it is about.
PROBES: dict[str, str | bytes] = {
    "facts": FACTS,
    "a traceback": RAISES,
    "a cause": "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise KeyError('k') from e\n",
    "a context": "def f():\n    try:\n        1 / 0\n    finally:\n        raise KeyError('k')\nf()\n",
    "no text": "class E(Exception):\n    __str__ = None\nraise E().with_traceback(None)\n",
    "a group": "raise ExceptionGroup('both', [ValueError(1), TypeError(2)])\n",
    "notes": "e = ValueError(1)\ne.add_note('see')\nraise e\n",
    "recursion": "def f(n):\n    f(n + 1)\nf(0)\n",
    "syntax": "x = 1\ndef f(:\n",
    "indentation": "if x:\ny = 1\n",
    "return outside": "return 1\n",
    "unfinished": "x = (1,\n",
    "not utf-8": b"x = '\xff'\n",
    "not utf-8 later": b"print(1)\nx = 2\ny = '\xe9'\nz = 1 +\n",
    "latin-1": b"# coding: latin-1\nprint(ascii('\xe9'))\n1 / 0  # \xe9\n",
    "unknown encoding": "# coding: none-such\nx = 1\n",
    "byte order mark": b"\xef\xbb\xbfprint(1)\n1 / 0\n",
    "null byte": b"x = 1\0\nprint(x)\n",
    "crlf": b"x = '''a\r\nb'''\r\nprint(repr(x))\r\n1 / 0\r\n",
    "no last line break": "1 / 0",
    "empty": "",
    "warnings": "import warnings\nwarnings.warn('w')\nx = '\\d'\nif x is 'y': pass\n",
    "in a module": "import json\njson.loads('{')\n",
    "exec": "exec('1 / 0')\n",
    "exit 0": "import sys\nsys.exit(0)\n",
    "exit None": "import sys\nsys.exit()\n",
    "exit 3": "import sys\nsys.exit(3)\n",
    "exit 256": "import sys\nsys.exit(256)\n",
    "exit -1": "import sys\nsys.exit(-1)\n",
    "exit True": "import sys\nsys.exit(True)\n",
    "exit with a text": "import sys\nsys.exit('no data in /data')\n",
    "exit with an empty text": "import sys\nsys.exit('')\n",
    "exit with a tuple": "raise SystemExit(1, 2)\n",
    "exit with an exception": "import sys\nsys.exit(ValueError(3))\n",
    "exit of a subclass": "class Stop(SystemExit):\n    code = 4\nraise Stop\n",
    "exit while handling": "import sys\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    sys.exit(5)\n",
    "os._exit": "import os\nprint(1, flush=True)\nos._exit(6)\n",
    "interrupt": "def f():\n    raise KeyboardInterrupt\nf()\n",
    "a real interrupt": "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)\n",
    "interrupt of a subclass": "class Stop(KeyboardInterrupt): pass\nraise Stop\n",
    "SIGTERM": "import os, signal, time\nprint(1, flush=True)\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(9)\n",
    "SIGTERM handled": """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
os.kill(os.getpid(), signal.SIGTERM)
""",
    "signal handlers": "import signal\nprint([signal.getsignal(n) for n in (1, 2, 10, 13)])\n",
    "SIGABRT": "import os\nos.abort()\n",
    "base exception": "class Stop(BaseException): pass\nraise Stop(1)\n",
    "cancelled": "import asyncio\nasync def f():\n    raise asyncio.CancelledError\nasyncio.run(f())\n",
    "error at exit": """
import atexit
class Callback:
    def __call__(self):
        1 / 0
atexit.register(Callback())
""",
    "file at exit": "import atexit\natexit.register(lambda: print(__name__, __file__))\n",
    "file at exit with a code": "import atexit\natexit.register(lambda: print(__file__, __cached__))\nexit(3)\n",
    "file at exit after an error": "import atexit\natexit.register(lambda: print(__file__))\n1 / 0\n",
    "exit at exit": "import atexit, sys\natexit.register(lambda: sys.exit(8))\n",
    "order at the end": """
import atexit, sys, threading, time
class D:
    def __del__(self): print("deleted", sys is not None)
def work():
    time.sleep(0.2)
    print("thread")
d = D()
atexit.register(print, "atexit")
threading.Thread(target=work).start()
print("end")
raise ValueError(d)
""",
    "the last error": """
import atexit, sys
atexit.register(lambda: print(sys.last_type, sys.last_value, sys.last_traceback.tb_lineno, sys.exc_info()))
atexit.register(lambda: print(getattr(sys, "last_exc", "none")))
1 / 0
""",
    "no last error": "import atexit, sys\natexit.register(lambda: print(hasattr(sys, 'last_value')))\nsys.exit(1)\n",
    "a hook": """
import sys, traceback
def hook(kind, error, trace):
    print("hook", kind, [frame.name for frame in traceback.extract_tb(trace)], sys.exc_info())
sys.excepthook = hook
1 / 0
""",
    "a hook that fails": "import sys\ndef hook(*_):\n    return {}['x']\nsys.excepthook = hook\n1 / 0\n",
    "a hook that exits": "import sys\nsys.excepthook = lambda *_: sys.exit(9)\n1 / 0\n",
    "a hook that is interrupted": """
import sys
def hook(*_):
    raise KeyboardInterrupt
sys.excepthook = hook
1 / 0
""",
    "no stderr": "import sys\nsys.stderr = None\nsys.exit('text')\n",
    "closed stdout": "import sys\nprint(1)\nsys.stdout.close()\n1 / 0\n",
    "error in a thread": "import threading\nthreading.Thread(target=lambda: 1 / 0, name='T').start()\n",
    "error in a finaliser": "class D:\n    def __del__(self):\n        1 / 0\nd = D()\ndel d\n",
    "source": """
import inspect, linecache
def f(): pass
print(inspect.getsource(f), inspect.getfile(f), linecache.getline(__file__, 2))
""",
    "a dataclass": """
from __future__ import annotations
import dataclasses, typing
@dataclasses.dataclass
class A:
    x: int
print(A(1), typing.get_type_hints(A), A.__module__, __annotations__)
""",
    "pickle": """
import pickle
class A: pass
copy = pickle.loads(pickle.dumps(A()))
print(type(copy) is A, A.__module__)
""",
    "main imported": "import __main__\nx = 1\nprint(__main__.x, __import__('sys').modules[__name__] is __main__)\n",
    "forked children": """
import os, sys
for end in (lambda: None, lambda: sys.exit(3), lambda: 1 / 0, lambda: os.kill(os.getpid(), 15)):
    if os.fork() == 0:
        end()
        break
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
""",
}
NEWER = {"a group", "notes"} if sys.version_info < (3, 11) else set()
# Those that every run of the tests tries, as a script and as a module.
ALWAYS_BOTH = {"facts", "a traceback", "recursion", "syntax", "exit 3", "exit with a text", "interrupt"}
ALWAYS = ALWAYS_BOTH | {
    "a cause", "a context", "not utf-8", "null byte", "warnings", "exit 0", "exit 256", "SIGTERM", "base exception",
    "error at exit", "file at exit", "order at the end", "the last error", "a hook", "a hook that fails",
    "error in a thread", "source", "pickle", "forked children",
}  # fmt: skip
CASES = [
    pytest.param(name, way, id=f"{name}-{way}", marks=() if name in always else pytest.mark.exhaustive)
    for way, always in (("script", ALWAYS), ("module", ALWAYS_BOTH))
    for name in PROBES
    if name not in NEWER
]
CHILDREN = """
import multiprocessing, os, sys
class Sample:
    def __init__(self, n): self.n = n
def work(sample, back):
    back.put((type(sample).__qualname__, __name__, sample.n * 2, sys.argv, sys.path[0], __file__))
if __name__ == "__main__":
    context = multiprocessing.get_context("METHOD")
    back = context.SimpleQueue()
    for target, args in ((work, (Sample(2), back)), (sys.exit, (4,)), (int, ("x",))):
        child = context.Process(target=target, args=args, name="Child")
        child.start()
        child.join()
        print(child.exitcode, flush=True)
    print(back.get())
else:
    print("imported as", __name__, flush=True)
"""


@pytest.mark.parametrize(("name", "way"), CASES)
def test_a_probe(tmp_path, name, way):
    """Output, traceback and exit code of a script are those of a direct start."""
    source = PROBES[name]
    (tmp_path / "script.py").write_bytes(source if isinstance(source, bytes) else source.encode())
    # Python 3.12 and newer tells who forks beside a thread; a run has threads.
    flags = ("-W", "ignore::DeprecationWarning") if "fork" in name else ()
    both(tmp_path, *(("script.py",) if way == "script" else ("-m", "script")), "--lr", "1", flags=flags)


def mostly_exhaustive(always: Iterable[str], others: Iterable[str]) -> list[Any]:
    return [*always, *(pytest.param(other, marks=pytest.mark.exhaustive) for other in others)]


@pytest.mark.parametrize("method", mostly_exhaustive(["spawn"], ["fork", "forkserver"]))
def test_children(tmp_path, method):
    """Children of every start method find the script's classes, and end as they would."""
    (tmp_path / "script.py").write_text(CHILDREN.replace("METHOD", method))
    both(tmp_path, "script.py", "a", "--b")
    both(tmp_path, "-m", "script", "a")


NAMES = (
    "./script.py",
    "././script.py",
    "sub/../script.py",
    "{here}/script.py",
    "sub/é.py",
    "sub/noend",
    "sub/x=1.py",
    "sub/link.py",
    ".//script.py",
)


@pytest.mark.parametrize("name", mostly_exhaustive(["script.py", "a b.py", "./-x.py", "link2.py"], NAMES))
def test_names(tmp_path, name):
    """However the script is named, argv, __file__ and sys.path are those of a direct start."""
    (tmp_path / "sub").mkdir()
    for made in ("script.py", "a b.py", "sub/é.py", "sub/noend", "-x.py", "sub/x=1.py"):
        (tmp_path / made).write_text(FACTS + "1 / 0\n")
    (tmp_path / "sub" / "link.py").symlink_to("../script.py")
    (tmp_path / "link2.py").symlink_to(tmp_path / "sub" / "link.py")
    typed = name.format(here=tmp_path)
    assert both(tmp_path, typed, "--project", "x", "-m", "y", "--", "--help", "").code == 1
    if name == "script.py":
        assert both(tmp_path / "sub", "../script.py").code == 1


FLAGS = ["-E -s", "-O", "-u", "-B -q", "-W error", "-X utf8=0", "-OO -b"]
if sys.version_info >= (3, 11):
    FLAGS.append("-P")


@pytest.mark.parametrize("flags", mostly_exhaustive(["-I", "-X dev"], FLAGS))
def test_flags(tmp_path, flags):
    """The interpreter's own flags mean to a script what they mean to it in a direct start."""
    (tmp_path / "script.py").write_text(FACTS + "import warnings; warnings.warn('w'); assert 0\n")
    both(tmp_path, "script.py", flags=tuple(flags.split()))
    both(tmp_path, "-m", "script", flags=tuple(flags.split()))


def test_namesakes(tmp_path):
    """Modules beside the script that have names of what this package uses are the script's, not ours."""
    (tmp_path / "script.py").write_text(LOCAL)
    (tmp_path / "secrets.py").write_text("API = 1\n")
    (tmp_path / "requests").mkdir()
    (tmp_path / "requests" / "__init__.py").write_text("get = 2\n")
    (tmp_path / "click.py").write_text("x = 3\n")
    (tmp_path / "queue").mkdir()  # a mere folder gives way to the real one
    assert both(tmp_path, "script.py").code == 0
    assert both(tmp_path, "-m", "script").code == 0


def test_folders_and_archives(tmp_path):
    """A folder or a zip file with a __main__.py is run as python runs it; without one, python's message."""
    for name in ("program", "nothing", "package"):
        (tmp_path / name).mkdir()
    (tmp_path / "program" / "__main__.py").write_text(FACTS + "import beside\nbeside.f()\n")
    (tmp_path / "program" / "beside.py").write_text("def f():\n    1 / 0\n")
    with zipfile.ZipFile(tmp_path / "program.zip", "w") as archive:
        archive.write(tmp_path / "program" / "__main__.py", "__main__.py")
        archive.write(tmp_path / "program" / "beside.py", "beside.py")
    (tmp_path / "program.pyz").write_bytes(b"#!/usr/bin/env python\n" + (tmp_path / "program.zip").read_bytes())
    for name in ("program", "program/", "./program.zip", "program.pyz"):
        assert both(tmp_path, name, "a", "-b").code == 1
    assert both(tmp_path, "program", flags=("-I",)).code == 1
    assert "can't find '__main__' module" in both(tmp_path, "nothing").err
    assert both(tmp_path, "program/__main__.py").code == 1
    assert both(tmp_path / "program", ".").code == 1


@pytest.mark.parametrize(
    "name",
    mostly_exhaustive(
        ["package.train", "package", "package.nowhere"], ["package.inner", "nowhere", "broken.x", "broken", ".x", ""]
    ),
)
def test_modules(tmp_path, name):
    """A module, a package, and what is neither: as python -m has it."""
    (tmp_path / "package" / "inner").mkdir(parents=True)
    (tmp_path / "package" / "__init__.py").write_text("import sys\nprint(sys.argv, __name__)\n")
    (tmp_path / "package" / "train.py").write_text(FACTS + "from . import inner\n1 / 0\n")
    (tmp_path / "package" / "__main__.py").write_text(FACTS + "from .inner import x\n")
    (tmp_path / "package" / "inner" / "__init__.py").write_text("")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "__init__.py").write_text("1 / 0\n")
    assert both(tmp_path, "-m", name, "-m", "--help").code == 1
    if name == "package":
        assert both(tmp_path, "-m", "tabnanny", "-v", "package").code == 0


def test_compiled(tmp_path):
    """A .pyc file runs as python runs it."""
    (tmp_path / "script.py").write_text(FACTS + "1 / 0\n")
    started(["-c", "import py_compile; py_compile.compile('script.py', 'x.pyc')"], tmp_path)
    assert both(tmp_path, "x.pyc", "a").code == 1


def test_what_is_not_there(tmp_path):
    """A script that cannot be opened gives python's message and exit code 2."""
    assert both(tmp_path, "nowhere.py").code == 2
    assert both(tmp_path, "./a b/nowhere.py").code == 2


def test_order_of_the_streams(tmp_path):
    """What was printed stands before the traceback or the last words, where both go to one file."""
    for end in ("1 / 0", "raise SystemExit('text')"):
        (tmp_path / "script.py").write_text(f"print('printed')\n{end}\n")
        shell = 'exec "$0" "$@" 2>&1'
        plain, wrapped = (
            subprocess.run(
                ["sh", "-c", shell, sys.executable, *before, "script.py"],
                cwd=tmp_path,
                capture_output=True,
                check=False,
            ).stdout.splitlines()
            for before in ((), WRAPPED)
        )
        assert [line for line in wrapped if not line.startswith(b"pluto_dist: ")] == plain


def test_no_agent_no_torch(tmp_path):
    """An error is told to torch's agent only where there is one: otherwise torch is not imported for it."""
    (tmp_path / "script.py").write_text(
        "import atexit, sys\natexit.register(lambda: print('torch' in sys.modules))\n1 / 0\n"
    )
    assert started([*WRAPPED, "script.py"], tmp_path).out == "False\n"


@pytest.mark.parametrize(
    ("words", "target"),
    [
        (["train.py"], Target("train.py")),
        (["--name", "x", "train.py", "--name", "y"], Target("train.py", ("--name", "y"))),
        (["train.py", "--help", "-m", "--", "-h"], Target("train.py", ("--help", "-m", "--", "-h"))),
        (["--", "--name", "x"], Target("--name", ("x",))),
        (["--", "-m", "x"], Target("-m", ("x",))),
        (["-m", "pkg.train", "-m", "--no-resume"], Target("pkg.train", ("-m", "--no-resume"), is_module=True)),
        (["--tag=a", "-m", "--", "train", "--tag"], Target("train", ("--tag",), is_module=True)),
        (["train.py", "", " "], Target("train.py", ("", " "))),
    ],
)
def test_whose_options_they_are(words, target):
    """Ours stand before the script; all that follows it is the script's."""
    assert wrap.main(words, standalone_mode=False)[0] == target


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ([], {}),
        (["--project", "p", "--name=n", "--run-id", "7"], {"project": "p", "name": "n", "run_id": "7"}),
        (["--tag", "a", "--tag", "group:b"], {"tags": ["a", "group:b"]}),
        (["--resume"], {"resume": True}),
        (["--no-resume", "--offline"], {"resume": False, "mode": "offline"}),
        (["--config", "a.b=1", "--config", "a.c=x=y"], {"config": {"a": {"b": 1, "c": "x=y"}}}),
        (["--config", "f.json", "--config", "lr=2"], {"config": {"lr": 2, "optim": {"name": "adam", "eps": 1}}}),
        (["--config", "optim.eps=2", "--config", "f.json"], {"config": {"lr": 1, "optim": {"name": "adam", "eps": 1}}}),
        (["--config", "optim=none", "--config", "f.json", "--config", "g.yaml"], {"config": {"lr": 1, "optim": [1]}}),
        (["--config", "./a=b.json"], {"config": {"odd": True}}),
    ],
)
def test_what_init_is_given(tmp_path, monkeypatch, words, arguments):
    """Each option is the argument of init() that it is named for, and only those that were given."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f.json").write_text('{"lr": 1, "optim": {"name": "adam", "eps": 1}}')
    (tmp_path / "g.yaml").write_text("optim: [1]\n")
    (tmp_path / "a=b.json").write_text('{"odd": true}')
    assert wrap.main([*words, "train.py"], standalone_mode=False)[1] == arguments
    assert set(arguments) <= inspect.signature(pluto_dist.init).parameters.keys()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1), ("1e-3", 1e-3), (".5", 0.5), ("true", True), ("True", True), ("null", None), ("None", None),
        ("[1, 2]", [1, 2]), ("(1, 2)", (1, 2)), ('{"a": 1}', {"a": 1}), ('"1"', "1"), ("'1'", "1"), ("adam", "adam"),
        ("007", "007"), ("1.2.3", "1.2.3"), ("2024-01-01", "2024-01-01"), ("", ""), ("a b", "a b"), ("\\d", "\\d"),
        ("1in x", "1in x"), ("[" * 10_000, "[" * 10_000), ("lambda: 1", "lambda: 1"),
    ],
)  # fmt: skip
def test_what_a_value_is(text, value):
    """A value on the command line is JSON, else a Python literal, else the text that it is; nothing is evaluated."""
    config = init_arguments(configs=[f"key={text}"])["config"]
    assert config == {"key": value}
    assert type(config["key"]) is type(value)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--unheard-of", "train.py"], "No such option"),
        ([], "Missing argument"),
        (["-m"], "Missing argument"),
        (["--project"], "requires an argument"),
        (["--project", "", "train.py"], "project= must not be empty"),
        (["--config", "nowhere.json", "train.py"], "there is no such file"),
        (["--config", "list.json", "train.py"], "holds no mapping"),
        (["--config", "conf", "train.py"], "or KEY=VALUE; it is 'conf'"),
        (["--config", "a..b=1", "train.py"], "needs a KEY before the ="),
        (["--config", "=1", "train.py"], "needs a KEY before the ="),
        (["--tag", "group:a", "--tag", "group:b", "train.py"], "group:"),
    ],
)
def test_a_wrong_command_line(tmp_path, words, says):
    """What is wrong is said, with exit code 2, before anything runs."""
    (tmp_path / "train.py").write_text("print('ran')\n")
    (tmp_path / "list.json").write_text("[]")
    seen = started(["-m", "pluto_dist", *words], tmp_path)
    assert (seen.code, seen.out) == (2, "")
    assert says in seen.err


def test_the_help():
    """--help names every option and both ways to start, and says what cannot be wrapped."""
    shown = CliRunner().invoke(wrap, ["--help"]).output
    for words in ("-m pluto_dist [OPTIONS] SCRIPT", "[OPTIONS] -m MODULE", "--no-python", "init()"):
        assert words in shown
    visible = [each for each in wrap.params if not getattr(each, "hidden", False)]
    assert all(option in shown for each in visible for option in each.opts if option.startswith("-"))
    assert max(len(line) for line in shown.splitlines()) <= 80


def test_wrapping_is_light():
    """What runs the script loads nothing heavy by itself."""
    code = "import pluto_dist.launcher.script, sys; print({name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not ast.literal_eval(done.stdout) & {"torch", "requests", "click", "psutil", "pynvml", "ctypes", "numpy"}
