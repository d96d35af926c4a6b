"""Lightning's Trainer with the strategy of the first argument; the run begins at the top, or in a hook of each rank."""

import sys
from typing import Any

import lightning
import torch
from training import STEPS, begin, done, step

STRATEGY, WHERE = sys.argv[1:]


class Model(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch: Any, number: int) -> Any:
        step(self.global_rank, number)
        return self.layer(batch).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)

    def train_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(torch.ones(2 * STEPS, 4), batch_size=1)


class Begin(lightning.Callback):
    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        begin()


if __name__ == "__main__":
    if WHERE == "top":
        begin()
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=2,
        strategy=STRATEGY,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Begin()] if WHERE == "hook" else [],
    )
    trainer.fit(Model())
    done(trainer.global_rank)
