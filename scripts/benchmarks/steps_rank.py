"""One rank of the benchmark ``steps``: blocks of steps with a run open and without, in turns; rank 0 prints."""

from __future__ import annotations

import json
import statistics
import sys
import time
from itertools import cycle
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from plain_digits import digits

import pluto_dist


def main(pairs: int, steps: int) -> None:
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    model = DistributedDataParallel(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    batches = cycle(DataLoader(digits()[0], batch_size=32))

    def block() -> float:
        """The median time of a step: a step that the machine held up for something else tells nothing."""
        dist.barrier()
        times = []
        for _ in range(steps):
            pixels, labels = next(batches)
            began = time.perf_counter()
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(pixels), labels).backward()
            optimizer.step()
            times.append(time.perf_counter() - began)
        return statistics.median(times)

    taken: dict[str, list[float]] = {"with": [], "without": []}
    for _ in range(5):
        block()
    for pair in range(pairs):
        for kind in ("with", "without") if pair % 2 else ("without", "with"):
            if kind == "with":
                with pluto_dist.init(project="bench"):
                    time.sleep(0.3)  # the attach and what comes with it
                    taken[kind].append(block())
            else:
                time.sleep(0.3)
                taken[kind].append(block())
    if dist.get_rank() == 0:
        print(json.dumps(taken))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
