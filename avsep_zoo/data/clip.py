"""A clip: one sound on disk with whatever is known about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Clip"]


@dataclass(frozen=True)
class Clip:
    """One recording of a data set. Paths are where things belong; what is optional may not exist.

    Args:
        id: unique in its list, e.g. ``cello/AbC``.
        audio: a sound file, or a video whose sound it is.
        labels: classes that sound in it: one for a solo, several for a duet, none where unknown.
        text: caption.
        phrases: the sources the caption names.
        video: a video to decode frames from, where there is no folder of them.
        frames: folder of ``%06d.jpg`` or ``%06d.png``, numbered from 1.
        frame_count: number of frames according to the list, 0 where it does not say.
        frame_rate: of ``frames``, per second.
        detections: what a detector found in ``frames`` (:func:`avsep_zoo.data.detections.read_detections`).
        detector_classes: names of the classes that ``detections`` have numbers of, from 1; empty where unknown.
        motion: ``.npy`` of motion features.
        start: where the clip begins in ``audio`` and ``video``, in seconds.
        duration: seconds from ``start``; None is all there is.
        example: a clip of the same class to be shown for it (:func:`avsep_zoo.data.examples.with_examples`).
    """

    id: str
    audio: Path
    labels: tuple[str, ...] = ()
    text: str | None = None
    phrases: tuple[str, ...] = ()
    video: Path | None = None
    frames: Path | None = None
    frame_count: int = 0
    frame_rate: float = 1.0
    detections: Path | None = None
    detector_classes: tuple[str, ...] = ()
    motion: Path | None = None
    start: float = 0.0
    duration: float | None = None
    example: Clip | None = None

    @property
    def label(self) -> str | None:
        """The class of a solo; None for anything else."""
        return self.labels[0] if len(self.labels) == 1 else None
