"""Masks as weighted sums of the components that reach a separator's head."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

__all__ = ["mask_product"]


def mask_product(components: Tensor, weights: Tensor) -> Tensor:
    """Weight K components and add them up, for each source: mask logits (B N, 1, F, T).

    Args:
        components: (B, K, F, T), one per mixture, or (B N, K, F, T), one per source.
        weights: (B, N, K).
    """
    weights = weights.to(components)
    batch, sources = weights.shape[:2]
    if sources > 1 and len(components) == batch * sources:
        return torch.einsum("bkft,bk->bft", components, rearrange(weights, "b n k -> (b n) k"))[:, None]
    return rearrange(torch.einsum("bkft,bnk->bnft", components, weights), "b n f t -> (b n) 1 f t")
