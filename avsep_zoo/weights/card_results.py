"""The results in a card, its ``model-index``: what was measured here, and what papers report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from avsep_zoo.errors import WeightsError
from avsep_zoo.weights.cards import Card

__all__ = ["MEASURED", "REPORTED", "Metric", "Result", "read_results"]

MEASURED = "measured here"
REPORTED = "reported by the paper"


@dataclass(frozen=True)
class Metric:
    """A number by its type, ``sdr_improvement``, and its name, ``SDR improvement``; in dB."""

    type: str
    name: str
    value: Any


@dataclass(frozen=True)
class Result:
    """One entry of a model-index.

    Args:
        kind: ``measured here``, ``reported by the paper``, or empty for anything else.
        source: the command that measured it, or where the paper reports it.
        data: name of the data set.
        split: the list of mixtures, where it is named.
        protocol: under which it was measured, where it is named.
        metrics: the numbers.
    """

    kind: str
    source: str
    data: str
    split: str
    protocol: str
    metrics: tuple[Metric, ...]

    def value(self, metric: str) -> Any:
        """The value of the first metric of a type, or None."""
        return next((one.value for one in self.metrics if one.type == metric), None)


def read_results(card: Card) -> list[Result]:
    """Read the results of a card, in its order.

    Raises:
        WeightsError: the model-index has another form than the Hub's.
    """
    try:
        models = card.front.get("model-index") or []
        return [_result(entry) for model in models for entry in model.get("results") or []]
    except (AttributeError, LookupError, TypeError) as error:
        raise WeightsError(
            f"The model-index of {str(card.folder / 'README.md')!r} has another form than the Hub's ({error}); correct "
            "it."
        ) from error


def _result(entry: Mapping[str, Any]) -> Result:
    title = str((entry.get("source") or {}).get("name") or "")
    kind, colon, source = title.partition(":")
    if not colon or kind not in (MEASURED, REPORTED):
        kind, source = "", title
    data = entry["dataset"]
    return Result(
        kind,
        source.strip(),
        str(data.get("name") or "unnamed data"),
        str(data.get("split") or ""),
        str(data.get("config") or ""),
        tuple(Metric(str(m["type"]), str(m.get("name") or m["type"]), m["value"]) for m in entry.get("metrics") or []),
    )
