"""Mixture consistency: masks that never give away more of the mixture than there is."""

from __future__ import annotations

from torch import Tensor

__all__ = ["share_out"]


def share_out(masks: Tensor) -> Tensor:
    """Turn masks (B, N, F, T) into a Wiener filter that adds up to at most 1.

    Every mask and what all of them leave over, ``1 - sum`` if that is positive, count as magnitudes of one source
    each; the filter is the share of their powers. Masks of 0 and 1 stay what they are, doubtful ones give way to
    the more certain ones.

    Source: Liutkus and Badeau, Generalized Wiener filtering with fractional power spectrograms, ICASSP 2015, with
    exponent 2.
    """
    masks = masks.clamp(0.0, 1e9)  # a magnitude over a mixture of nothing; its square has to be finite
    rest = (1.0 - masks.sum(dim=1, keepdim=True)).clamp_min(0.0)
    power = masks**2
    return power / (power.sum(dim=1, keepdim=True) + rest**2).clamp_min(1e-12)
