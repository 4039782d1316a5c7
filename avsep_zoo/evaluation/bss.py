"""BSS Eval version 3 (SDR, SIR, SAR with distortion filters of 512 taps) and scale-invariant SDR.

Vincent, Gribonval, Fevotte, "Performance measurement in blind audio source separation", IEEE Transactions on
Audio, Speech and Language Processing 14(4), 2006; the numbers are those of Raffel et al., "mir_eval: a
transparent implementation of common MIR metrics", ISMIR 2014.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from avsep_zoo.evaluation.projection import project

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["BssScores", "bss_eval", "si_sdr"]

Array = NDArray[Any]


class BssScores(NamedTuple):
    """Scores in dB, float64 (..., N), higher is better; ``permutation`` (..., N) holds integers.

    Entry ``j`` belongs to reference ``j`` and the estimate ``permutation[..., j]``.
    """

    sdr: Array
    sir: Array
    sar: Array
    permutation: Array


def bss_eval(
    references: ArrayLike | Tensor,
    estimates: ArrayLike | Tensor,
    *,
    filter_length: int = 512,
    permutation: bool = False,
) -> BssScores:
    """Return the SDR, SIR and SAR of ``estimates`` in dB, as ``mir_eval.separation.bss_eval_sources`` does.

    They agree with mir_eval within 1e-6 dB; scores beyond about 120 dB are rounding noise in both.

    Args:
        references: true sources (..., N, L), arrays or tensors on any device.
        estimates: (..., N, L): the shape of ``references``, or that shape behind extra leading axes.
            Estimates along the extra axes share the work done for their references: to score the mixture
            along with the estimates, stack the two.
        filter_length: taps of the allowed distortion filters, at least 1.
        permutation: whether to look for the order of the estimates with the highest mean SIR; otherwise
            estimate ``n`` belongs to reference ``n``.

    Returns:
        Scores of the shape of ``estimates`` without its last axis. A mixture with a silent or non-finite
        reference or estimate has no score: all its entries are nan, other mixtures are not affected.

    Raises:
        ValueError: the shapes do not fit, there is nothing to score, or ``filter_length`` is below 1.
    """
    refs, ests = _float64(references), _float64(estimates)
    if refs.ndim < 2 or 0 in refs.shape[-2:]:
        raise ValueError(f"References of shape {refs.shape} cannot be used: give (..., sources, samples).")
    if ests.shape[-refs.ndim :] != refs.shape:
        raise ValueError(
            f"Estimates of shape {ests.shape} do not fit references of shape {refs.shape}: "
            "give that shape, with extra leading axes if there are several sets of estimates."
        )
    if filter_length < 1:
        raise ValueError(f"A filter of {filter_length} taps cannot be used: give 1 or more.")
    sources, samples = refs.shape[-2:]
    mixtures = refs.reshape(-1, sources, samples)
    sets = ests.reshape(-1, len(mixtures), sources, samples)
    scores = np.full((3, *sets.shape[:-1]), np.nan)  # (3, sets, mixtures, N)
    order = np.broadcast_to(np.arange(sources), sets.shape[:-1]).copy()
    for m, mixture in enumerate(mixtures):
        usable = np.flatnonzero(_usable(mixture).all() & _usable(sets[:, m]).all(-1))
        if len(usable) == 0:
            continue
        pairs = _score_pairs(mixture, sets[usable, m], filter_length, permutation)  # (3, sets, N est, N ref)
        for k, s in enumerate(usable):
            if permutation:
                order[s, m] = _best_order(pairs[1, k])
            scores[:, s, m] = pairs[:, k, order[s, m], np.arange(sources)]
    shape = ests.shape[:-1]
    sdr, sir, sar = scores.reshape(3, *shape)
    return BssScores(sdr, sir, sar, order.reshape(shape))


def si_sdr(references: ArrayLike | Tensor, estimates: ArrayLike | Tensor) -> Array:
    """Return the scale-invariant SDR in dB, float64 (...), of signals (..., L); means are not removed.

    Le Roux, Wisdom, Erdogan, Hershey, "SDR: half-baked or well done?", ICASSP 2019, equation 5. Silent or
    non-finite signals give nan, an estimate without any error inf.

    Raises:
        ValueError: the shapes do not broadcast.
    """
    refs, ests = np.broadcast_arrays(_float64(references), _float64(estimates))
    usable = _usable(refs) & _usable(ests)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        gain = (refs * ests).sum(-1) / (refs * refs).sum(-1)
        target = gain[..., None] * refs  # (..., L)
        value = _decibel((target**2).sum(-1), ((ests - target) ** 2).sum(-1))
    return np.where(usable, value, np.nan)


def _float64(signals: Any) -> Array:
    if hasattr(signals, "detach"):  # a tensor
        signals = signals.detach().cpu().double().numpy()
    return np.asarray(signals, dtype=np.float64)


def _usable(signals: Array) -> Array:
    """Return bool (...): whether each signal (..., L) is finite and not all zeros."""
    return np.asarray(np.isfinite(signals).all(-1) & signals.any(-1))


def _score_pairs(references: Array, estimates: Array, taps: int, every_pair: bool) -> Array:
    """Return SDR, SIR, SAR (3, S, N, N) of references (N, L) and estimates (S, N, L): (estimate, reference).

    Pairs that are not needed (off the diagonal, unless ``every_pair``) stay nan.
    """
    sets, sources, samples = estimates.shape
    signals = estimates.reshape(-1, samples)
    pairs = [(e, j) for e in range(len(signals)) for j in range(sources) if every_pair or e % sources == j]
    scores = np.full((3, sets, sources, sources), np.nan)
    for (e, j), energy in project(references, signals, pairs, taps).items():
        scores[:, e // sources, e % sources, j] = (
            _decibel(energy.target, energy.distortion),
            _decibel(energy.target, energy.interference),
            _decibel(energy.projection, energy.artifacts),
        )
    return scores


def _decibel(signal: ArrayLike, rest: ArrayLike) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.equal(rest, 0), np.inf, 10 * np.log10(np.divide(signal, rest)))


def _best_order(sir: Array) -> Array:
    """Return for each reference its estimate (N,): the highest mean of ``sir`` (estimate, reference)."""
    rows, columns = linear_sum_assignment(np.nan_to_num(sir, posinf=1e6, neginf=-1e6), maximize=True)
    return np.asarray(rows[np.argsort(columns)])
