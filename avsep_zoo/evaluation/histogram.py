"""Histograms as shapes to draw: bars, ticks and the median, on axes that all of them share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["Histogram", "histograms"]

BINS = 30  # at most
SHOWN_DB = (-30.0, 40.0)  # values beyond are counted in the outer bars
STEPS = (0.5, 1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True)
class Histogram:
    """One histogram, in units of the picture (``WIDTH`` by ``HEIGHT``, y downwards).

    Args:
        bars: per bin x, y, width, height and a sentence about it.
        x_ticks, y_ticks: place and text.
        zero: x of 0 dB, or None if it is not on the axis.
        median: x of the median.
        text: one sentence that says what the picture shows.
    """

    bars: list[tuple[float, float, float, float, str]]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    zero: float | None
    median: float
    text: str

    WIDTH: ClassVar[int] = 320
    HEIGHT: ClassVar[int] = 190
    LEFT: ClassVar[int] = 34
    RIGHT: ClassVar[int] = 312
    TOP: ClassVar[int] = 20
    BOTTOM: ClassVar[int] = 152


def histograms(groups: Sequence[NDArray[np.float64]]) -> list[Histogram | None]:
    """Return a histogram in dB of each group of values, all on the same axes; None for a group of equal values.

    Values that are not finite are left out. Those below -30 or above 40 dB are counted in the outermost bars.
    """
    finite = [group[np.isfinite(group)] for group in groups]
    spread = [group for group in finite if len(group) and np.ptp(group) > 1e-6]
    if not spread:
        return [None] * len(groups)
    low = max(SHOWN_DB[0], min(float(group.min()) for group in spread))
    high = max(low, min(SHOWN_DB[1], max(float(group.max()) for group in spread)))
    step = next((s for s in STEPS if (high - low) / s <= BINS - 2), STEPS[-1])
    first, last = math.floor(low / step), max(math.floor(low / step) + 1, math.ceil(high / step))
    edges = step * np.arange(first, last + 1, dtype=np.float64)
    counts = [np.histogram(np.clip(group, edges[0], edges[-1]), edges)[0] for group in spread]
    top = max(int(count.max()) for count in counts)
    drawn = iter([_draw(group, count, edges, top) for group, count in zip(spread, counts, strict=True)])
    return [next(drawn) if len(group) and np.ptp(group) > 1e-6 else None for group in finite]


def _draw(values: NDArray[np.float64], counts: NDArray[np.int_], edges: NDArray[np.float64], top: int) -> Histogram:
    left, right, above, below = Histogram.LEFT, Histogram.RIGHT, Histogram.TOP, Histogram.BOTTOM

    def x(decibel: float) -> float:
        share = (decibel - edges[0]) / (edges[-1] - edges[0])
        return float(left + (right - left) * min(1.0, max(0.0, share)))

    def y(count: float) -> float:
        return below - (below - above) * count / top

    bars = [
        (
            x(a) + 0.5,
            y(count),
            max(0.5, x(b) - x(a) - 1),
            below - y(count),
            f"{a:g} to {b:g} dB: {count}".replace("-", "−"),
        )
        for a, b, count in zip(edges, edges[1:], counts.tolist(), strict=False)
        if count
    ]
    x_step = next((s for s in (1.0, 2.0, 5.0, 10.0) if (edges[-1] - edges[0]) / s <= 8), 20.0)
    places = x_step * np.arange(math.ceil(edges[0] / x_step), math.floor(edges[-1] / x_step) + 1)
    y_step = max(1, next((s for e in range(9) for s in (10**e, 2 * 10**e, 5 * 10**e) if top / s <= 4), top))
    median = float(np.median(values))
    outside = int(((values < edges[0]) | (values > edges[-1])).sum())
    text = (
        f"{len(values)} mixtures from {values.min():.1f} to {values.max():.1f} dB, median {median:.1f} dB; "
        f"{(values < 0).sum()} below 0 dB"
    ).replace("-", "−")
    return Histogram(
        bars,
        [(x(place), f"{place:g}".replace("-", "−")) for place in places.tolist()],
        [(y(count), str(count)) for count in range(0, top + 1, y_step)],
        x(0.0) if edges[0] <= 0 <= edges[-1] else None,
        x(median),
        text + (f"; {outside} beyond the axis are counted in the outermost bars." if outside else "."),
    )
