"""The ``pluto_dist`` logger, on stderr unless the application has set up logging.

Rank 0 logs what concerns the job; another rank only what is its own, so that a thousand ranks do not print a thousand
lines. Whatever a line is about, it is readable: no control character of a host's name, of what another rank wrote or of
a tracker's answer gets to a terminal.
"""

from __future__ import annotations

import functools
import logging
import sys
from typing import TYPE_CHECKING, Any, TextIO

from pluto_dist.errors import readable

logger = logging.getLogger("pluto_dist")


class _Readable(logging.Filter):
    """Escapes what is not printable, before any handler has the record."""

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001  # border: the handlers report a value that has no text, and raise nothing
            return True
        if (shown := readable(text)) != text:
            record.msg, record.args = shown, None
        if record.exc_info and not record.exc_text:
            trace = logging.Formatter().formatException(record.exc_info)
            if (shown := readable(trace)) != trace:
                record.exc_text = shown
        return True


logger.addFilter(_Readable())


if TYPE_CHECKING:
    _Handler = logging.StreamHandler[TextIO]
else:
    _Handler = logging.StreamHandler  # not subscriptable before Python 3.11


class _StderrHandler(_Handler):
    """Writes to the current ``sys.stderr``, which notebooks and test runners replace."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(logging.Formatter("pluto_dist: %(message)s"))

    def filter(self, record: logging.LogRecord) -> Any:
        """Nothing once the application has set up logging: its handler has the record too (a job of Hydra)."""
        return not logging.getLogger().handlers and super().filter(record)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]  # StreamHandler keeps it as an attribute
        return sys.stderr


@functools.cache
def lacking(name: str, effect: str) -> None:
    """Log at debug level, once, that this version of something has no ``name``, and what happens without it."""
    logger.debug("%s is not there: %s", name, effect)


def set_up() -> None:
    """Set level and handler, unless the application has set them."""
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    if not logger.handlers and not logging.getLogger().handlers:
        logger.addHandler(_StderrHandler())
