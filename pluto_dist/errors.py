"""Every exception that pluto_dist raises on purpose.

::

    PlutoDistError
    ├── ConfigurationError (ValueError)     what the caller passed or exported cannot be used
    ├── LaunchError                         the ranks cannot form one run
    │   ├── LauncherError                   the launcher's environment contradicts itself
    │   ├── NoSharedRunError                several ranks have nothing in common that could name their run
    │   ├── NoStableIdError                 resume was asked for, but nothing names the job over its launches
    │   ├── RunIdMismatchError              ranks of one launch derived different external ids
    │   └── ExchangeError                   the store that the ranks share failed or stayed silent
    ├── TrackerError                        the tracker's answer is not a run
    │   ├── AuthenticationError             401: the API key is missing, wrong, revoked or expired
    │   ├── RequestRefusedError             400 and other 4xx: the request itself is wrong
    │   ├── UnexpectedAnswerError           not the contract's answer: HTML, a redirect, other types
    │   └── TrackerUnavailableError         no answer, 408, 429 or 5xx; or the organization is at its limit
    └── RunError                            the run exists, and cannot be used like this
        ├── RunExistsError                  resume=False, and another launch began this run
        ├── RunInUseError                   resume, and another launch of the job is alive in the run
        └── RunCancelledError               the run was cancelled in the tracker

Rank 0 publishes an error that all ranks share as class name and message; ``received`` makes the same error of it on
the other ranks.

>>> str(received("AuthenticationError", "the tracker refused the API key"))
'the tracker refused the API key'
"""

from __future__ import annotations


def readable(text: str, kept: str = "\n\t") -> str:
    """``text`` as a terminal may show it: what is not printable is escaped, except the characters ``kept``.

    Hosts, other ranks and trackers make up texts; an escape sequence in one would be obeyed by the reader's terminal.

    >>> readable("\\x1b[2J gone"), readable("two\\nlines") == "two\\nlines"
    ('\\\\x1b[2J gone', True)
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in kept else ascii(c)[1:-1] for c in text)


class PlutoDistError(Exception):
    """Base of every deliberate exception of this package; its texts are readable."""

    def __init__(self, *texts: object) -> None:
        super().__init__(*(readable(text) if isinstance(text, str) else text for text in texts))


class ConfigurationError(PlutoDistError, ValueError):
    """Arguments or settings that cannot be used; lists everything that is wrong at once, as ``problems``."""

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__(problems[0] if len(problems) == 1 else "\n  ".join(("these cannot be used:", *problems)))


class LaunchError(PlutoDistError):
    """The ranks of this launch cannot form one run."""


class LauncherError(LaunchError):
    """The launcher's environment contradicts itself."""


class NoSharedRunError(LaunchError):
    """Several ranks have nothing in common that could name their run."""


class NoStableIdError(LaunchError):
    """``resume`` was asked for, but nothing names this job over its launches."""


class RunIdMismatchError(LaunchError):
    """Ranks of one launch derived different external ids."""


class ExchangeError(LaunchError):
    """The store that the ranks share failed, or stayed silent for the whole timeout."""


class TrackerError(PlutoDistError):
    """The tracker answered something that is not a run."""


class AuthenticationError(TrackerError):
    """HTTP 401: the API key is missing, wrong, revoked or expired."""


class RequestRefusedError(TrackerError):
    """HTTP 400, or another 4xx that no retry can mend; ``status`` is the HTTP status where it is known."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class UnexpectedAnswerError(TrackerError):
    """An answer that is not the contract's: a redirect, HTML, other types, another shape."""


class TrackerUnavailableError(TrackerError):
    """No usable answer (no connection, 408, 429, 5xx) for as long as was allowed; or the organization is at its limit.

    ``retry_after`` is how many seconds the tracker asked to be left alone, 0 where it did not say.
    """

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RunError(PlutoDistError):
    """The run exists and cannot be used like this."""


class RunExistsError(RunError):
    """``resume=False``, and another launch began this run."""


class RunInUseError(RunError):
    """``resume``, and another launch of the job is alive in the run."""


class RunCancelledError(RunError):
    """The run was cancelled in the tracker; no restart and no launch continues it."""


def received(name: str, message: str) -> PlutoDistError:
    """The error that another rank published, as this rank raises it.

    A name that is not in the tree (another version of this package on another node, or data that
    is not ours) becomes a plain :class:`PlutoDistError`.
    """
    known = {cls.__name__: cls for cls in _tree(PlutoDistError)}
    return known.get(name, PlutoDistError)(message)


def _tree(root: type[PlutoDistError]) -> list[type[PlutoDistError]]:
    return [root, *(cls for child in root.__subclasses__() for cls in _tree(child))]
