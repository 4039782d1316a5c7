"""The published evaluation of one batch of mixtures."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from avsep_zoo.evaluation.score import batch_means, score_batch

__all__ = ["batch_metrics"]

SILENCE = 1e-5


def batch_metrics(
    sources: Tensor, estimates: Tensor, mixtures: Tensor, *, silence_threshold: float = SILENCE
) -> np.ndarray:
    """Return mixture SDR, SDR, SIR and SAR (4,) in dB of a batch: means over sources, then over its mixtures.

    Mixtures with a source or estimate whose samples add up to at most ``silence_threshold`` in absolute value
    are left out; a batch without any other scores 0. The published numbers are unweighted means of these rows
    over batches, so they depend on the batch size; the protocols ``iquery.*`` of ``avsep evaluate`` print them.

    Args:
        sources: (B, N, L) the sources as they are in the mixture; cut to the length of the estimates.
        estimates: (B, N, L').
        mixtures: (B, L') the reconstructed mixtures, scored as every estimate for the mixture SDR.
        silence_threshold: see above.
    """
    scored = score_batch(sources[..., : estimates.shape[-1]], estimates, mixtures, silence=silence_threshold)
    means = batch_means([None if isinstance(row, str) else row for row in scored], len(scored))
    return np.array([means[name] for name in ("mixture_sdr", "sdr", "sir", "sar")])
