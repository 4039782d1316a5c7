"""One self-contained HTML page about an evaluation: tables, histograms and sounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avsep_zoo.errors import DataError, MediaError
from avsep_zoo.evaluation.histogram import Histogram, histograms
from avsep_zoo.evaluation.playback import playable
from avsep_zoo.evaluation.statistics import METRICS, mixture_scores, paired_difference, worst
from avsep_zoo.media.wav import whole_file
from avsep_zoo.page import COLOURS, render_page

__all__ = ["METRIC_NAMES", "write_report"]

METRIC_NAMES = {
    "sdr": "SDR",
    "sir": "SIR",
    "sar": "SAR",
    "si_sdr": "SI-SDR",
    "mixture_sdr": "Mixture SDR",
    "mixture_si_sdr": "Mixture SI-SDR",
    "sdr_improvement": "SDR improvement",
    "si_sdr_improvement": "SI-SDR improvement",
}
MOST_ROWS = 200  # of one table
_SHOWN = ("sdr", "sir", "sar", "si_sdr_improvement", "si_sdr", "mixture_sdr", "mixture_si_sdr")  # after the headline
_PER_CLASS = ("sdr_improvement", "sdr", "sir", "sar", "si_sdr_improvement", "si_sdr")
_CHOICES = ("best", "median", "worst")
_IMPROVEMENT = METRICS.index("sdr_improvement")

Entry = tuple[dict[str, Any], Mapping[str, Any]]  # what the page says of a model, and its results on one list


def write_report(results: Mapping[str, Any], folder: Path, target: Path) -> None:
    """Write the results of an evaluation as one HTML file that needs no other, not even a network or scripts.

    Args:
        results: the results document, format 1.
        folder: where the audio files that it names lie; a missing one becomes a sentence on the page.
        target: the file; it is replaced as a whole.

    Raises:
        DataError: the document is not one of format 1, or names a file outside ``folder``.
        MediaError: ``target`` cannot be written.
    """
    if results.get("format") != 1:
        raise DataError(f"The results have format {results.get('format')!r} and this version shows 1; evaluate again.")
    try:
        page = _page(results, folder)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(f"The results cannot be shown, as something in them is missing or wrong ({why}).") from error
    try:
        with whole_file(target) as part:
            part.write_text(render_page("evaluation.html.j2", page), encoding="utf-8")
    except OSError as error:
        raise MediaError(f"The report {target} could not be written ({error.strerror}).") from error


def _page(results: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    models = [_model(m, COLOURS[i % len(COLOURS)]) for i, m in enumerate(results["models"])]
    names = list(dict.fromkeys(entry["name"] for m in results["models"] for entry in m["lists"]))
    lists = []
    for name in names:
        entries = [
            (about, entry)
            for about, model in zip(models, results["models"], strict=True)
            for entry in model["lists"]
            if entry["name"] == name
        ]
        lists.append(_list(name, entries, folder))
    protocol = results["protocol"]
    kinds = [m["kind"] for m in results["models"]]
    counted = [_count(kinds.count("model"), "model"), _count(kinds.count("baseline"), "baseline")]
    who = " and ".join(text for text in counted if not text.startswith("no ")) or "Nothing"
    return {
        "title": f"Evaluation of {models[0]['name']}" if len(models) == 1 else "Comparison of separation models",
        "summary": f"{who} scored on {_count(len(lists), 'list')} of mixtures, protocol {protocol['name']}.",
        "measured": _measured(results),
        "models": models,
        "lists": lists,
        "names": METRIC_NAMES,
        "shown": _SHOWN,
        "choices": _CHOICES,
        "picture": Histogram,
    }


def _count(number: int, word: str) -> str:
    return f"{number or 'no'} {word}{'' if number == 1 else 's'}"


def _model(model: Mapping[str, Any], colour: str) -> dict[str, Any]:
    """How the page names a model; ``bound`` says what a baseline is, and is None for a model."""
    bound = None
    if model["kind"] == "baseline":
        bound = "lower bound" if model["name"] == "mixture" else "upper bound"
        about = "the mixture as every estimate" if model["name"] == "mixture" else "made from the true sources"
    else:
        add = "add up to the mixture" if model.get("consistency") else "need not add up to the mixture"
        about = f"given {', '.join(model.get('use') or ()) or 'no cue'}; stems and residual {add}"
        if how := model.get("sampling"):
            about += f"; {_count(how['steps'], 'step')} of {how['solver']}, seed {how['seed']}"
    return {
        "name": model["name"],
        "colour": colour,
        "bound": bound,
        "about": f"{bound}: {about}" if bound else about,
        "sha256": model.get("sha256"),
    }


def _measured(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    protocol = results["protocol"]
    rate, seconds = protocol.get("rate"), protocol.get("seconds")
    sound = [f"{rate} Hz" if rate else "the rate of each model", f"{seconds:.4g} s of each mixture" if seconds else ""]
    versions = results.get("versions") or {}
    rows = [
        ("Protocol", f"{protocol['name']}: {protocol['summary']}"),
        ("Taken from", protocol.get("source")),
        ("Sound", ", ".join(text for text in sound if text)),
        ("Data", results["data"]),
        ("Date", str(results["created"]).replace("T", " ").replace("+00:00", " UTC")),
        ("Versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
        *(("Note", note) for note in results.get("notes") or ()),
    ]
    return [(name, str(text)) for name, text in rows if text]


def _list(name: str, entries: Sequence[Entry], folder: Path) -> dict[str, Any]:
    scores = [mixture_scores(entry["items"])[:, _IMPROVEMENT] for _, entry in entries]
    first = next((e for about, e in entries if not about["bound"]), entries[0][1])
    rows = [
        {
            "model": about,
            "mixtures": entry["mixtures"],
            "mean": {metric: entry["mean"].get(metric) or {} for metric in METRICS},
            "median": entry["median"].get("sdr_improvement"),
            "difference": None if entry is first else paired_difference(entry["items"], first["items"]),
        }
        for about, entry in entries
    ]
    sources = sorted({len(item["sdr"]) for _, entry in entries for item in entry["items"]})
    mixtures = sorted({entry["mixtures"] for _, entry in entries})
    return {
        "name": name,
        "about": f"{' or '.join(map(str, mixtures))} mixtures of {' or '.join(map(str, sources)) or 'no'} sources",
        "first": next(about["name"] for about, entry in entries if entry is first),
        "rows": rows,
        "partial": _partial(entries),
        "reported": _reported(entries),
        "published": [(about, entry["published_mean"]) for about, entry in entries if entry.get("published_mean")],
        "histograms": list(zip([about for about, _ in entries], histograms(scores), strict=True)),
        "classes": _table(
            entries, "by_class", lambda row: (row["label"],), "sources", _PER_CLASS if len(entries) == 1 else ()
        ),
        "pairs": _table(entries, "by_pair", lambda row: tuple(row["labels"]), "mixtures", ()),
        "worst": [(about, _worst(entry)) for about, entry in entries if not about["bound"]],
        "skipped": _skipped(entries),
        "played": [(about, _clips(entry, folder)) for about, entry in entries if entry.get("audio")],
    }


def _partial(entries: Sequence[Entry]) -> list[str]:
    """Sentences on means that leave mixtures out."""
    found: dict[tuple[str, int, int], list[str]] = {}
    for about, entry in entries:
        for metric, mean in entry["mean"].items():
            counted, total = mean.get("mixtures", entry["mixtures"]), entry["mixtures"]
            if counted < total and metric in METRIC_NAMES:
                found.setdefault((about["name"], counted, total), []).append(METRIC_NAMES[metric])
    return [
        f"{', '.join(metrics)} of {name}: over {counted} of {total} mixtures, the others have no finite value."
        for (name, counted, total), metrics in found.items()
    ]


def _reported(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """What papers report: one row per method and source, whichever models name it."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for _, entry in entries:
        for given in entry.get("reported") or ():
            method, source = str(given["method"]), str(given["source"])
            row = rows.setdefault((method, source), {"method": method, "source": source, "values": {}, "other": {}})
            row["values" if given["metric"] in METRIC_NAMES else "other"][given["metric"]] = float(given["value"])
    return list(rows.values())


def _table(
    entries: Sequence[Entry],
    key: str,
    labels: Callable[[Mapping[str, Any]], tuple[str, ...]],
    unit: str,
    metrics: Sequence[str],
) -> dict[str, Any]:
    """One row per class or pair: the given metrics of the only model, or the SDR improvement of each model.

    The rows are sorted by the first column of numbers, the lowest first, and cut to ``MOST_ROWS``.
    """
    width = len(metrics) or len(entries)
    rows: dict[tuple[str, ...], list[Any]] = {}
    counts: dict[tuple[str, ...], int] = {}
    for i, (_, entry) in enumerate(entries):
        for row in entry.get(key) or ():
            values = rows.setdefault(labels(row), [None] * width)
            counts[labels(row)] = max(counts.get(labels(row), 0), row[unit])
            if metrics:
                values[:] = [row.get(metric) for metric in metrics]
            else:
                values[i] = row.get("sdr_improvement")
    ranked = sorted(rows, key=lambda label: (rows[label][0] is None, rows[label][0] or 0.0, label))
    return {
        "columns": [METRIC_NAMES[metric] for metric in metrics] or [about["name"] for about, _ in entries],
        "forms": ["%+.2f" if not metrics or metrics[i].endswith("improvement") else "%.2f" for i in range(width)],
        "all": len(ranked),
        "rows": [(" + ".join(label), counts[label], rows[label]) for label in ranked[:MOST_ROWS]],
    }


def _worst(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    items = {str(item["id"]): item for item in entry["items"]}
    return [_described(items[key]) for key in worst(entry["items"])]


def _described(item: Mapping[str, Any]) -> dict[str, Any]:
    """The scores of one mixture, with the labels and clips of its sources; None where there is no finite score."""
    means = dict(zip(METRICS, mixture_scores([item])[0].tolist(), strict=True))
    columns = {metric: [np.nan if v is None else v for v in item.get(metric) or ()] for metric in METRICS}
    columns["sdr_improvement"] = [
        after - before for after, before in zip(columns["sdr"], columns["mixture_sdr"], strict=False)
    ]
    return {
        "id": str(item["id"]),
        "labels": [_label(label) for label in item.get("labels") or ()],
        "clips": [str(clip) for clip in item.get("clips") or ()],
        "mean": {metric: value if np.isfinite(value) else None for metric, value in means.items()},
        "per_source": {metric: [v if np.isfinite(v) else None for v in vs] for metric, vs in columns.items()},
    }


def _label(label: Any) -> str:
    return " + ".join(map(str, label)) if isinstance(label, list | tuple) else str(label or "unknown")


def _skipped(entries: Sequence[Entry]) -> dict[str, Any]:
    """What was left out, each once; with the models it concerns if not all."""
    found: dict[tuple[str, str], list[str]] = {}
    for about, entry in entries:
        for skipped in entry.get("skipped") or ():
            found.setdefault((str(skipped["where"]), str(skipped["why"])), []).append(about["name"])
    rows = [
        (where, why, None if len(names) >= len(entries) else ", ".join(dict.fromkeys(names)))
        for (where, why), names in found.items()
    ]
    return {"all": len(rows), "rows": rows[:MOST_ROWS], "differs": any(names for _, _, names in rows)}


def _clips(entry: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    """The best, median and worst mixture with their sounds."""
    items = {str(item["id"]): item for item in entry["items"]}
    clips = []
    for choice in _CHOICES:
        clip = entry["audio"].get(choice)
        if clip:
            about = _described(items.get(str(clip["id"]), {"id": clip["id"], "labels": clip["labels"]}))
            clips.append({"choice": choice, **about, **playable(folder, clip), "count": len(clip["sources"])})
    return clips
