"""A learned table with one row per class that can grow, and of which single rows can be trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ClassTable"]


class ClassTable(nn.Embedding):
    """Rows (R, D) drawn from a standard normal distribution.

    ``trained_rows`` are the rows a gradient reaches; None is all of them. The others keep every bit under any
    optimiser without weight decay.
    """

    trained_rows: tuple[int, ...] | None = None

    def rows(self) -> Tensor:
        """All rows (R, D), with a gradient for the trained ones."""
        if self.trained_rows is None:
            return self.weight
        trained = torch.zeros(self.num_embeddings, 1, dtype=torch.bool, device=self.weight.device)
        trained[list(self.trained_rows)] = True
        return torch.where(trained, self.weight, self.weight.detach())

    def forward(self, index: Tensor) -> Tensor:
        """Rows (..., D) at ``index`` (...)."""
        return F.embedding(index, self.rows())

    def grown(self, count: int) -> ClassTable:
        """Return a copy with ``count`` new rows behind the others; only the new ones are trained."""
        old = self.weight.detach()
        table = ClassTable(len(old) + count, old.shape[1], device=old.device, dtype=old.dtype)
        with torch.no_grad():
            table.weight[: len(old)] = old
        table.trained_rows = tuple(range(len(old), len(old) + count))
        return table.train(self.training)
