"""Ignite's idist.Parallel: it spawns two ranks, or finds those of torchrun."""

import sys
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events
from training import STEPS, begin, done, step


def train(local_rank: int) -> None:
    begin()
    engine = Engine(lambda engine, batch: step(idist.get_rank(), engine.state.iteration - 1))
    engine.add_event_handler(Events.COMPLETED, lambda: done(idist.get_rank()))
    engine.run([0] * STEPS, max_epochs=1)


if __name__ == "__main__":
    spawning: dict[str, Any] = {"nproc_per_node": 2, "master_port": int(sys.argv[1])} if len(sys.argv) > 1 else {}
    with idist.Parallel(backend="gloo", **spawning) as parallel:
        parallel.run(train)
