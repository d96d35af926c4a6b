"""Runs a script in this process as python itself would, inside a run.

A script that uses this package opens the run itself, by its own ``init()``, to whose arguments those of the command
line are added; for any other script the run is open before its first line.

argv, ``__main__``, ``sys.path``, tracebacks and the end of the process are as in ``python script.py`` or ``python -m
module``, and where possible made by the same functions of the interpreter.

What differs from a direct start: a call stack that the script asks for (``traceback.print_stack``, ``inspect.stack``)
begins with our frames; ``sys.orig_argv`` is the whole command line; and ``init()`` has run if the script does not call
it itself: it imports torch (variables that ``import torch`` reads must be set outside of the script), handles SIGTERM,
and has threads (of which Python 3.12 and later warns in ``os.fork()``).
"""

from __future__ import annotations

import builtins
import importlib
import os
import pkgutil
import runpy
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.machinery import BuiltinImporter, PathFinder, SourceFileLoader, SourcelessFileLoader
from pathlib import Path
from types import TracebackType
from typing import Any

from pluto_dist.launcher.source_scan import module_uses_package, script_uses_package
from pluto_dist.log import logger

EARLY_SECONDS = 5.0  # how long the run of a script that failed before its init() may take to be opened
_FILE_INPUT = 257  # Py_file_input of CPython's compile.h: statements, as in a file


@dataclass(frozen=True, slots=True)
class Target:
    """A script to run: a file, a folder or an archive with a ``__main__.py``, or a module."""

    name: str
    arguments: tuple[str, ...] = ()
    is_module: bool = False


@dataclass(frozen=True, slots=True)
class Start:
    """The state of the interpreter before any module of ours was loaded.

    Attributes:
        folder: what ``python -m`` had added to the front of ``sys.path``; ``None`` in safe-path mode.
        modules: the names of the modules that were loaded.
    """

    folder: str | None
    modules: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Program:
    """A target that exists: its ``sys.argv``, the front of its ``sys.path``, and the function that executes it."""

    argv: list[str]
    folder: str | None
    execute: Callable[[dict[str, Any]], object]
    is_file: bool = False


def run(target: Target, options: Mapping[str, Any], error_file: str, start: Start) -> None:
    """Run ``target`` within the run that ``init(**options)`` joins.

    To be called last by the module that python was started with: its names are gone afterwards. Returns when the script
    has reached its end; the hooks of the run do the rest.

    Args:
        target: what to run.
        options: arguments of ``init()``, on top of the script's own. If the script does not call it, errors of the
            tracker are warnings.
        error_file: where torch's agent looks for the error; "" for none.
        start: the state of the interpreter.

    Raises:
        SystemExit: with the code that a direct start would have given.
    """
    program = _program(target, start)
    _begin(options, opens=not _uses_package(target, start))
    namespace = _set_up(program, start)
    worker = os.getpid()  # a child that the script forks may return here too
    caught = _Caught(lambda error: _write_error_file(error, error_file if os.getpid() == worker else ""))
    with caught:
        program.execute(namespace)
    if os.getpid() == worker and not isinstance(caught.error, KeyboardInterrupt):
        _record_early_failure(caught.error)
    _flush()
    _conclude(caught.error, namespace if program.is_file else {})


def _begin(options: Mapping[str, Any], *, opens: bool) -> None:
    try:
        from pluto_dist.api import current_process, init
        from pluto_dist.settings.arguments import Arguments

        process = current_process()
        process.command_line = Arguments(**options)
        if opens:
            process.is_opened_for_script = True
            init(on_error="warn")
    except Exception:  # noqa: BLE001  # border: whatever is wrong with us, the script must run
        logger.warning("going on without a tracker", exc_info=True)


def _uses_package(target: Target, start: Start) -> bool:
    try:
        if target.is_module:
            return module_uses_package(target.name, [*filter(None, [start.folder]), *sys.path])
        return script_uses_package(Path(_absolute(target.name)))
    except Exception:  # noqa: BLE001  # border: whatever is wrong with us, the script must run
        logger.debug("the script's source cannot be searched", exc_info=True)
        return False


def _record_early_failure(error: BaseException | None) -> None:
    """Open the run of a script that failed before it called ``init()``, for the failure to be on record."""
    try:
        from pluto_dist.api import current_process, init

        if error is not None and _is_failure(error) and current_process().runs == 0:
            init(on_error="warn", timeout=EARLY_SECONDS)
    except Exception:  # noqa: BLE001  # border: the script's own error must be seen, not ours
        logger.warning("the failure is not recorded", exc_info=True)


# Finding and executing it.


def _program(target: Target, start: Start) -> _Program:
    if target.is_module:
        argv = ["-m", *target.arguments]  # until runpy has found the module
        return _Program(argv, start.folder, lambda _: _run_module_as_main(target.name, True))
    path, argv = _absolute(target.name), [target.name, *target.arguments]
    if pkgutil.get_importer(path) is not None:  # a folder or an archive
        return _Program(argv, path, lambda _: _run_module_as_main("__main__", False))
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        sys.stderr.write(f"{sys.orig_argv[0]}: can't open file {path!r}: [Errno {error.errno}] {error.strerror}\n")
        raise SystemExit(2) from None
    folder = None if start.folder is None else os.path.dirname(os.path.realpath(path))  # noqa: PTH120  # a text
    return _Program(argv, folder, _file(path, descriptor), is_file=True)


def _absolute(name: str) -> str:
    """``name`` as ``__file__`` and tracebacks show it: absolute, but not normalised, as pathlib would do it."""
    if name == "." and sys.version_info >= (3, 11):
        return os.getcwd()  # noqa: PTH109
    return name if os.path.isabs(name) else os.path.join(os.getcwd(), name)  # noqa: PTH109, PTH117, PTH118


def _run_module_as_main(name: str, alters_argv: bool) -> object:
    """The function that python itself calls for ``-m`` and for folders; a traceback shows its frames."""
    _make_room(calls=1)
    return runpy._run_module_as_main(name, alters_argv)  # type: ignore[attr-defined]


def _file(path: str, descriptor: int) -> Callable[[dict[str, Any]], object]:
    """Python source, executed by the function that python itself calls for a script; or a ``.pyc`` file.

    ``compile`` and ``exec`` differ from it in the error for a file that cannot be decoded.
    """
    import ctypes

    pointer, text, integer, value = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.py_object
    fdopen = ctypes.CFUNCTYPE(pointer, integer, text)(("fdopen", ctypes.CDLL(None)))
    run_file = ctypes.PYFUNCTYPE(value, pointer, text, integer, value, value, integer, pointer)(
        ("PyRun_FileExFlags", ctypes.pythonapi)
    )
    is_compiled = path.endswith(".pyc")
    loader = (SourcelessFileLoader if is_compiled else SourceFileLoader)("__main__", path)

    def execute(namespace: dict[str, Any]) -> None:
        namespace.update(__file__=path, __cached__=None, __loader__=loader)
        _make_room(calls=2)
        if is_compiled:
            os.close(descriptor)
            exec(loader.get_code("__main__") or "", namespace)
        else:
            run_file(fdopen(descriptor, b"r"), os.fsencode(path), _FILE_INPUT, namespace, namespace, True, None)

    return execute


def _make_room(*, calls: int) -> None:
    """Raise the recursion limit by the frames below the caller's, so that the script has all of its own.

    Up to Python 3.11 calls of C functions among them count as well: that of ``exec`` by the outer runpy, and ours.
    """
    frames = sum(1 for _ in traceback.walk_stack(sys._getframe(1)))
    sys.setrecursionlimit(sys.getrecursionlimit() + frames + (calls if sys.version_info < (3, 12) else 0))


# The state that the script starts with.


def _set_up(program: _Program, start: Start) -> dict[str, Any]:
    """Set argv, ``sys.path``, modules and ``__main__`` as for a direct start; the namespace of ``__main__``."""
    sys.argv = program.argv
    if program.folder is not None:
        _unload_shadowed(program.folder, start.modules)
        sys.path.insert(0, program.folder)
    namespace = sys.modules["__main__"].__dict__
    annotations: dict[str, Any] = {"__annotations__": {}} if "__annotations__" in namespace else {}  # not from 3.14 on
    namespace.clear()
    namespace.update(__name__="__main__", __doc__=None, __package__=None, __loader__=BuiltinImporter, __spec__=None)
    namespace.update(annotations, __builtins__=builtins)
    return namespace


def _unload_shadowed(folder: str, loaded: frozenset[str]) -> None:
    """Unload the modules of ours that a direct start would import from the script's ``folder`` instead.

    A script with a ``secrets.py`` beside it imports that one.
    """
    for name in {module.partition(".")[0] for module in list(sys.modules)} - loaded:
        ours = getattr(sys.modules.get(name), "__spec__", None)
        theirs = PathFinder.find_spec(name, [folder])
        if ours is None or theirs is None or not ours.has_location or not theirs.has_location:
            continue  # built in, or a namespace package: neither is searched in the script's folder first
        if os.path.realpath(str(ours.origin)) != os.path.realpath(str(theirs.origin)):
            for module in [module for module in list(sys.modules) if f"{module}.".startswith(f"{name}.")]:
                del sys.modules[module]
    importlib.invalidate_caches()


# Its end.


class _Caught:
    """Keeps the exception of its block; unlike in an ``except`` block, no exception is being handled afterwards."""

    def __init__(self, meanwhile: Callable[[BaseException], None] | None = None) -> None:
        self.error: BaseException | None = None
        self._meanwhile = meanwhile

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is not None:
            while trace is not None and trace.tb_frame.f_globals is globals():
                trace = trace.tb_next
            self.error = error.with_traceback(trace)
            if self._meanwhile is not None:
                self._meanwhile(error)
        return True


def _flush() -> None:
    """Write out what the script printed before its traceback is shown, as python does at the end of a file."""
    for stream in (sys.stderr, sys.stdout):
        with suppress(OSError, ValueError, AttributeError):  # a full disk, closed, or replaced by the script
            stream.flush()


def _conclude(error: BaseException | None, namespace: dict[str, Any]) -> None:
    """Do what the interpreter does at the end of a script, and end the run if the script failed."""
    if isinstance(error, SystemExit):
        _end_run(error)
        raise error
    if error is not None:
        try:
            _show(error)
        finally:
            _end_run(error)  # if the script has replaced the run's excepthook
    for name in ("__file__", "__cached__"):  # gone before atexit functions run, as when python runs a file
        namespace.pop(name, None)
    if type(error) is KeyboardInterrupt:
        _die_of_interrupt()
    elif error is not None:
        raise SystemExit(1)


def _is_failure(error: BaseException) -> bool:
    """Whether the exit code of ``error`` is not 0; the system keeps its lowest byte."""
    if not isinstance(error, SystemExit):
        return True
    return error.code & 0xFF != 0 if isinstance(error.code, int) else error.code is not None


def _write_error_file(error: BaseException, file: str) -> None:
    """Write torch's error file, while ``error`` is being handled; one that the script wrote itself stays."""
    if not file or isinstance(error, KeyboardInterrupt) or not _is_failure(error):
        return
    try:
        if not Path(file).exists() or Path(file).stat().st_size == 0:
            from torch.distributed.elastic.multiprocessing.errors import get_error_handler

            get_error_handler().record_exception(error)
    except Exception as problem:  # noqa: BLE001  # border: the script's own error must be seen, not ours
        logger.warning("torchrun will not know of this error: its file %s cannot be written: %s", file, problem)


def _end_run(error: BaseException) -> None:
    """End the run by ``error``; a success waits for the end of the process."""
    from pluto_dist.api import current_process
    from pluto_dist.lifecycle.exit_hooks import record_exit
    from pluto_dist.lifecycle.process_end import Ending

    run = current_process().run  # ``None`` in a child that the script forked
    if run is not None and _is_failure(error):
        run.on_end(Ending.of_exception(error))
    elif isinstance(error, SystemExit):
        record_exit(error)


def _show(error: BaseException) -> None:
    """As PyErr_Print: print by ``sys.excepthook``, and by the interpreter if that fails."""
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, error.__traceback__
    if sys.version_info >= (3, 12):
        sys.last_exc = error
    caught = _Caught()
    with caught:
        sys.excepthook(type(error), error, error.__traceback__)
    failure = caught.error
    if isinstance(failure, SystemExit):
        raise failure
    if failure is not None:
        sys.stderr.write("Error in sys.excepthook:\n")
        sys.__excepthook__(type(failure), failure, failure.__traceback__)
        sys.stderr.write("\nOriginal exception was:\n")
        sys.__excepthook__(type(error), error, error.__traceback__)


def _die_of_interrupt() -> None:
    """Make the interpreter die of SIGINT at its end, as of an uncaught KeyboardInterrupt."""
    import ctypes

    value, text = ctypes.py_object, ctypes.c_char_p
    run_string = ctypes.PYFUNCTYPE(value, text, ctypes.c_int, value, value)(("PyRun_String", ctypes.pythonapi))
    with suppress(KeyboardInterrupt):  # the interpreter has recorded it
        run_string(b"raise KeyboardInterrupt", _FILE_INPUT, {}, {})
