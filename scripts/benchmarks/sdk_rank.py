"""A rank of the official SDK in the benchmark ``init``; runs in the SDK's own environment, without torch."""

from __future__ import annotations

import os
import time
from typing import Any

import pluto
from ranks import serve

# Only the end of a round gets shorter by these; pluto.init() does the same with them.
SETTINGS = {"sync_process_shutdown_timeout": 2.0, "x_thread_join_timeout_seconds": 5}
_open: list[Any] = []


def sdk(message: dict[str, Any]) -> dict[str, Any]:
    os.environ["PLUTO_RUN_ID"] = message["id"]
    began = time.perf_counter()
    run = pluto.init(project=message["project"], name=message["id"], config=message["config"], settings=dict(SETTINGS))
    seconds = time.perf_counter() - began
    _open.append(run)
    return {"seconds": seconds, "run": run.settings._op_id}


def finish(_message: dict[str, Any]) -> dict[str, Any]:
    while _open:
        _open.pop().finish()
    return {}


if __name__ == "__main__":
    serve(int(os.environ["RANK"]), {"sdk": sdk, "finish": finish})
