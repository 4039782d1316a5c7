"""The losses of BiModalSep: how a mixture splits into recordings, and recordings into sounds that sound as their texts.

Source: Mahmud et al., ICLR 2024, section 3, and its official configurations.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from avsep_zoo.blocks.mask_loss import loudness_weight

__all__ = ["Distance", "alignment_loss", "contrastive_loss", "signal_ratio", "spectral_loss"]

Distance = Literal["l1", "l2"]


def spectral_loss(
    estimates: Tensor, targets: Tensor, weighed_by: Tensor | None = None, *, distance: Distance = "l1"
) -> Tensor:
    """Mean distance (N,) of magnitudes (B, N, F, T) and their targets.

    Args:
        estimates, targets: (B, N, F, T), at least 0.
        weighed_by: magnitudes (B, 1, F, T) or (B, N, F, T); points have the weight log(1 + magnitude), in [1e-3, 10].
            Without them all points count the same.
        distance: ``l1``, absolute (published), or ``l2``, squared.
    """
    apart = estimates - targets
    apart = apart.square() if distance == "l2" else apart.abs()
    return (apart if weighed_by is None else loudness_weight(weighed_by) * apart).mean(dim=(0, 2, 3))


def signal_ratio(estimate: Tensor, target: Tensor, *, most: float) -> Tensor:
    """Ratio in dB (...) of the energy of waveforms (..., L) and of the error in them, at most about ``most``.

    A silent target counts as one of 1e-6 per sample, so silence is learned, too.
    """
    power = target.square().sum(dim=-1).clamp_min(1e-6 * target.shape[-1])
    error = (estimate - target).square().sum(dim=-1)
    return 10 * torch.log10(power / (error + power * 10 ** (-most / 10)))


def contrastive_loss(sounds: Tensor, texts: Tensor, *, scale: float | Tensor, soft: bool = False) -> Tensor:
    """Cross-entropy of telling by a sound which text is its own; only sounds choose among texts, as published.

    Args:
        sounds: vectors (M, D) of length 1.
        texts: vectors (M, D) of length 1; text m belongs to sound m.
        scale: factor of the cosines.
        soft: texts that are alike share in the probability instead of being wrong answers (not published).
    """
    logits = scale * _cosines(sounds, texts)
    if soft:
        return F.cross_entropy(logits, torch.softmax(scale * _cosines(texts, texts), dim=1).detach())
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def alignment_loss(sounds: Tensor, texts: Tensor, label: Tensor, *, scale: float) -> Tensor:
    """Sounds of a class choose among texts, and texts among sounds: all of that class are right.

    Args:
        sounds, texts: vectors (M, D) of length 1.
        label: int64 (M,), the class of each.
        scale: factor of the cosines.
    """
    same = (label[:, None] == label).float()
    logits = scale * _cosines(sounds, texts)
    right = same / same.sum(dim=1, keepdim=True)
    return 0.5 * (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right))


def _cosines(first: Tensor, second: Tensor) -> Tensor:
    """(M, D) and (K, D) of length 1 -> (M, K), float32 also in half precision."""
    with torch.autocast(first.device.type, enabled=False):
        return first.float() @ second.float().T
