"""The Trainer of Transformers; the run's config is its arguments."""

import os
from typing import Any

import torch
from training import STEPS, begin, done, step
from transformers import Trainer, TrainingArguments


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)
        self.number = 0

    def forward(self, x: Any) -> Any:
        step(int(os.environ["RANK"]), self.number)
        self.number += 1
        return {"loss": self.layer(x).mean()}


if __name__ == "__main__":
    arguments = TrainingArguments(
        output_dir=os.environ["REPORTS"] + "/output",
        max_steps=STEPS,
        per_device_train_batch_size=1,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        hub_token="the-hub-token",
    )
    begin(config=arguments)
    Trainer(model=Model(), args=arguments, train_dataset=[{"x": torch.ones(4)}] * 2 * STEPS).train()
    done(arguments.process_index)
