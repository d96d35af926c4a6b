"""A loop of Accelerate's, as a script or as the function of one of its launchers."""

import sys

import torch
from accelerate import Accelerator, debug_launcher, notebook_launcher
from training import STEPS, begin, done, step


def train() -> None:
    accelerator = Accelerator(cpu=True)
    begin()
    model = torch.nn.Linear(4, 1)
    data = torch.utils.data.DataLoader(torch.ones(2 * STEPS, 4), batch_size=1)
    model, optimizer, data = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.01), data)
    for number, batch in enumerate(data):
        step(accelerator.process_index, number)
        optimizer.zero_grad()
        accelerator.backward(model(batch).mean())
        optimizer.step()
    done(accelerator.process_index)


if __name__ == "__main__":
    how = sys.argv[1] if len(sys.argv) > 1 else "script"
    if how == "notebook":
        notebook_launcher(train, num_processes=2, use_port=sys.argv[2])
    elif how == "debug":
        debug_launcher(train, num_processes=2)
    else:
        train()
