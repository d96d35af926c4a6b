"""How is something asked that may never answer? In a daemon thread, which is left behind at the deadline.

>>> Asked(lambda: 6 * 7).answer(1.0)
42
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from pluto_dist.inventory.safe_read import attempt

T = TypeVar("T")


class Asked(Generic[T]):
    """A question under way."""

    def __init__(self, question: Callable[[], T]) -> None:
        self._answers: list[tuple[T | None, Exception | None]] = []
        self._began = time.monotonic()
        self._thread = threading.Thread(
            target=lambda: self._answers.append(attempt(question)), name="pluto_dist doctor", daemon=True
        )
        _, refused = attempt(self._thread.start)
        if refused is not None:  # a container's limit on processes counts threads
            self._answers.append((None, refused))

    def answer(self, seconds: float) -> T:
        """What the question gave.

        Args:
            seconds: since it was asked.

        Raises:
            TimeoutError: nothing, within ``seconds``.
            Exception: whatever the question raised.
        """
        if not self._answers:
            self._thread.join(max(0.0, self._began + seconds - time.monotonic()))
        if not self._answers:
            raise TimeoutError(f"no answer within {seconds:g} s")
        value, error = self._answers[0]
        if error is not None:
            raise error
        return value  # type: ignore[return-value]  # None only where T has it, for there was no error
