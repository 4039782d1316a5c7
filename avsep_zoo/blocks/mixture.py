"""How sources are mixed: the two rules of the papers."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

__all__ = ["MixtureRule", "mix_sources"]

MixtureRule = Literal["mean", "sum"]


def mix_sources(sources: Tensor, rule: MixtureRule) -> tuple[Tensor, Tensor]:
    """(B, N, L) sources -> the mixture (B, L) and the sources as they are in it: divided by N with ``mean``."""
    if rule == "mean":
        sources = sources / sources.shape[1]
    return sources.sum(dim=1), sources
