"""The published evaluation of one batch of mixtures."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from avsep_zoo.evaluation import bss_eval

__all__ = ["batch_metrics"]

SILENCE = 1e-5


def batch_metrics(
    sources: Tensor, estimates: Tensor, mixtures: Tensor, *, silence_threshold: float = SILENCE
) -> np.ndarray:
    """Return mixture SDR, SDR, SIR and SAR (4,) in dB of a batch: means over sources, then over its mixtures.

    Mixtures with a source or estimate whose samples add up to at most ``silence_threshold`` in absolute value
    are left out; a batch without any other scores 0. The published numbers are unweighted means of these rows
    over batches, so they depend on the batch size.

    Args:
        sources: (B, N, L) the sources as they are in the mixture; cut to the length of the estimates.
        estimates: (B, N, L').
        mixtures: (B, L') the reconstructed mixtures, scored as every estimate for the mixture SDR.
        silence_threshold: see above.
    """
    sources = sources[..., : estimates.shape[-1]]
    levels = [signals.abs().sum(dim=-1).amin(dim=1) for signals in (sources, estimates)]  # (B,) each
    usable = (levels[0] > silence_threshold) & (levels[1] > silence_threshold)
    if not usable.any():
        return np.zeros(4)
    blind = mixtures[:, None].expand_as(estimates)
    scores = bss_eval(sources[usable], torch.stack((estimates[usable], blind[usable])))  # (2, usable, N) each
    return np.array([scores.sdr[1].mean(), *(score[0].mean() for score in scores[:3])])
