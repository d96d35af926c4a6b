"""A small training with the same result, to the last bit, each time: what the matrix of faults compares.

Imported by the scripts that tests run. With ``WITHOUT`` in the environment :func:`package` is a stand-in that does
nothing, and ``pluto_dist`` is not imported.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import random
import re
from collections.abc import Callable
from typing import Any

import torch

RESULT = re.compile(r"loss \d\.\d+, weights [0-9a-f]{8}")


class Training:
    """Draws its data from the global generators: whoever else draws from them changes the result.

    Args:
        average: called with each gradient, of a training on several ranks.
    """

    def __init__(self, average: Callable[[torch.Tensor], object] = lambda _: None) -> None:
        torch.manual_seed(0)
        random.seed(0)
        self._weights = torch.randn(8, 1, requires_grad=True)
        self._average = average
        self._loss = 0.0

    def step(self) -> None:
        data = torch.randn(32, 8) * random.uniform(0.5, 1.5)
        loss = ((data @ self._weights - data.sum(1, keepdim=True)) ** 2).mean()
        (gradient,) = torch.autograd.grad(loss, self._weights)
        self._average(gradient)
        with torch.no_grad():
            self._weights -= 0.01 * gradient
        self._loss = loss.item()

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.step()

    def __str__(self) -> str:
        digest = hashlib.sha256(self._weights.detach().numpy().tobytes()).hexdigest()
        return f"loss {self._loss:.6f}, weights {digest[:8]}"


class _Without:
    """In the place of the package, and of the run."""

    def init(self, **_: Any) -> _Without:
        return self

    def update_config(self, _: dict[str, Any]) -> None:
        """Nothing."""

    def finish(self) -> None:
        """Nothing."""


def package() -> Any:
    """``pluto_dist``, or what stands in its place."""
    return _Without() if "WITHOUT" in os.environ else importlib.import_module("pluto_dist")


def result_of(output: str) -> str:
    """The results that a job has printed, each once."""
    return "; ".join(sorted(set(RESULT.findall(output)))) or "none"
