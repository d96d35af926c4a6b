"""The ``pluto_dist`` logger, on stderr unless the application has set up logging.

Rank 0 logs what concerns the job; another rank only what is its own, so that a thousand ranks do not print a thousand
lines.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, TextIO

logger = logging.getLogger("pluto_dist")


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


def set_up() -> None:
    """Set level and handler, unless the application has set them."""
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    if not logger.handlers and not logging.getLogger().handlers:
        logger.addHandler(_StderrHandler())
