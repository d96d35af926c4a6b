"""Many ranks on one small machine: one process imports torch once and forks every rank from itself.

    python crowd.py RANKS PYTHON-SOURCE

The ranks are what torchrun's workers are to ``init()``: the same variables, and an agent's store that this
process hosts. Prints nothing itself; exits 0 when every rank did.
"""

from __future__ import annotations

import os
import sys
import time
from datetime import timedelta

import torch.distributed as dist

if "WITHOUT" not in os.environ:
    import pluto_dist.api  # noqa: F401  # so that no rank pays for it


def rank_of(rank: int, ranks: int, port: int) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(ranks),
        "GROUP_RANK": "0",
        "GROUP_WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "crowd",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "TORCHELASTIC_MAX_RESTARTS": "0",
    }


def main() -> None:
    ranks, source = int(sys.argv[1]), sys.argv[2]
    store = dist.TCPStore("127.0.0.1", 0, None, True, timedelta(seconds=60), wait_for_workers=False)
    started = time.monotonic() + 1
    children = []
    for rank in range(ranks):
        pid = os.fork()
        if pid == 0:
            os.environ.update(rank_of(rank, ranks, store.port))
            time.sleep(max(0.0, started - time.monotonic()))
            try:
                exec(compile(source, "<rank>", "exec"), {"__name__": "__main__"})
            except BaseException as error:  # noqa: BLE001  # as the interpreter would, which a forked child does not reach
                sys.excepthook(type(error), error, error.__traceback__)
                os.environ["FAILED"] = "1"
            import atexit

            atexit._run_exitfuncs()
            sys.stderr.flush()
            os._exit(1 if "FAILED" in os.environ else 0)
        children.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    sys.exit(1 if any(codes) else 0)


if __name__ == "__main__":
    main()
