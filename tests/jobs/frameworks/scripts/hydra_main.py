"""A function under @hydra.main: one job, or several in one process, which end their runs themselves."""

import os

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from training import HOW, STEPS, begin, done, step


@hydra.main(version_base=None, config_path=None)
def train(config: DictConfig) -> None:
    run = begin(config=config)
    rank = int(os.environ.get("RANK", "1" if HOW == "raises" else "0"))
    for number in range(STEPS):
        step(rank, number)
    if run is not None and HydraConfig.get().mode == RunMode.MULTIRUN:
        run.finish()
    done(rank)


if __name__ == "__main__":
    train()
