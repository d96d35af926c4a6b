"""The logger: a line appears once, whoever sets up logging, and when."""

from __future__ import annotations

import subprocess
import sys

import pytest

SET_UP, APPLICATION = "log.set_up()", "logging.basicConfig(level=logging.INFO, format='app: %(message)s')"


@pytest.mark.parametrize(
    ("steps", "shown"),
    [
        pytest.param([SET_UP], "pluto_dist: a line\n", id="nobody else"),
        pytest.param([APPLICATION, SET_UP], "app: a line\n", id="the application before"),
        pytest.param([SET_UP, APPLICATION], "app: a line\n", id="the application afterwards, as Hydra does"),
    ],
)
def test_a_line_appears_once(steps: list[str], shown: str):
    """On stderr, in the application's format once it has one."""
    script = "; ".join(["import logging", "from pluto_dist import log", *steps, "log.logger.info('a line')"])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == shown


def test_what_is_logged_is_readable():
    """No handler gets a control character, of a message or of a traceback; line breaks stay."""
    script = """
import logging
from pluto_dist.log import logger
logging.basicConfig(level=logging.DEBUG, format="%(message)s")
try:
    raise ValueError("\\x1b]0;gone\\x07")
except ValueError:
    logger.warning("host %s\\nnext", "\\x1b[2J\\x9b\\u202e", exc_info=True)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.startswith("host \\x1b[2J\\x9b\\u202e\nnext\nTraceback")
    assert done.stderr.endswith("ValueError: \\x1b]0;gone\\x07\n")


def test_a_value_without_a_text_raises_nothing():
    """As in logging itself: the handler reports it on stderr, and the caller goes on."""
    script = """
from pluto_dist import log
class Bad(Exception):
    def __str__(self):
        raise RuntimeError("no text")
log.set_up()
log.logger.warning("it failed: %s", Bad())
print("goes on")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "goes on\n"
    assert "Logging error" in done.stderr
