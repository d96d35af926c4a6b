"""A function under @hydra.main: one job, or several in one process, each with a run of its own."""

import os

import hydra
from omegaconf import DictConfig
from training import HOW, STEPS, begin, done, step


@hydra.main(version_base=None, config_path=None)
def train(config: DictConfig) -> None:
    begin(config=config)
    rank = int(os.environ.get("RANK", "1" if HOW == "raises" else "0"))
    for number in range(STEPS):
        step(rank, number)
    done(rank)


if __name__ == "__main__":
    train()
