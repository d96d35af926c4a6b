"""Ray Train with two workers, in a Ray of its own."""

import os

import ray
import ray.train
import ray.train.torch
from training import STEPS, begin, done, step


def train() -> None:
    rank = ray.train.get_context().get_world_rank()
    begin()
    for number in range(STEPS):
        step(rank, number)
    done(rank)


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, configure_logging=False, _node_ip_address="127.0.0.1")
    ray.train.torch.TorchTrainer(
        train,
        scaling_config=ray.train.ScalingConfig(num_workers=2, use_gpu=False),
        run_config=ray.train.RunConfig(storage_path=os.environ["REPORTS"] + "/storage"),
    ).fit()
