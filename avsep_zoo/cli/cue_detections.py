"""What was detected in a recording, for the cues of ``avsep separate``: from a file, or by a detector."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from avsep_zoo.cli.detector_options import choose_detector
from avsep_zoo.cli.terminal import busy
from avsep_zoo.errors import CueError
from avsep_zoo.registry import registry

if TYPE_CHECKING:
    from avsep_zoo.cue import Cue
    from avsep_zoo.data.detections import Detections
    from avsep_zoo.model import SeparationModel

__all__ = ["Surroundings", "check_classes"]


@dataclass(frozen=True)
class Surroundings:
    """The options of ``avsep separate`` about detections.

    Args:
        file: the recording.
        detections: file or folder of detections, or None.
        detector, weights, min_score: of a detector to run on the recording; None: there is none.
        context: what a detector that finds whatever it is told looks for besides the labels of cues.
    """

    file: Path
    detections: Path | None = None
    detector: str | None = None
    weights: str | None = None
    min_score: float | None = None
    context: tuple[str, ...] = ()

    def check(self) -> None:
        """Find what is wrong before a model is loaded.

        Raises:
            typer.BadParameter: the options do not go together.
            CompositionError: there is no such detector.
            CueError: there are no pictures to look at.
        """
        from avsep_zoo.media import probe

        if self.detector is None:
            if self.weights is not None or self.min_score is not None or self.context:
                raise typer.BadParameter(
                    "--detector-weights, --min-score or --context-label is given without --detector; name one.",
                    param_hint="--detector",
                )
            return
        if self.detections is not None:
            raise typer.BadParameter(
                "It is given together with --detections; give the file, or let a detector look.",
                param_hint="--detector",
            )
        if self.context and not registry().part("detector", self.detector).open_vocabulary:
            raise typer.BadParameter(
                f"{self.detector} finds the classes of its weights; leave it out.", param_hint="--context-label"
            )
        registry().get("detector", self.detector)
        if probe(self.file).video is None:
            raise CueError(f"{self.file} has no pictures, so leave out --detector.")

    def read(self) -> Detections | None:
        """Read the file, if one is given.

        Raises:
            DataError: it cannot be read.
        """
        from avsep_zoo.data.detections import read_detections

        return None if self.detections is None else read_detections(self.detections)

    def looked_for(self, cues: Sequence[Cue]) -> tuple[str, ...]:
        """Return the labels of the cues and of the surroundings, each once.

        Raises:
            CueError: there is none.
        """
        labels = tuple(dict.fromkeys([*(cue.label for cue in cues if cue.label), *self.context]))
        if not labels:
            raise CueError(f"{self.detector} has nothing to look for; give classes, as in --cue violin@0,20,190,180.")
        return labels

    def add_to(
        self, cues: Sequence[Cue], found: Detections | None, model: SeparationModel, device: str
    ) -> tuple[list[Cue], list[str]]:
        """Return the cues with what was detected, and notes about what was not used.

        Args:
            cues: one per source.
            found: content of the file.
            model: what the cues are for; a detector looks only where the model makes use of it, and gives features
                where the model doesn't look at pictures itself.
            device: of the detector, as torch names it.

        Raises:
            CueError: a cue is a class that was not detected.
            WeightsError: the weights of the detector cannot be used.
        """
        used = "detections" in model.encoder.reads
        if self.detector is not None:
            if not used:
                return list(cues), [f"{model.name} reads no detections; not used: --detector."]
            from avsep_zoo.detection.look import detect

            choice = choose_detector(
                self.detector, self.weights, min_score=self.min_score, usual=lambda: self.looked_for(cues)
            )
            with busy(f"Looking with {self.detector}"):
                features = "frames" not in model.encoder.reads
                found = detect(self.file, choice.build(device), features=features)
        if found is None:
            return list(cues), []
        if used:
            check_classes(cues, found, str(self.detections or self.file))
        return [replace(cue, detections=found) for cue in cues], []


def check_classes(cues: Sequence[Cue], found: Detections, title: str) -> None:
    """Make sure that a cue without a box means something that was detected.

    Raises:
        CueError: there is nothing of its class; ``title`` says where.
    """
    if found.sounding or not found.names:
        return  # a model may know the object otherwise
    counts = Counter(int(number) for number in found.classes)
    for cue in cues:
        if cue.box_at(0.0) is None and cue.label and counts[found.number(cue.label) or 0] == 0:
            seen = ", ".join(f"{count} {found.names[number - 1]}" for number, count in counts.most_common(20))
            raise CueError(
                f"No {cue.label!r} is among the detections in {title}, which are {seen or 'none'}; name one of them, "
                f"or say where it is, as in --cue '{cue.label}@0,20,190,180'."
            )
