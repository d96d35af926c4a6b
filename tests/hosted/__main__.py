"""The hosted tracker as a process of its own, until a signal: ``python -m hosted`` (in ``tests/``).

Prints the exports of a job that uses it, then the access log.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from pathlib import Path

from hosted.rows import NAMES
from hosted.tracker import HostedTracker
from pluto_dist.server.env_file import export_lines


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m hosted", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--py-port", type=int, default=0)
    parser.add_argument("--db")
    parser.add_argument("--api-key-file", type=Path)
    parser.add_argument("--without", action="append", default=[], choices=sorted(NAMES), metavar="ROW")
    options = parser.parse_args()
    key = options.api_key_file.read_text().strip() if options.api_key_file else None
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    server = HostedTracker(
        options.db,
        options.port,
        host=options.host,
        py_port=options.py_port,
        api_key=key,
        without=options.without,
        log=lambda line: print(line, flush=True),
    )
    with server:
        if key is None:
            print(export_lines(server.environ(os.environ)), end="", flush=True)
        stopped.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
