"""Statistics over scored mixtures: means with bootstrap intervals, tables per class and pair, paired differences.

The mixture is the unit: its sources share one recording and are not independent, so their scores are averaged
first and mixtures are resampled. Intervals are percentile intervals (Efron and Tibshirani, "An Introduction to
the Bootstrap", 1993, chapter 13).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["METRICS", "WORST", "mixture_scores", "paired_difference", "summarise", "worst"]

METRICS = ("sdr", "sir", "sar", "si_sdr", "mixture_sdr", "mixture_si_sdr", "sdr_improvement", "si_sdr_improvement")
WORST = 10  # mixtures listed
RESAMPLES = 10_000
BLOCK = 2**20  # resampled mixtures held at a time

_DIFFERENCES = {"sdr_improvement": ("sdr", "mixture_sdr"), "si_sdr_improvement": ("si_sdr", "mixture_si_sdr")}

Array = NDArray[np.float64]


def summarise(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the statistics of scored mixtures as plain JSON.

    Args:
        items: per mixture ``id``, ``labels`` and lists of one score in dB per source: ``sdr``, ``sir``, ``sar``,
            ``si_sdr``, ``mixture_sdr``, ``mixture_si_sdr``. None and nan say that there is no score.

    Returns:
        ``mean``: per metric the mean over mixtures (of the mean over sources), its 95 % interval ``low`` to
        ``high``, and ``mixtures``, the number it is taken over: a mixture with a source whose score is missing
        or infinite, e.g. the SI-SDR of a perfect estimate, does not count for that metric. ``median``: likewise.
        ``by_class``: means over the sources of each label. ``by_pair``: per unordered combination of labels.
        ``worst``: the ids of the mixtures of lowest SDR improvement. What cannot be computed is None; so is the
        interval of a single mixture.
    """
    scores = mixture_scores(items)
    finite = np.isfinite(scores)
    low, high = _interval(scores)
    mean: dict[str, dict[str, Any]] = {}
    median: dict[str, float | None] = {}
    for m, metric in enumerate(METRICS):
        values = scores[finite[:, m], m]
        mean[metric] = {
            "mean": _mean(values),
            "low": _number(low[m]),
            "high": _number(high[m]),
            "mixtures": len(values),
        }
        median[metric] = float(np.median(values)) if len(values) else None
    return {
        "mean": mean,
        "median": median,
        "by_class": _by_class(items),
        "by_pair": _by_pair(items, scores[:, METRICS.index("sdr_improvement")]),
        "worst": worst(items),
    }


def paired_difference(
    a_items: Sequence[Mapping[str, Any]], b_items: Sequence[Mapping[str, Any]], metric: str = "sdr_improvement"
) -> dict[str, Any]:
    """Return how much higher ``a_items`` score than ``b_items`` on the mixtures that both have, matched by id.

    Returns:
        ``mean`` difference in dB, its 95 % bootstrap interval ``low`` to ``high``, and the number of
        ``mixtures`` with a finite score in both. What cannot be computed is None.
    """
    column = METRICS.index(metric)
    a, b = (
        {str(item["id"]): value for item, value in zip(items, mixture_scores(items)[:, column], strict=True)}
        for items in (a_items, b_items)
    )
    difference = np.array([a[key] - b[key] for key in a if key in b], dtype=np.float64)
    low, high = _interval(difference[:, None])
    values = difference[np.isfinite(difference)]
    return {"mean": _mean(values), "low": _number(low[0]), "high": _number(high[0]), "mixtures": len(values)}


def mixture_scores(items: Sequence[Mapping[str, Any]]) -> Array:
    """Return (mixtures, metrics) in the order of ``METRICS``: means over the sources, nan where one has no score."""
    rows = [[_sources(item, metric).mean() for metric in METRICS] for item in items]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(METRICS))


def worst(items: Sequence[Mapping[str, Any]], count: int = WORST) -> list[str]:
    """Return the ids of the ``count`` mixtures of lowest SDR improvement, the lowest first."""
    improvement = mixture_scores(items)[:, METRICS.index("sdr_improvement")]
    ranked = sorted((v, str(item["id"])) for v, item in zip(improvement, items, strict=True) if math.isfinite(v))
    return [key for _, key in ranked[:count]]


def _sources(item: Mapping[str, Any], metric: str) -> Array:
    """The scores (N,) of the sources of one mixture; nan where there is none or it is infinite."""
    if metric in _DIFFERENCES:
        after, before = (_sources(item, name) for name in _DIFFERENCES[metric])
        return after - before if len(after) == len(before) else np.full(1, np.nan)
    given = item.get(metric)
    values = np.array([np.nan] if given is None or len(given) == 0 else given, dtype=np.float64)  # None becomes nan
    return np.where(np.isfinite(values), values, np.nan)


def _interval(values: Array) -> tuple[Array, Array]:
    """Return both ends (M,) of the 95 % intervals of the means of the columns of (mixtures, M), without nan.

    Every column sees the same resamples. Memory does not grow with the number of resamples.
    """
    count, columns = values.shape
    finite = np.isfinite(values)
    if count == 0:
        return np.full(columns, np.nan), np.full(columns, np.nan)
    rng = np.random.default_rng(0)
    filled, rows = np.where(finite, values, 0.0), max(1, BLOCK // count)
    means = []
    for start in range(0, RESAMPLES, rows):
        size = min(rows, RESAMPLES - start)
        drawn = rng.integers(count, size=(size, count)) + count * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count).astype(np.float64)
        with np.errstate(invalid="ignore"):  # a resample without any score has no mean
            means.append((times @ filled) / (times @ finite))
    resampled = np.concatenate(means)
    ends = np.full((2, columns), np.nan)
    for m in np.flatnonzero(finite.sum(axis=0) > 1):
        ends[:, m] = np.percentile(resampled[np.isfinite(resampled[:, m]), m], (2.5, 97.5))
    return ends[0], ends[1]


def _labels(item: Mapping[str, Any]) -> list[str | None]:
    """The label of each source: None where unknown, several joined where a source has several."""
    labels = [" + ".join(map(str, v)) if isinstance(v, list | tuple) else v for v in item.get("labels") or ()]
    return [None if v is None or v == "" else str(v) for v in labels]


def _by_class(items: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    grouped: dict[str, list[list[float]]] = {}
    for item in items:
        labels = _labels(item)
        columns = [_sources(item, metric) for metric in METRICS]
        columns = [c if len(c) == len(labels) else np.full(len(labels), np.nan) for c in columns]
        for n, label in enumerate(labels):
            if label is not None:
                grouped.setdefault(label, []).append([float(c[n]) for c in columns])
    tables = {label: np.array(rows) for label, rows in sorted(grouped.items())}
    return [
        {"label": label, "sources": len(table)}
        | {metric: _mean(table[np.isfinite(table[:, m]), m]) for m, metric in enumerate(METRICS)}
        for label, table in tables.items()
    ]


def _by_pair(items: Iterable[Mapping[str, Any]], improvement: Array) -> list[dict[str, Any]]:
    grouped: dict[tuple[str, ...], list[float]] = {}
    for item, value in zip(items, improvement, strict=True):
        labels = _labels(item)
        if labels and None not in labels and math.isfinite(value):
            grouped.setdefault(tuple(sorted(v for v in labels if v is not None)), []).append(float(value))
    return [
        {"labels": list(labels), "mixtures": len(values), "sdr_improvement": _mean(np.array(values))}
        for labels, values in sorted(grouped.items())
    ]


def _mean(values: Array) -> float | None:
    return float(values.mean()) if len(values) else None


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
