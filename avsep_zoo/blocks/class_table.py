"""A learned table with one row per class that can grow, and of which single rows can be trained."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ClassTable", "decayed_groups"]


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


def decayed_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Trained parameters of a module for an optimiser with weight decay, which would move rows that stay as they are.

    Returns:
        A group of all but partly trained tables, and a group of these without weight decay; empty ones are left out.
    """
    tables = [m for m in module.modules() if isinstance(m, ClassTable)]
    partly = [table.weight for table in tables if table.trained_rows is not None]
    rest = [p for p in module.parameters() if p.requires_grad and all(p is not q for q in partly)]
    groups: list[dict[str, Any]] = [{"params": rest}] if rest else []
    return groups + ([{"params": partly, "weight_decay": 0.0}] if partly else [])
