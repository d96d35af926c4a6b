"""A training in a process that has no thread or no file left, or is otherwise changed: TROUBLE says how, and when."""

import os
import socket
import sys
import threading
import time

TROUBLE, _, WHEN = os.environ["TROUBLE"].partition(", ")
if TROUBLE.startswith("host name"):
    socket.sethostname("節點" if TROUBLE.endswith("text") else b"node-\xff")  # ours alone: see unshare
if TROUBLE == "gevent":
    from gevent import monkey

    monkey.patch_all()
elif TROUBLE == "eventlet":
    import eventlet

    eventlet.monkey_patch()

import resource  # noqa: E402
from typing import Any  # noqa: E402

import requests  # noqa: E402, F401
import torch.distributed as dist  # noqa: E402
from reporting import report  # noqa: E402

import pluto_dist  # noqa: E402
from pluto_dist.api import init  # noqa: E402  # before the files are used up

held: list[int] = []


def hinder() -> None:
    if TROUBLE == "no thread":
        threading.stack_size(1 << 47)  # more than can be mapped: the next thread cannot be started
    elif TROUBLE == "no file":
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
        try:
            while True:
                held.append(os.dup(0))
        except OSError:
            pass
    elif TROUBLE == "MASTER_PORT":
        os.environ["MASTER_PORT"] = "1"


def main() -> None:
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
    if WHEN == "before":
        hinder()
    began = time.monotonic()
    run = init(project="hindered", timeout=15)
    seconds = time.monotonic() - began
    if WHEN == "after":
        hinder()
    total: Any = torch_sum(100)
    run.update_config({"total": total})
    run.finish()
    for number in held:
        os.close(number)
    report(run, total=total, seconds=seconds, mode_of_run=run.mode)


def torch_sum(steps: int) -> float:
    import torch

    return float(sum(torch.ones(1).item() for _ in range(steps)))


if __name__ == "__main__":
    assert pluto_dist.__version__
    main()
    sys.exit(7)  # the training's own exit code
