"""What the user points at: a :class:`Cue` bundles any of the modalities that name one source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avsep_zoo.errors import CueError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from avsep_zoo.data.detections import Detections

__all__ = ["Cue"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Cue:
    """One source to separate, named by any mixture of modalities.

    Args:
        label: class name, e.g. ``"violin"``.
        text: free text, e.g. ``"the dog on the left"``.
        frames: pictures of the source: uint8 RGB (K, H, W, 3) or (H, W, 3), or the path of a picture or a
            video. Left out, a method that reads frames takes them from the video that is separated.
        box: (x1, y1, x2, y2) in pixels of the frames: where the source is, for the whole clip.
        boxes: (n, 5) rows ``time, x1, y1, x2, y2``: where it is over time (seconds of the media).
        detections: what a detector found in the pictures: a :class:`~avsep_zoo.data.detections.Detections`, or the path
            of a file or folder with it (:func:`~avsep_zoo.data.detections.read_detections`). The source is the object
            in the box, or that of the class ``label``; the others are its surroundings.
        motion: (D, S) motion features over time, or the path of a ``.npy`` file of (D, S[, h, w]).
        audio: an example of the sound: (samples,) or (channels, samples) with ``audio_rate``, or a path.
        audio_rate: sample rate of ``audio`` in Hz when it is an array.
        name: name of the stem; defaults to the label or text.
        negated: the stem is the recording without this source, and is called ``"everything but ..."``.

    Raises:
        CueError: nothing is given, a box has the wrong shape or no area, detections are none, an array of audio
            has no rate, or ``negated`` is neither True nor False.
    """

    label: str | None = None
    text: str | None = None
    frames: ArrayLike | str | Path | None = None
    box: Sequence[float] | None = None
    boxes: ArrayLike | None = None
    detections: Detections | str | Path | None = None
    motion: ArrayLike | str | Path | None = None
    audio: ArrayLike | str | Path | None = None
    audio_rate: int | None = None
    name: str | None = None
    negated: bool = False

    def __post_init__(self) -> None:
        if not self.modalities:
            raise CueError(
                "The cue is empty; give at least one of label, text, frames, box, boxes, detections, motion, audio."
            )
        if self.box is not None:
            _check_box([self.box], "box", 4)
        if self.boxes is not None:
            _check_box(self.boxes, "boxes", 5)
        if not isinstance(self.detections, str | Path | None):
            _check_detections(self.detections)
        if not isinstance(self.audio, str | Path | None) and self.audio_rate is None:
            raise CueError("The cue has an array of audio without its rate; give audio_rate in Hz.")
        if not isinstance(self.negated, bool):
            raise CueError(f"negated is {self.negated!r}; give True for everything but the source, or False.")

    @property
    def modalities(self) -> frozenset[str]:
        """Names of the modalities that are given: of label, text, frames, box, detections, motion, audio."""
        given = {f.name for f in fields(self) if getattr(self, f.name) is not None}
        given -= {"name", "audio_rate", "negated"}
        if "boxes" in given:
            given = (given - {"boxes"}) | {"box"}
        return frozenset(given)

    @property
    def title(self) -> str:
        """Name of the stem this cue asks for."""
        if self.name:
            return str(self.name)
        source = self.label or self.text or f"source by {sorted(self.modalities)[0]}"
        return f"everything but {source}" if self.negated else str(source)

    def box_at(self, time: float) -> tuple[float, float, float, float] | None:
        """Return the box (x1, y1, x2, y2) in pixels nearest to ``time`` seconds, or None."""
        if self.boxes is not None:
            rows = np.asarray(self.boxes, dtype=np.float64)
            row = rows[int(np.abs(rows[:, 0] - time).argmin())]
            return (row[1], row[2], row[3], row[4])
        if self.box is not None:
            x1, y1, x2, y2 = (float(v) for v in self.box)
            return (x1, y1, x2, y2)
        return None

    def describe(self) -> dict[str, Any]:
        """Return what was asked for as plain JSON: texts as they are, files by name, arrays by shape."""
        described: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None or value is False:
                continue
            if field.name in ("frames", "detections", "motion", "audio") and isinstance(value, str | Path):
                value = Path(value).name
            elif field.name == "box":
                value = [float(v) for v in value]
            elif field.name == "detections":
                value = f"{len(value)} boxes"
            elif not isinstance(value, str | int | float):
                value = f"array {np.shape(value)}"
            described[field.name] = value
        return described


def _check_detections(value: Any) -> None:
    from avsep_zoo.data.detections import Detections

    if not isinstance(value, Detections):
        raise CueError(
            f"detections is {type(value).__name__}; give avsep_zoo.data.detections.Detections, or the path of a file "
            "that 'avsep detect' wrote."
        )


def _check_box(values: Any, name: str, columns: int) -> None:
    try:
        rows = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise CueError(f"{name} is {values!r} and no numbers ({error}); give corners x1, y1, x2, y2.") from error
    if rows.ndim != 2 or rows.shape[1] != columns or len(rows) == 0 or not np.isfinite(rows).all():
        raise CueError(f"{name} has shape {rows.shape}; give {columns} finite numbers per row, corners x1, y1, x2, y2.")
    corners = rows[:, -4:]
    empty = corners[(corners[:, 2] <= corners[:, 0]) | (corners[:, 3] <= corners[:, 1])]
    if len(empty):
        raise CueError(f"{name} {empty[0].tolist()} has no area; give x1 < x2 and y1 < y2 in pixels.")
