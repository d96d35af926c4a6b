"""How this process, or a part of it, ends: by what is in flight, and at the very end by what the interpreter left.

At the end of the process its outermost frame is the witness: one that returned is a success. Python 3.12 and later show
the exception that unwound it (``sys.monitoring``). Before that it is the one of ``sys.last_traceback``, which the
interpreter sets for every exception but SystemExit, whoever has replaced ``sys.excepthook``; and of SystemExit the code
is known if ``sys.exit()``, ``exit()`` or ``quit()`` raised it. The code of a bare ``raise SystemExit(code)`` leaves no
trace: that is a process that ended without a word.
"""

from __future__ import annotations

import dis
import sys
import threading
import traceback
from dataclasses import dataclass, replace
from types import CodeType, FrameType
from typing import Literal

Status = Literal["COMPLETED", "FAILED", "TERMINATED"]
Shown = BaseException | traceback.TracebackException
WITHOUT_A_WORD = (
    "ended without a word: before Python 3.12 the code of raise SystemExit(...) is not seen, that of sys.exit(...) is"
)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a process, a ``with`` block or the part of a script before ``finish()`` ends.

    Attributes:
        status: of the run, if this is its end.
        error: the exception, if there is one.
        reason: why, if there is no exception.
        exitcode: of the process, if it is known.
    """

    status: Status = "COMPLETED"
    error: Shown | None = None
    reason: str = ""
    exitcode: int | None = None

    @classmethod
    def of_exception(cls, error: BaseException) -> Ending:
        """The end by ``error``; SystemExit is what its code says, by the exception that was being handled."""
        if isinstance(error, SystemExit):
            cause = None if error.__suppress_context__ else error.__context__
            ending = cls.of_exit(error.code, cause, "")
            is_alone = ending.status == "FAILED" and ending.error is None
            return replace(ending, error=error) if is_alone else ending
        return cls("TERMINATED" if _is_stop(error) else "FAILED", error)

    @classmethod
    def of_exit(cls, code: object, handled: BaseException | None, reason: str) -> Ending:
        """The end with an exit code: a failure's cause is ``handled``, the exception that was being handled, if any.

        >>> Ending.of_exit(0, ValueError("handled"), "").status, Ending.of_exit(3, None, "SystemExit: 3").reason
        ('COMPLETED', 'SystemExit: 3')
        """
        number = code & 0xFF if isinstance(code, int) else int(code is not None)  # the system keeps the lowest byte
        if number == 0:
            return cls(exitcode=0)
        if handled is None or isinstance(handled, SystemExit):
            return cls("FAILED", None, reason, number)
        return cls("TERMINATED" if _is_interrupt(handled) else "FAILED", handled, exitcode=number)

    def without_frames(self) -> Ending:
        """The same with the exception as text, which keeps none of its frames' variables alive."""
        if not isinstance(self.error, BaseException):
            return self
        return replace(self, error=traceback.TracebackException.from_exception(self.error))


UNKNOWN = Ending("TERMINATED", reason=WITHOUT_A_WORD)


def _is_stop(error: BaseException) -> bool:
    """Whether ``error`` says that this process was told to stop: ctrl-C, or what torch's agent raises at a signal."""
    kind = type(error)
    is_signal = kind.__name__ == "SignalException" and kind.__module__.startswith("torch.distributed.elastic.")
    return is_signal or isinstance(error, KeyboardInterrupt)


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether a stop is behind ``error``, as ctrl-C behind click's Abort."""
    for _ in range(10):
        if error is None or _is_stop(error):
            break
        error = error.__cause__ or error.__context__
    return error is not None and _is_stop(error)


def outermost_frame() -> FrameType | None:
    """The outermost frame of the main thread: that of the module with which python was started, as a rule.

    In a child of multiprocessing, which catches what ends it, it is the frame that ``Process._bootstrap`` calls.
    """
    process = sys.modules.get("multiprocessing.process")
    bootstrap = None if process is None else process.BaseProcess._bootstrap.__code__
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None and frame.f_back is not None and frame.f_back.f_code is not bootstrap:
        frame = frame.f_back
    return frame


def training_frame() -> FrameType | None:
    """The outermost frame of the function that Ray Train runs in a thread of its worker; ``None`` in other threads.

    The end of that thread is the end of the worker: Ray then kills the process, which runs none of its exit functions.
    """
    frame: FrameType | None = sys._getframe()
    outermost, is_of_ray = None, False
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        if module.startswith("ray.train."):
            is_of_ray = True
        elif module != "threading":
            outermost = frame
        frame = frame.f_back
    is_main = threading.current_thread() is threading.main_thread()
    return outermost if is_of_ray and not is_main else None


def is_running(frame: FrameType) -> bool:
    """Whether a frame is in some thread's call stack."""
    for each in sys._current_frames().values():
        inner: FrameType | None = each
        while inner is not None and inner is not frame:
            inner = inner.f_back
        if inner is not None:
            return True
    return False


def ending_of_process(main: FrameType | None, unwound: BaseException | None, exited: Ending | None) -> Ending:
    """How this process ends, asked at its end.

    Args:
        main: the outermost frame of the main thread, as it was before.
        unwound: the exception that has unwound it, if that is seen.
        exited: the last call of ``sys.exit()``.
    """
    if main is None or is_running(main):  # some code runs the exit functions itself
        return ending_here()
    if _has_returned(main):
        return Ending()
    if unwound is not None:
        return Ending.of_exception(unwound)
    last: BaseException | None = getattr(sys, "last_value", None)
    trace = getattr(sys, "last_traceback", None)
    if last is not None and trace is not None and trace.tb_frame is main:
        return Ending.of_exception(last)
    if sys.exc_info()[1] is not None:  # in a child of multiprocessing, up to Python 3.12
        return ending_here()
    return exited or UNKNOWN


def ending_of_thread(frame: FrameType, unwound: BaseException | None) -> Ending:
    """How a thread of Ray Train ends, asked at its end: Ray catches what its function raises.

    Args:
        frame: the function's.
        unwound: the exception that has unwound it, if that is seen.
    """
    if is_running(frame):
        return Ending("TERMINATED", reason="the process ended while its training function ran")
    if _has_returned(frame):
        return Ending()
    if unwound is not None:
        return Ending.of_exception(unwound)
    code = frame.f_code
    return Ending("FAILED", reason=f"an exception left {code.co_name}() at {code.co_filename}:{frame.f_lineno}")


def _has_returned(frame: FrameType) -> bool:
    """Whether a frame that is over has returned, and was not unwound by an exception."""
    return dis.opname[frame.f_code.co_code[frame.f_lasti]] in _RETURNS


_RETURNS = ("RETURN_VALUE", "RETURN_CONST")


# Exceptions in flight.


def handled_exception() -> int | None:
    """Identifies the exception that is being handled here; ``None`` if there is none."""
    error = sys.exc_info()[1]
    return None if error is None else id(error)


def ending_here(but: int | None = None) -> Ending:
    """How the code that runs now ends, if it is called by ``finally`` or ``except``: by the exception in flight.

    An exception that goes on from here is the end. One that a handler may have put right is not known to be one.

    Args:
        but: the exception that was being handled when this code began (:func:`handled_exception`).
    """
    error = sys.exc_info()[1]
    if error is None or id(error) == but or isinstance(error, GeneratorExit):  # a generator that is closed
        return Ending()
    ending = Ending.of_exception(error)
    if ending.status == "COMPLETED" or _goes_on(error):
        return ending
    return Ending("TERMINATED", error)


def _goes_on(error: BaseException) -> bool:
    """Whether the handler of ``error`` that is running raises it, or another one, whatever path it takes."""
    trace = error.__traceback__
    if trace is None:
        return False
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame is not trace.tb_frame:  # the frame that it has reached
        frame = frame.f_back
    return frame is not None and _always_raises(frame.f_code, frame.f_lasti)


def _always_raises(code: CodeType, offset: int) -> bool:
    """Whether every path from the instruction at ``offset`` raises before the exception counts as handled."""
    instructions = [each for each in dis.get_instructions(code) if each.opname != "CACHE"]
    number = {each.offset: index for index, each in enumerate(instructions)}
    here = max(index for index, each in enumerate(instructions) if each.offset <= offset)
    waiting, seen = [here + 1], set[int]()
    while waiting:
        index = waiting.pop()
        if index in seen:
            continue
        seen.add(index)
        each = instructions[index]
        if each.opname in _HANDLED:
            return False
        if each.opname in ("RERAISE", "RAISE_VARARGS"):
            continue
        if each.opcode in _JUMPS and not each.opname.startswith("SETUP_"):  # which name a handler
            waiting.append(number[each.argval])
        if each.opname not in _NO_NEXT:
            waiting.append(index + 1)
    return True


_JUMPS = frozenset((*dis.hasjrel, *dis.hasjabs))
_HANDLED = ("POP_EXCEPT", *_RETURNS)
_NO_NEXT = ("JUMP_FORWARD", "JUMP_ABSOLUTE", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT")
