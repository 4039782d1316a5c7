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

    def grown(self, rows: int, *, kept_last: int) -> ClassTable:
        """Return a table of at least ``rows`` rows: new ones in front of the last ``kept_last``."""
        old = self.weight.detach()
        count, front = max(0, rows - len(old)), len(old) - kept_last
        table = ClassTable(len(old) + count, old.shape[1], device=old.device, dtype=old.dtype)
        with torch.no_grad():
            table.weight[:front] = old[:front]
            table.weight[front + count :] = old[front:]
        return table.train(self.training)
