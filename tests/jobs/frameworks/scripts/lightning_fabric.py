"""Lightning Fabric's own launcher, or that of ``fabric run``."""

import sys

import lightning
import torch
from training import STEPS, begin, done, step

if __name__ == "__main__":
    begin()
    fabric = lightning.Fabric(accelerator="cpu", devices=2, strategy="ddp")
    if "cli" not in sys.argv:
        fabric.launch()
    model = torch.nn.Linear(4, 1)
    model, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=0.01))
    for number in range(STEPS):
        step(fabric.global_rank, number)
        optimizer.zero_grad()
        fabric.backward(model(torch.ones(1, 4)).mean())
        optimizer.step()
    done(fabric.global_rank)
