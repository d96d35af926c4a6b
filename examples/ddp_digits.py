"""The training of plain_digits.py, tracked as one run.

    torchrun --nproc-per-node=2 examples/ddp_digits.py

Exits with an error unless the test accuracy reaches 95 %.
"""

from __future__ import annotations

import torch.distributed as dist
from plain_digits import arguments, learn, leave

import pluto_dist

WANTED_ACCURACY = 0.95


def main() -> None:
    args = arguments()
    dist.init_process_group("gloo")
    with pluto_dist.init(project="digits", name="ddp-digits", config=vars(args), tags=["example", "gloo"]) as run:
        reached = learn(args)
        run.update_config({"test_accuracy": round(reached, 4)})
        if run.is_leader:
            print(f"test accuracy {reached:.1%} after {args.epochs} epochs on {run.world_size} ranks")
    leave()
    if reached < WANTED_ACCURACY:
        raise SystemExit(f"test accuracy {reached:.1%} is below {WANTED_ACCURACY:.0%}")


if __name__ == "__main__":
    main()
