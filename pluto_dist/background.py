"""Threads of this package that a process can do without: a container's limit on processes counts threads too.

>>> done = []
>>> thread = start_thread(done.append, "pluto_dist example", "in the background")
>>> thread.join()
>>> done
['in the background']
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from pluto_dist.log import logger


def start_thread(work: Callable[..., Any], name: str, *arguments: Any) -> threading.Thread | None:
    """A daemon thread that calls ``work(*arguments)``; ``None`` if the system has no thread to give."""
    thread = threading.Thread(target=work, args=arguments, name=name, daemon=True)
    return thread if started(thread) else None


def started(thread: threading.Thread) -> bool:
    """Start ``thread``; whether the system had one to give."""
    try:
        thread.start()
    except (RuntimeError, MemoryError) as error:  # "can't start new thread"
        logger.debug("%s: %s", thread.name, error)
        return False
    return True
