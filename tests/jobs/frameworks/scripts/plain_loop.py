"""A loop of torch.distributed alone, for launchers that start a script."""

import argparse

import torch
import torch.distributed as dist
from training import STEPS, begin, done, step

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--local_rank")  # DeepSpeed passes it
    parser.parse_args()
    dist.init_process_group("gloo")
    begin()
    for number in range(STEPS):
        step(dist.get_rank(), number)
        dist.all_reduce(torch.ones(1))
    done(dist.get_rank())
    dist.destroy_process_group()
