"""How a process, or the code that calls ``finish()``, ends: each row is a few lines of Python, and what is seen."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable

import pytest

from lifecycle.scripts import run_script
from pluto_dist.lifecycle.process_end import WITHOUT_A_WORD, Ending, ending_here, handled_exception

SCRIPT = """
import atexit, sys
from pluto_dist.lifecycle.process_end import Ending, ending_of_process, outermost_frame
main_frame, exited = outermost_frame(), EXITED
@atexit.register
def end():
    seen = ending_of_process(main_frame, None, exited)
    print("ENDING", seen.status, type(seen.error).__name__, seen.reason)
def main():
    pass
"""
EXITED = 'Ending.of_exit(3, None, "sys.exit(3)")'
RAISED = "FAILED ZeroDivisionError "
WHOLE = {
    "the end": ("pass", "None", "COMPLETED NoneType "),
    "a function": ("main()", EXITED, "COMPLETED NoneType "),
    "an exception": ("1 / 0", "None", RAISED),
    "an exception, another excepthook": ("sys.excepthook = lambda *_: None\n1 / 0", EXITED, RAISED),
    "an exception through finally": ("try:\n    1 / 0\nfinally:\n    main()", "None", RAISED),
    "an exception that was handled": (
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    main()",
        EXITED,
        "COMPLETED NoneType ",
    ),
    "an earlier last_value": (
        "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n"
        "    sys.last_value, sys.last_traceback = error, error.__traceback__.tb_next\nsys.exit(3)",
        EXITED,
        "FAILED NoneType sys.exit(3)",
    ),
    "ctrl-C": ("raise KeyboardInterrupt", "None", "TERMINATED KeyboardInterrupt "),
    "a recorded exit": ("sys.exit(3)", EXITED, "FAILED NoneType sys.exit(3)"),
    "a bare exit": ("raise SystemExit(main())", "None", f"TERMINATED NoneType {WITHOUT_A_WORD}"),
    "exit functions called by hand": ("atexit._run_exitfuncs()", "None", "COMPLETED NoneType "),
    "the same in finally": ("try:\n    1 / 0\nfinally:\n    atexit._run_exitfuncs()", "None", RAISED),
}


@pytest.mark.parametrize("as_module", [False, True], ids=["script", "module"])
@pytest.mark.parametrize(("body", "exited", "seen"), WHOLE.values(), ids=WHOLE)
def test_the_end_of_a_process(tmp_path, body, exited, seen, as_module):
    """The outermost frame says whether the process ended by an exception, whoever replaced the hooks."""
    done = run_script(tmp_path, SCRIPT.replace("EXITED", exited) + body + "\n", as_module=as_module)
    assert done.stdout.splitlines()[-1] == f"ENDING {seen}", done.stderr


Seen = Callable[[], None]


def in_finally(see: Seen) -> None:
    try:
        _ = 1 / 0
    finally:
        see()


def in_finally_with_branches(see: Seen) -> None:
    try:
        _ = 1 / 0
    finally:
        for count in range(3):
            if count == 2:
                break
        try:
            with contextlib.nullcontext():
                see()
        except OSError:
            pass
        finally:
            count = 0


def in_a_function_of_finally(see: Seen) -> None:
    try:
        _ = 1 / 0
    finally:
        in_no_handler(see)


def in_finally_that_returns(see: Seen) -> None:
    try:
        _ = 1 / 0
    finally:
        see()
        return  # noqa: B012  # what is tested


def in_finally_that_breaks(see: Seen) -> None:
    for _ in range(1):
        try:
            _ = 1 / 0
        finally:
            see()
            break  # noqa: B012  # what is tested


def in_except(see: Seen) -> None:
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        see()


def in_except_that_raises(see: Seen) -> None:
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        see()
        raise


def in_except_that_raises_another(see: Seen) -> None:
    try:
        _ = 1 / 0
    except ZeroDivisionError as error:
        see()
        raise ValueError from error


def in_except_that_may_raise(see: Seen) -> None:
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        see()
        if see is None:
            raise


def after_except(see: Seen) -> None:
    with contextlib.suppress(ZeroDivisionError):
        _ = 1 / 0
    see()


def in_a_context_manager(see: Seen) -> None:
    @contextlib.contextmanager
    def managed():
        try:
            yield
        finally:
            see()

    with managed():
        _ = 1 / 0


def in_a_generator_that_is_closed(see: Seen) -> None:
    def generate():
        try:
            yield
        finally:
            see()

    generator = generate()
    next(generator)
    generator.close()


def in_a_coroutine(see: Seen) -> None:
    async def work():
        in_finally(see)

    with contextlib.suppress(StopIteration):
        work().send(None)


def while_exiting_with_0(see: Seen) -> None:
    try:
        sys.exit(0)
    finally:
        see()


def while_exiting_with_3(see: Seen) -> None:
    try:
        sys.exit(3)
    finally:
        see()


def in_no_handler(see: Seen) -> None:
    see()


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (in_no_handler, "COMPLETED"),
        (after_except, "COMPLETED"),
        (in_finally, "FAILED"),
        (in_finally_with_branches, "FAILED"),
        (in_a_function_of_finally, "FAILED"),
        (in_finally_that_returns, "TERMINATED"),
        (in_finally_that_breaks, "TERMINATED"),
        (in_except, "TERMINATED"),
        (in_except_that_may_raise, "TERMINATED"),
        (in_except_that_raises, "FAILED"),
        (in_except_that_raises_another, "FAILED"),
        (in_a_context_manager, "FAILED"),
        (in_a_generator_that_is_closed, "COMPLETED"),
        (in_a_coroutine, "FAILED"),
        (while_exiting_with_0, "COMPLETED"),
        (while_exiting_with_3, "FAILED"),
    ],
)
def test_an_exception_in_flight(code, status):
    """What goes on after the handler is a failure; what the handler may put right is not known to be one."""
    seen: list[Ending] = []
    with contextlib.suppress(ZeroDivisionError, ValueError, SystemExit):
        code(lambda: seen.append(ending_here()))
    assert [ending.status for ending in seen] == [status]
    assert (seen[0].error is None) == (status == "COMPLETED")


def test_an_exception_that_was_handled_before():
    """A run that begins in an ``except`` block, to try again, does not end by the exception that is handled there."""
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        before = handled_exception()
        assert ending_here(but=before).status == "COMPLETED"
        with contextlib.suppress(ValueError):
            try:
                raise ValueError
            finally:
                assert ending_here(but=before).status == "FAILED"


def exit_of(code: object, cause: BaseException | None = None) -> Ending:
    error = SystemExit(code)
    error.__context__ = cause
    return Ending.of_exception(error)


@pytest.mark.parametrize(
    ("code", "cause", "status", "exitcode", "error"),
    [
        (None, None, "COMPLETED", 0, None),
        (0, ValueError(), "COMPLETED", 0, None),
        (256, None, "COMPLETED", 0, None),
        (3, None, "FAILED", 3, SystemExit),
        (-1, None, "FAILED", 255, SystemExit),
        ("text", None, "FAILED", 1, SystemExit),
        (1, ValueError(), "FAILED", 1, ValueError),
        (1, SystemExit(0), "FAILED", 1, SystemExit),
        (130, KeyboardInterrupt(), "TERMINATED", 130, KeyboardInterrupt),
    ],
)
def test_an_exit_code(code, cause, status, exitcode, error):
    """SystemExit is what its code says; the exception that was being handled is the cause of a failure."""
    ending = exit_of(code, cause)
    assert (ending.status, ending.exitcode) == (status, exitcode)
    assert error is None or isinstance(ending.error, error)


def test_what_is_recorded_holds_no_frames():
    """The variables of a frame whose ``sys.exit()`` was caught live no longer than without us."""
    try:
        _ = 1 / 0
    except ZeroDivisionError as error:
        ending = Ending.of_exception(error).without_frames()
    assert not isinstance(ending.error, BaseException)
    assert ending.error is not None
    assert "ZeroDivisionError" in "".join(ending.error.format_exception_only())
