"""Least-squares projection of estimates on delayed references, and the energies of what it splits them into.

An estimate is projected on the span of all references delayed by 0 ... K - 1 samples, and on that of its own
reference alone. The Gram matrix of the delayed references is built and factored once for all estimates.
Energies are taken in the frequency domain (Parseval); no projection is brought back to the time domain.

mir_eval solves the same equations by LU. For band-limited music they are so nearly singular that the
rounding of Fourier transforms and solver shows in the interference. Wherever that can be more than
``ROUNDING_DB``, the equations are set up and solved again with mir_eval's own sequence of operations, so that
the numbers agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import fft, linalg

__all__ = ["Energies", "project"]

ROUNDING_DB = 3e-7  # largest expected effect of rounding on a score that is left to the fast solver
LU_MARGIN = 10  # second-order rounding of LU over that of Cholesky, found on recordings of instruments
NOISE = 1e-12  # artifacts below this part of the projection are rounding, whoever computes them

Array = NDArray[Any]
Pair = tuple[int, int]  # (estimate, reference)
Solver = Callable[[Array], Array]  # right-hand sides (N*K, E) -> filters (N*K, E)


class Energies(NamedTuple):
    """Energies of the projections of an estimate and of what each of them leaves."""

    target: float  # projection on the one reference
    projection: float  # projection on all references
    distortion: float  # estimate - target
    interference: float  # projection - target
    artifacts: float  # estimate - projection


def project(references: Array, estimates: Array, pairs: list[Pair], taps: int) -> dict[Pair, Energies]:
    """Return the energies for each wanted pair of estimate and reference.

    Args:
        references: (N, L), finite, none of them silent.
        estimates: (E, L), likewise.
        pairs: indices (estimate, reference); every estimate in at least one.
        taps: K.
    """
    size = references.shape[-1] + taps - 1
    n = fft.next_fast_len(size, real=True)
    spectra = fft.rfft(references, n), fft.rfft(estimates, n)
    gram, cross = _normal_equations(*spectra, taps, lambda spectrum: fft.irfft(spectrum, n))
    try:
        solve = _cholesky(gram)
        joint = solve(cross)  # (N*K, E)
        own = _own_filters(gram, cross, joint, taps, pairs, _cholesky)
    except np.linalg.LinAlgError:
        energies, doubtful = {}, list(range(len(estimates)))
    else:
        energies = _energies(*spectra, joint, own, n)
        left_over = cross - gram @ joint
        doubtful = _doubtful(gram, left_over, solve(left_over), joint, own, energies)
    if doubtful:
        exact_n = 1 << math.ceil(math.log2(size))
        exact = fft.fft(references, exact_n), fft.fft(estimates[doubtful], exact_n)
        gram, cross = _normal_equations(*exact, taps, lambda spectrum: fft.ifft(spectrum).real)
        joint = _like_mir_eval(gram)(cross)
        pairs = [(k, j) for k, e in enumerate(doubtful) for other, j in pairs if other == e]
        own = _own_filters(gram, cross, joint, taps, pairs, _like_mir_eval)
        for (k, j), energy in _energies(spectra[0], spectra[1][doubtful], joint, own, n).items():
            energies[doubtful[k], j] = energy
    return energies


def _normal_equations(
    references: Array, estimates: Array, taps: int, inverse: Callable[[Array], Array]
) -> tuple[Array, Array]:
    """Return the Gram matrix (N*K, N*K) of the delayed references and its right-hand sides (N*K, E).

    Args:
        references: spectra (N, bins) of at least L + K - 1 points.
        estimates: spectra (E, bins).
        taps: K.
        inverse: from spectra to real correlations of lags 0 ... n - 1 (circular).
    """
    sources = len(references)
    gram = np.empty((sources, taps, sources, taps))
    for i in range(sources):  # factors, and the block that is transposed, in the order that mir_eval has them
        lags = inverse(np.stack([np.conj(references[i]) * references[j] for j in range(i, sources)]))
        for j in range(i, sources):
            window = np.concatenate([lags[j - i, len(lags[0]) - taps + 1 :], lags[j - i, :taps]])
            block = sliding_window_view(window, taps)[::-1]  # [a, b] = lag b - a
            gram[j, :, i] = block
            gram[i, :, j] = block.T
    cross = np.empty((sources, taps, len(estimates)))
    for e, estimate in enumerate(estimates):
        lags = inverse(np.stack([np.conj(estimate) * reference for reference in references]))  # (N, n)
        cross[:, 0, e] = lags[:, 0]
        cross[:, 1:, e] = lags[:, :-taps:-1]
    return gram.reshape(sources * taps, -1), cross.reshape(sources * taps, -1)


def _cholesky(gram: Array) -> Solver:
    factor = linalg.cho_factor(gram.T, check_finite=False)  # symmetric; transposed for LAPACK's memory order
    return lambda cross: np.asarray(linalg.cho_solve(factor, cross, check_finite=False))


def _like_mir_eval(gram: Array) -> Solver:
    def solve(cross: Array) -> Array:
        columns = []
        for column in cross.T:  # LU rounds differently for several right-hand sides at once
            try:
                columns.append(np.linalg.solve(gram, column))
            except np.linalg.LinAlgError:
                columns.append(np.linalg.lstsq(gram, column)[0])
        return np.stack(columns, axis=1)

    return solve


def _own_filters(
    gram: Array, cross: Array, joint: Array, taps: int, pairs: list[Pair], factor: Callable[[Array], Solver]
) -> dict[Pair, Array]:
    """Return for each pair the filter (K,) of the projection of the estimate on that one reference."""
    own: dict[Pair, Array] = {}
    for j in range(len(gram) // taps):
        estimates = [e for e, reference in pairs if reference == j]
        if estimates:
            rows = slice(j * taps, (j + 1) * taps)
            alone = len(gram) == taps
            filters = joint[:, estimates] if alone else factor(gram[rows, rows])(cross[rows, estimates])
            own.update({(e, j): filters[:, k] for k, e in enumerate(estimates)})
    return own


def _energies(
    references: Array, estimates: Array, joint: Array, own: dict[Pair, Array], n: int
) -> dict[Pair, Energies]:
    def energy(spectrum: Array) -> float:  # of the n real samples behind n // 2 + 1 bins
        power = spectrum.real**2 + spectrum.imag**2
        return float(power.sum() + power[1 : (n + 1) // 2].sum()) / n

    result = {}
    for e, estimate in enumerate(estimates):
        filters = joint[:, e].reshape(len(references), -1)  # (N, K)
        projection = (fft.rfft(filters, n) * references).sum(0)
        for j, reference in enumerate(references):
            if (e, j) in own:
                target = fft.rfft(own[e, j], n) * reference
                rests = energy(estimate - target), energy(projection - target), energy(estimate - projection)
                result[e, j] = Energies(energy(target), energy(projection), *rests)
    return result


def _doubtful(
    gram: Array,
    left_over: Array,
    drift: Array,
    joint: Array,
    own: dict[Pair, Array],
    energies: dict[Pair, Energies],
) -> list[int]:
    """Return the estimates with scores that rounding may have changed by more than ``ROUNDING_DB``.

    A change d of the filters changes the energy of the interference, a combination z of delayed references,
    by 2 z'G d + d'G d; that of the artifacts, which are orthogonal to all of them, by d'G d only. What the
    solver left over (N*K, E) is G d for the change d that it missed, the drift; it is taken with its worst
    signs. The Fourier transforms add about one unit in the last place of the signals' energies.
    """
    taps = len(next(iter(own.values())))
    norms = np.sqrt(gram.diagonal())  # (N*K,)
    unit = np.finfo(np.float64).eps
    decibel = 10 / math.log(10)  # per relative change of an energy
    doubtful = set()
    for (e, j), energy in energies.items():
        z = joint[:, e].copy()
        z[j * taps : (j + 1) * taps] -= own[e, j]
        size = math.sqrt(energy.projection + energy.artifacts) + np.linalg.norm(norms * joint[:, e])
        first = 2 * (np.abs(z) @ np.abs(left_over[:, e]) + unit * np.linalg.norm(norms * z) * size)
        second = LU_MARGIN * abs(left_over[:, e] @ drift[:, e])
        above_noise = energy.artifacts > NOISE * energy.projection
        if decibel * first > ROUNDING_DB * energy.interference or (
            above_noise and decibel * second > ROUNDING_DB * energy.artifacts
        ):
            doubtful.add(e)
    return sorted(doubtful)
