"""The options that name a detector, the same in every command that has one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avsep_zoo.errors import DataError
from avsep_zoo.registry import registry

if TYPE_CHECKING:
    from avsep_zoo.detection.choice import DetectorChoice

__all__ = ["DetectorName", "DetectorWeights", "Labels", "MinScore", "choose_detector", "label_list"]

DetectorName = Annotated[
    str | None,
    typer.Option("--detector", metavar="NAME", help="faster_rcnn or zero_shot (default: no detections)."),
]
DetectorWeights = Annotated[
    str | None,
    typer.Option(
        "--detector-weights", metavar="WEIGHTS", help="Folder, file, or org/name@commit on the Hugging Face Hub."
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(
        "--labels", metavar="A,B|FILE", help="What to detect; a file has one per line (zero_shot default: the classes)."
    ),
]
MinScore = Annotated[
    float | None,
    typer.Option("--min-score", min=0.0, max=1.0, help="Leave out weaker detections (default: the detector's)."),
]


def choose_detector(
    name: str,
    weights: str | None,
    labels: str | None = None,
    min_score: float | None = None,
    *,
    usual: Callable[[], tuple[str, ...]] = tuple,
) -> DetectorChoice:
    """Return the detector that the options name.

    Args:
        name, weights, labels, min_score: values of the options.
        usual: what a detector that finds whatever it is told looks for without ``--labels``.

    Raises:
        CompositionError: there is no such detector.
        WeightsError: its weights are not there.
        DataError: the label list is empty or has a label twice.
    """
    from avsep_zoo.detection.choice import DetectorChoice
    from avsep_zoo.weights.hub_files import fetch

    open_vocabulary = registry().part("detector", name).open_vocabulary
    wanted = label_list(labels) if labels is not None else ()
    if open_vocabulary and labels is None:
        wanted = usual()
    return DetectorChoice(name, None if weights is None else fetch(weights), wanted, min_score)


def label_list(text: str) -> tuple[str, ...]:
    """Read ``A,B`` or a file of a label per line.

    Raises:
        DataError: there is none, or one comes twice.
    """
    try:
        file = Path(text)
        lines = file.read_text(encoding="utf-8-sig").splitlines() if file.is_file() else text.split(",")
    except (OSError, UnicodeDecodeError):
        lines = text.split(",")
    found = tuple(line.strip() for line in lines if line.strip())
    twice = sorted({name for name in found if found.count(name) > 1})
    if not found or twice:
        why = f"has {twice[0]!r} twice" if twice else "is empty"
        raise DataError(f"The label list {text[:60]!r} {why}; give every label once.")
    return found
