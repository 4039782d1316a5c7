"""The running average of a model's weights (Polyak and Juditsky, 1992), which is validated and exported."""

from __future__ import annotations

import copy

import torch

from avsep_zoo.model import SeparationModel

__all__ = ["Average"]


class Average:
    """An exponential moving average.

    Args:
        model: the model that is trained; the average starts with its weights.
        decay: share of the old average that stays at each step. It is at most (1 + n) / (10 + n) in step n, so
            that the weights of the start are forgotten in a short run, too (TensorFlow's ``num_updates``).
    """

    def __init__(self, model: SeparationModel, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self.decay = decay

    @torch.no_grad()
    def update(self, model: SeparationModel, step: int) -> None:
        """Take in the parameters after ``step`` steps; buffers (statistics of batch norms) are copied."""
        rest = 1 - min(self.decay, (1 + step) / (10 + step))
        for mean, value in zip(self.model.parameters(), model.parameters(), strict=True):
            mean.lerp_(value, rest)
        for kept, buffer in zip(self.model.buffers(), model.buffers(), strict=True):
            kept.copy_(buffer)
