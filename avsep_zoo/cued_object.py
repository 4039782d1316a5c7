"""Which of the objects that were detected in a recording a cue means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avsep_zoo.boxes import overlaps
from avsep_zoo.cue import Cue
from avsep_zoo.data.detections import Detections, read_detections
from avsep_zoo.errors import CueError

if TYPE_CHECKING:
    from avsep_zoo.media import VideoSource

__all__ = ["CuedObject", "check_apart", "cued_object", "detections_of"]

_SAME = 0.5  # overlap from which a detection is taken for the object in a cue's box


@dataclass(frozen=True, eq=False)
class CuedObject:
    """An object among what is seen together with it.

    Args:
        found: detections of one frame, or of all where frames are not known.
        row: of the object.
        by_label: whether the class of the cue told which one it is.
    """

    found: Detections
    row: int
    by_label: bool = False

    @property
    def box(self) -> list[float]:
        """x1, y1, x2, y2 in pixels."""
        box: list[float] = self.found.boxes[self.row].tolist()
        return box

    def time(self, otherwise: float) -> float:
        """When it is seen, in seconds of the media; ``otherwise`` where the detections do not say that."""
        return otherwise if self.found.times is None else float(self.found.times[self.row])


def detections_of(cue: Cue) -> Detections | None:
    """What was detected in the pictures of a cue; None where that is not given.

    Raises:
        DataError: the file cannot be read.
    """
    if isinstance(cue.detections, str | Path):
        return read_detections(Path(cue.detections))
    return cue.detections


def cued_object(cue: Cue, found: Detections | None, time: float) -> CuedObject | None:
    """The object a cue means, with the detections that are seen together with it.

    It is what lies in the cue's box in the frame nearest to ``time``. A cue without a box means what is known to sound
    and is of its class, or else the best detection of the class in the frame with one that is nearest to ``time``. A
    cue without a class, or one whose class cannot be compared with what was detected, means the first object that is
    known to sound, or else the best detection of the frame nearest to ``time``.

    Args:
        cue: of one source.
        found: what was detected in its pictures.
        time: seconds of the media.

    Returns:
        The object; a box that was not detected is added to the detections, with class -1 where its class is unknown.
        None where nothing was detected and the cue has no box: its pictures as a whole are the object then.

    Raises:
        CueError: the detections hold no object of the cue's class, or, where they have features, none in its box.
    """
    if "box" in cue.modalities:
        return _in_box(cue, None if found is None else found.at(time), time)
    if found is None or len(found) == 0:
        return None
    if cue.label:
        row = _of_class(cue.label, found, time)
        if row is not None:
            return _together(found, row, by_label=True)
    if found.sounding:
        return _together(found, found.sounding[0].row)
    seen = found.at(time)
    return CuedObject(seen, _best(seen, np.arange(len(seen))))


def check_apart(cues: Sequence[Cue], objects: Sequence[CuedObject | None], video: VideoSource | None) -> None:
    """Make sure that no two cues show the same.

    Args:
        cues: of one mixture.
        objects: what each of them means; None: its pictures as a whole.
        video: where pictures come from that a cue has not.

    Raises:
        CueError: two cues mean the same object, or one of several cues means the whole picture of the video.
    """
    seen: dict[tuple[Any, ...], Cue] = {}
    for cue, meant in zip(cues, objects, strict=True):
        if meant is None:
            if len(cues) > 1 and cue.frames is None and video is not None:
                raise CueError(
                    f"The cue {cue.title!r} has neither a box, frames nor an object that was detected, and the "
                    "whole picture shows all sources; give it one of them."
                )
            continue
        box = tuple(meant.box)
        where = (_source(cue.detections), _source(cue.frames), int(meant.found.frames[meant.row]), meant.row, box)
        if where in seen:
            raise CueError(
                f"The cues {seen[where].title!r} and {cue.title!r} mean the same object, the one in the box "
                f"{list(box)}; give each a box or a class of its own, and detections that name their classes."
            )
        seen[where] = cue


def _source(given: Any) -> Any:
    """What tells one source of pictures or detections from another."""
    return str(given) if given is None or isinstance(given, str | Path) else id(given)


def _of_class(label: str, found: Detections, time: float) -> int | None:
    """The object of a class; None where it is not known what has which class."""
    sounding = [one.label for one in found.sounding if one.label]
    for one in found.sounding:
        if one.label and replace(found, names=(one.label,)).number(label):
            return one.row
    number = found.number(label)
    if number is None:
        if sounding or (found.names and not found.sounding):
            known, which = (sounding, "what sounds here is") if sounding else (found.names, "its classes are")
            raise CueError(
                f"The detections have no class {label!r}, {which} {', '.join(dict.fromkeys(known[:20]))}; name one of "
                "them, or give a box."
            )
        return None
    rows = np.flatnonzero(found.classes == number)
    if len(rows) == 0:
        raise CueError(f"No {label!r} was detected; give a box, or detections with a lower score.")
    if found.times is not None:
        away = np.abs(found.times[rows] - time)
        rows = rows[away == away.min()]
    return _best(found, rows)


def _best(found: Detections, rows: np.ndarray) -> int:
    """The row with the best score among ``rows``, of boxes that have an area if any has."""
    boxes = found.boxes[rows]
    usable = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    rows = rows[usable] if usable.any() else rows
    return int(rows[found.scores[rows].argmax()])


def _together(found: Detections, row: int, *, by_label: bool = False) -> CuedObject:
    """An object among the detections of its frame."""
    rows = np.flatnonzero(found.frames == found.frames[row])
    return CuedObject(found.take(rows), int(np.flatnonzero(rows == row)[0]), by_label)


def _in_box(cue: Cue, seen: Detections | None, time: float) -> CuedObject:
    """The object in the box that the cue has when the detections are seen."""
    empty = Detections(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 4)))
    seen = empty if seen is None else seen
    moment = time if seen.times is None or len(seen) == 0 else float(seen.times[0])
    box = np.asarray(cue.box_at(moment), dtype=np.float64)
    number = None if cue.label is None else seen.number(cue.label)
    shared = overlaps(box, seen.boxes)
    if len(seen) and shared.max() >= _SAME:
        row = int(shared.argmax())
        boxes, classes = seen.boxes.copy(), seen.classes.copy()
        if seen.features is None:  # a feature belongs to the detected box
            boxes[row] = box
        classes[row] = classes[row] if number is None else number
        return CuedObject(replace(seen, boxes=boxes, classes=classes), row)
    if seen.features is not None:
        raise CueError(
            f"Nothing was detected in the box {[float(v) for v in box]} of {cue.title!r}, and this model needs its "
            "features; give a box that was detected."
        )
    added = Detections(
        np.append(seen.frames, seen.frames[0] if len(seen) else 0),
        np.append(seen.classes, -1 if number is None else number),
        np.append(seen.scores, 1.0),
        np.concatenate((seen.boxes, box[None])),
        times=None if seen.times is None or len(seen) == 0 else np.append(seen.times, seen.times[0]),
        names=seen.names,
    )
    return CuedObject(added, len(seen))
