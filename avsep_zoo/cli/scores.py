"""The results of an evaluation as text: one table that compares, and what stands behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from avsep_zoo.cli.terminal import console, print_table
from avsep_zoo.decibels import decibels

__all__ = ["show_results"]

GAP = 2  # columns between cells
NAME = 16  # columns that a longer name is wrapped to
WORST = 5  # mixtures listed

Entry = tuple[Mapping[str, Any], Mapping[str, Any]]  # a model, and its results on one list


def show_results(results: Mapping[str, Any], *, verbose: bool = False) -> None:
    """Print a results document.

    Args:
        results: the document.
        verbose: whether classes, worst and all skipped mixtures are shown too.
    """
    protocol, models = results["protocol"], results["models"]
    cut = f"{protocol['seconds']:.3g} s at {protocol['rate']} Hz" if protocol["rate"] else "each model at its rate"
    used = sorted({cue for model in models for cue in model["use"]})
    cues = f"; cues: {', '.join(used)}" if used else ""
    _say(f"Protocol {protocol['name']}: {cut}{cues}; dB with 95 % intervals")
    paper = "." in protocol["name"]
    if len(models) == 1 and not paper:
        [model] = models
        _say(f"\n{model['name']}")
        _print(("List", *_HEADERS), [(entry["name"], *_numbers(entry)) for entry in model["lists"]])
    for k, entry in enumerate(models[0]["lists"]):
        entries = [(model, model["lists"][k]) for model in models]
        if len(models) > 1 or paper:
            _compare(entry["name"], entries)
        if paper:
            _published(entries)
        _skipped(entry["name"], entries, verbose)
        if verbose:
            _tables(entry["name"], entries)


_HEADERS = ("Mixtures", "Improvement", "SDR", "SIR", "SAR", "SI-SDR", "Mixture")


def _say(text: str) -> None:
    console().print(text, soft_wrap=False)


def _compare(name: str, entries: Sequence[Entry]) -> None:
    """One table of all models, and what papers report."""
    from avsep_zoo.evaluation.statistics import paired_difference

    first = entries[0][1]
    counts = sorted({entry["mixtures"] for _, entry in entries})
    _say(f"\n{name}, {' or '.join(map(str, counts))} mixtures")
    rows = []
    for k, (model, entry) in enumerate(entries):
        against = "" if k == 0 else _interval(paired_difference(entry["items"], first["items"]), "%+.2f")
        rows.append((model["name"], *_numbers(entry)[1:6], against))
    headers = ("Model", *_HEADERS[1:6], "Against first")
    rows += _reported(first["reported"])
    _print(headers if len(entries) > 1 else headers[:-1], rows if len(entries) > 1 else [row[:-1] for row in rows])


def _reported(reported: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """A row per method and source that papers report numbers of; [k] is the k-th source."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for number in reported:
        found.setdefault((number["method"], number["source"]), {})[number["metric"]] = number["value"]
    sources = list(dict.fromkeys(source for _, source in found))
    return [
        (
            f"{method} [{sources.index(source) + 1}]",
            "",
            *("" if metric not in values else decibels(values[metric]) for metric in ("sdr", "sir", "sar")),
            "",
            "",
        )
        for (method, source), values in found.items()
    ]


def _published(entries: Sequence[Entry]) -> None:
    """Where reported numbers were found, and the means as they were taken there."""
    sources = list(dict.fromkeys(number["source"] for number in entries[0][1]["reported"]))
    for place, source in enumerate(sources, 1):
        _say(f"[{place}] reported, on the paper's data: {source}")
    if not sources:
        _say("No published number was found.")
    means = [(model["name"], entry["published_mean"]) for model, entry in entries if entry.get("published_mean")]
    if means:
        _say(f"\nThe {means[0][1]['name']}, as published")
        metrics = ("sdr", "sir", "sar", "mixture_sdr")
        rows = [(name, *(decibels(mean[metric]) for metric in metrics)) for name, mean in means]
        _print(("Model", "SDR", "SIR", "SAR", "Mixture"), rows)


def _numbers(entry: Mapping[str, Any]) -> tuple[str, ...]:
    mean = entry["mean"]
    plain = [decibels(mean[metric]["mean"]) for metric in ("sdr", "sir", "sar", "si_sdr", "mixture_sdr")]
    return (str(entry["mixtures"]), _interval(mean["sdr_improvement"], "%.2f"), *plain)


def _interval(mean: Mapping[str, float | None], form: str) -> str:
    low, high, middle = mean["low"], mean["high"], decibels(mean["mean"], form)
    return middle if low is None or high is None or middle.startswith(">") else f"{middle} ± {(high - low) / 2:.2f}"


def _print(names: Sequence[str], rows: Sequence[tuple[str, ...]]) -> None:
    """Print a table; where the terminal is too narrow for it, each row as a paragraph."""
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    if min(widths[0], NAME) + sum(widths[1:]) + GAP * (len(widths) - 1) <= console().width:
        print_table(names, rows, numbers=range(1, len(names)))
        return
    for row in rows:
        _say(row[0])
        pairs = [(name, cell) for name, cell in zip(names[1:], row[1:], strict=True) if cell]
        print_table(("", ""), [(f"  {name}", cell) for name, cell in pairs], numbers=(1,))


def _skipped(name: str, entries: Sequence[Entry], verbose: bool) -> None:
    for model, entry in entries:
        skipped = entry["skipped"]
        if skipped:
            shown = "they are" if verbose else "the first is"
            _say(f"{model['name']}, {name}: {len(skipped)} skipped, {shown}")
            for left_out in skipped if verbose else skipped[:1]:
                _say(f"  {left_out['where']}: {left_out['why']}")


def _tables(name: str, entries: Sequence[Entry]) -> None:
    """Improvement per class, and the worst mixtures of each model."""
    found: dict[str, list[str]] = {}
    for k, (_, entry) in enumerate(entries):
        for row in entry["by_class"]:
            found.setdefault(row["label"], ["–"] * len(entries))[k] = decibels(row["sdr_improvement"])
    if found:
        _say(f"\n{name}, improvement by class")
        rows = [(label, *values) for label, values in sorted(found.items())]
        _print(("Class", *(model["name"] for model, _ in entries)), rows)
    for model, entry in entries:
        if model["kind"] == "baseline" and len(entries) > 1:
            continue
        items = {item["id"]: item for item in entry["items"]}
        worst = [items[key] for key in entry["worst"][:WORST]]
        gains = [
            sum(a - b for a, b in zip(item["sdr"], item["mixture_sdr"], strict=True)) / len(item["sdr"])
            for item in worst
        ]
        _say(f"\n{name}, lowest improvements of {model['name']}")
        lines = [(decibels(gain), f"{i['id']}: {' + '.join(i['clips'])}") for gain, i in zip(gains, worst, strict=True)]
        print_table(("", ""), lines, numbers=(0,))
