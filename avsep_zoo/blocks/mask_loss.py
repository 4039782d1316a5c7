"""Losses between predicted and ideal masks, weighted by the loudness of the mixture (Sound-of-Pixels family)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["MaskLoss", "binary_mask", "loudness_weight", "mask_loss", "ratio_mask"]

MaskLoss = Literal["l1", "l2", "bce"]


def ratio_mask(source: Tensor, mixture: Tensor) -> Tensor:
    """Ideal ratio mask ``source / mixture`` in [0, 5]; magnitudes of any shape that broadcast."""
    return (source / mixture).clamp(0.0, 5.0)


def binary_mask(source: Tensor, mixture: Tensor) -> Tensor:
    """1 where the source has more than half of the mixture's magnitude, else 0."""
    return (source > 0.5 * mixture).to(mixture.dtype)


def loudness_weight(mixture: Tensor) -> Tensor:
    """``log(1 + mixture)`` in [1e-3, 10]."""
    return torch.log1p(mixture).clamp(1e-3, 10.0)


def mask_loss(prediction: Tensor, target: Tensor, weight: Tensor | None, kind: MaskLoss) -> Tensor:
    """Half the sum over sources of the weighted mean distance (the published factor, whatever N is).

    Args:
        prediction, target: (B, N, F, T); predictions are probabilities.
        weight: (B, 1, F, T), or None for weight 1.
        kind: ``l1``, ``l2`` or ``bce`` (for binary targets).
    """
    if kind == "bce":
        distance = F.binary_cross_entropy(prediction, target, reduction="none")
    elif kind == "l2":
        distance = (prediction - target) ** 2
    else:
        distance = (prediction - target).abs()
    if weight is not None:
        distance = distance * weight
    return 0.5 * distance.mean(dim=(0, 2, 3)).sum()
