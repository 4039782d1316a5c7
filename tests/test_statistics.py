"""Statistics of scored mixtures: means, intervals, tables, differences; scores that are missing."""

from __future__ import annotations

import json
import math
import tracemalloc
from typing import Any

import numpy as np
import pytest

from avsep_zoo.evaluation.statistics import METRICS, mixture_scores, paired_difference, summarise, worst

MEASURED = METRICS[:6]


def item(
    key: str, labels: list[Any] | None = None, mixture: float = 0.0, **scores: list[float | None]
) -> dict[str, Any]:
    """A mixture in which every metric that is not given has the values of ``sdr``."""
    sdr = scores["sdr"]
    rest = {name: scores.get(name, sdr) for name in ("sir", "sar", "si_sdr")}
    before = {name: scores.get(name, [mixture] * len(sdr)) for name in ("mixture_sdr", "mixture_si_sdr")}
    given = [f"class {n}" for n in range(len(sdr))] if labels is None else labels
    return {"id": key, "clips": [], "labels": given, "sdr": sdr, **rest, **before}


def normal(count: int, seed: int = 0, level: float = 5.0, spread: float = 2.0) -> list[dict[str, Any]]:
    values = np.random.default_rng(seed).normal(level, spread, count)
    return [item(str(k), sdr=[v]) for k, v in enumerate(values.tolist())]


def test_means_are_over_mixtures_of_means_over_sources() -> None:
    """A mixture of three sources weighs as much as one of two."""
    summary = summarise([item("a", sdr=[1.0, 3.0]), item("b", sdr=[4.0, 6.0, 8.0], mixture=1.0)])
    assert summary["mean"]["sdr"]["mean"] == pytest.approx(4.0)
    assert summary["mean"]["mixture_sdr"]["mean"] == pytest.approx(0.5)
    assert summary["mean"]["sdr_improvement"]["mean"] == pytest.approx(3.5)
    assert summary["median"]["si_sdr_improvement"] == pytest.approx(3.5)


def test_the_interval_is_that_of_the_theory() -> None:
    """For many mixtures: the standard error times the 97.5 % quantile of the normal distribution."""
    items = normal(400)
    values = mixture_scores(items)[:, 0]
    found = summarise(items)["mean"]["sdr"]
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert found["mean"] == pytest.approx(values.mean())
    assert found["low"] == pytest.approx(values.mean() - half, abs=0.05 * half)
    assert found["high"] == pytest.approx(values.mean() + half, abs=0.05 * half)


def test_intervals_are_the_same_every_time() -> None:
    assert summarise(normal(30)) == summarise(normal(30))


def test_memory_does_not_grow_with_the_resamples() -> None:
    """All resamples of 3000 mixtures at once would take 240 MB."""
    items = normal(3000)
    tracemalloc.start()
    summarise(items)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6


@pytest.mark.parametrize("missing", [None, math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_takes_its_mixture_out_of_that_metric_alone(missing: float | None) -> None:
    items = [item("a", sdr=[1.0, 2.0]), item("b", sdr=[3.0, 4.0], si_sdr=[9.0, missing]), item("c", sdr=[5.0, 6.0])]
    mean = summarise(items)["mean"]
    assert (mean["si_sdr"]["mixtures"], mean["si_sdr"]["mean"]) == (2, pytest.approx(3.5))
    assert (mean["si_sdr_improvement"]["mixtures"], mean["sdr"]["mixtures"]) == (2, 3)
    assert all(np.isfinite([mean["si_sdr"]["low"], mean["si_sdr"]["high"]]))


def test_infinite_before_and_after_has_no_improvement() -> None:
    perfect = item("a", sdr=[math.inf, 1.0], mixture_sdr=[math.inf, 0.0])
    assert summarise([perfect])["mean"]["sdr_improvement"]["mean"] is None


def test_a_metric_that_is_not_there_has_no_mean() -> None:
    bare = {"id": "a", "labels": ["x", "y"], "sdr": [1.0, 2.0], "mixture_sdr": [], "sir": None}
    summary = summarise([bare])
    assert summary["mean"]["sdr"]["mean"] == 1.5
    assert [summary["mean"][m]["mean"] for m in ("sir", "sar", "sdr_improvement")] == [None, None, None]
    assert summary["by_class"][0]["sdr"] == 1.0 and summary["by_class"][0]["sir"] is None


def test_one_mixture_has_no_interval() -> None:
    found = summarise([item("a", sdr=[1.0, 3.0])])["mean"]["sdr"]
    assert found == {"mean": 2.0, "low": None, "high": None, "mixtures": 1}


def test_nothing_scored_is_no_error() -> None:
    summary = summarise([])
    assert summary["mean"]["sdr"] == {"mean": None, "low": None, "high": None, "mixtures": 0}
    assert (summary["by_class"], summary["by_pair"], summary["worst"]) == ([], [], [])


def test_the_summary_is_plain_json() -> None:
    """Also of scores that are numpy arrays or not finite."""
    items = [item("a", sdr=[1.0, math.nan]), {**item("b", sdr=[1.0, 2.0]), "sdr": np.array([np.inf, 2.0])}]
    assert json.loads(json.dumps(summarise(items), allow_nan=False)) == summarise(items)


def test_classes_are_means_over_sources() -> None:
    items = [
        item("a", ["violin", "flute"], sdr=[1.0, 5.0]),
        item("b", ["flute", "flute"], sdr=[7.0, 9.0], mixture=1.0),
        item("c", [None, "violin"], sdr=[100.0, math.nan]),
    ]
    flute, violin = summarise(items)["by_class"]
    assert (flute["label"], flute["sources"], flute["sdr"], flute["sdr_improvement"]) == (
        "flute",
        3,
        7.0,
        pytest.approx(19 / 3),
    )
    assert (violin["label"], violin["sources"], violin["sdr"]) == ("violin", 2, 1.0)


def test_pairs_have_no_order_and_may_be_three() -> None:
    items = [
        item("a", ["violin", "flute"], sdr=[1.0, 3.0]),
        item("b", ["flute", "violin"], sdr=[3.0, 5.0]),
        item("c", ["oboe", "flute", "oboe"], sdr=[1.0, 1.0, 1.0]),
        item("d", [None, "violin"], sdr=[9.0, 9.0]),
    ]
    assert summarise(items)["by_pair"] == [
        {"labels": ["flute", "oboe", "oboe"], "mixtures": 1, "sdr_improvement": 1.0},
        {"labels": ["flute", "violin"], "mixtures": 2, "sdr_improvement": 3.0},
    ]


def test_a_source_of_several_labels_is_a_class_of_its_own() -> None:
    items = [item("a", [["violin", "flute"], "oboe"], sdr=[1.0, 3.0])]
    assert [row["label"] for row in summarise(items)["by_class"]] == ["oboe", "violin + flute"]


def test_labels_that_do_not_fit_the_sources_give_no_scores() -> None:
    """Four labels and two sources: which one belongs where is not known."""
    rows = summarise([item("a", ["a", "b", "c", "d"], sdr=[1.0, 3.0])])["by_class"]
    assert [row["sdr"] for row in rows] == [None] * 4


def test_the_worst_are_those_of_lowest_improvement() -> None:
    """Not of lowest SDR; those without a score are not among them."""
    items = [item(f"m{k:02d}", sdr=[float(k)], mixture=2.0 * k) for k in range(12)] + [item("x", sdr=[math.nan])]
    assert worst(items) == [f"m{k:02d}" for k in range(11, 1, -1)] == summarise(items)["worst"]
    assert worst(items, 1) == ["m11"]


def test_a_difference_is_paired_by_id() -> None:
    """In any order; what only one of them has does not count."""
    a = [item("1", sdr=[5.0]), item("2", sdr=[7.0]), item("only here", sdr=[90.0])]
    b = [item("only there", sdr=[-90.0]), item("2", sdr=[6.0]), item("1", sdr=[2.0])]
    found = paired_difference(a, b)
    assert (found["mean"], found["mixtures"]) == (2.0, 2)
    assert found["low"] == 1.0 and found["high"] == 3.0


def test_pairing_takes_out_what_both_have_in_common() -> None:
    """Hard mixtures are hard for both: the interval is that of the difference, not of two means."""
    a = normal(100, spread=10.0)
    rng = np.random.default_rng(1)
    b = [item(x["id"], sdr=[x["sdr"][0] - 0.5 + rng.normal(0, 0.1)]) for x in a]
    found = paired_difference(a, b)
    assert 0.45 < found["low"] < found["mean"] < found["high"] < 0.55
    back = paired_difference(b, a)
    assert back["mean"] == pytest.approx(-found["mean"])


def test_a_difference_of_nothing_in_common() -> None:
    found = paired_difference([item("a", sdr=[1.0])], [item("b", sdr=[1.0])])
    assert found == {"mean": None, "low": None, "high": None, "mixtures": 0}


def test_a_difference_leaves_out_what_has_no_score() -> None:
    a = [item("1", sdr=[5.0]), item("2", sdr=[math.nan])]
    b = [item("1", sdr=[2.0]), item("2", sdr=[6.0])]
    assert paired_difference(a, b, "sdr")["mean"] == 3.0
    assert paired_difference(a, b)["mixtures"] == 1
