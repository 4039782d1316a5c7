"""What an object detector found in the frames of a clip, in the forms that data sets store it in."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from avsep_zoo.data.asiw_labels import LABELS_FILE, read_sounding_objects
from avsep_zoo.errors import DataError

__all__ = ["Detections", "Sounding", "read_detections", "read_scene_detections"]

_BOXES = "Image_feature_20obj.h5"
_OBJECTS = "Image_info_20obj.json"
_NAMES = ("features", "boxes")
_LARGEST = 2**28  # numbers in one array: 1 GiB of float32


@dataclass(frozen=True)
class Sounding:
    """An object that is known to sound: its row among the detections, and its class where that is known."""

    row: int
    label: str | None = None


@dataclass(frozen=True, eq=False)
class Detections:
    """``K`` boxes, in the order they are stored in.

    Args:
        frames: int64 (K,), numbered as the frames are: from 1 for stored pictures, from 0 for ASIW.
        classes: int64 (K,), in the detector's numbering.
        scores: float64 (K,).
        boxes: float64 (K, 4): x1, y1, x2, y2 in pixels of the frame.
        features: float32 (K, D) of the boxes, or None.
        scene: float32 (D,), the feature that stands for the whole scene (ASIW: first box of the first frame), or None.
        times: float64 (K,): when the frame of each box is seen, in seconds of the media, or None where that is unknown.
        names: of the detector's classes: class c is ``names[c - 1]``; empty where they are unknown.
        sounding: objects that are known to sound, in the order they are listed in.
    """

    frames: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    features: np.ndarray | None = None
    scene: np.ndarray | None = None
    times: np.ndarray | None = None
    names: tuple[str, ...] = ()
    sounding: tuple[Sounding, ...] = ()

    def __len__(self) -> int:
        return len(self.frames)

    def number(self, name: str) -> int | None:
        """The detector's number of a class; None where it has no such class. Case, blanks and hyphens don't matter."""
        plain = [_plain(known) for known in self.names]
        return plain.index(_plain(name)) + 1 if _plain(name) in plain else None

    def at(self, time: float) -> Detections:
        """The boxes of the frame that is nearest to ``time`` seconds; all of them where times are unknown."""
        if self.times is None or len(self) == 0:
            return self
        nearest = self.times[int(np.abs(self.times - time).argmin())]
        return self.take(np.flatnonzero(self.times == nearest))

    def take(self, rows: np.ndarray) -> Detections:
        """The boxes of some rows, in the order of ``rows``; what sounds is kept as far as its row is."""
        place = {int(row): number for number, row in enumerate(rows)}
        return replace(
            self,
            frames=self.frames[rows],
            classes=self.classes[rows],
            scores=self.scores[rows],
            boxes=self.boxes[rows],
            features=None if self.features is None else self.features[rows],
            times=None if self.times is None else self.times[rows],
            sounding=tuple(replace(one, row=place[one.row]) for one in self.sounding if one.row in place),
        )

    def row(self, frame: int, box: int) -> int:
        """Return the row of the ``box``-th box (from 0) of a frame.

        Raises:
            DataError: the frame has no such box.
        """
        rows = np.flatnonzero(self.frames == frame)
        if not 0 <= box < len(rows):
            raise DataError(f"Frame {frame} has {len(rows)} detected boxes; number {box} is not among them.")
        return int(rows[box])

    def best(self, frame_rate: float) -> np.ndarray | None:
        """Best box of every frame: float64 rows of time in seconds, x1, y1, x2, y2; None without usable boxes.

        For frames numbered from 1. A frame whose best box has no area is left out.
        """
        order = np.argsort(-self.scores, kind="stable")
        _, first = np.unique(self.frames[order], return_index=True)
        rows = order[first]
        boxes = self.boxes[rows]
        usable = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        if not usable.any():
            return None
        return np.column_stack([(self.frames[rows] - 0.5) / frame_rate, boxes])[usable]


def read_detections(path: Path) -> Detections:
    """Read the detections of a clip: a ``.npy`` file, a ``.safetensors`` file, or a folder of ASIW.

    A ``.npy`` file holds a number per column: frame, class, score, x1, y1, x2, y2; rows that are not finite or have no
    frame number are left out. A ``.safetensors`` file is one of :mod:`avsep_zoo.data.detection_file`.

    Raises:
        DataError: something is missing, damaged, or of another form; or ASIW is read without h5py.
    """
    if path.is_dir():
        return read_scene_detections(path)
    if path.suffix == ".safetensors":
        from avsep_zoo.data.detection_file import read_detections_file

        return read_detections_file(path)
    try:
        rows = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError, OverflowError) as error:
        raise DataError(f"The detections {str(path)!r} cannot be read ({error}); remove or replace them.") from error
    if isinstance(rows, np.ndarray) and rows.size == 0:
        rows = np.zeros((0, 7))
    if not isinstance(rows, np.ndarray) or rows.dtype.kind not in "fiu" or rows.ndim != 2 or rows.shape[1] != 7:
        form = f"{rows.dtype} {rows.shape}" if isinstance(rows, np.ndarray) else "several arrays"
        raise DataError(f"The detections {str(path)!r} are {form}; give rows of frame, class, score, x1, y1, x2, y2.")
    rows = rows.astype(np.float64)
    rows = rows[np.isfinite(rows).all(axis=1)]
    rows = rows[(np.abs(rows[:, :2]) < 2**31).all(axis=1) & (rows[:, 0] >= 0)]
    frames, classes = np.rint(rows[:, :2]).astype(np.int64).T
    return Detections(frames, classes, rows[:, 2], rows[:, 3:])


def read_scene_detections(folder: Path) -> Detections:
    """Read what ASIW stores of a video: boxes with features (``.h5``), their classes and scores (``.json``).

    ``features`` is (frames, boxes, D) and ``boxes`` (frames, boxes, 4); the n-th object of a frame in the JSON file is
    the n-th box, boxes beyond the last object are left out. What sounds is known where there is a list of it, too
    (:mod:`avsep_zoo.data.asiw_labels`).

    Raises:
        DataError: h5py or a file of the two is missing, a file is damaged, or they do not fit together.
    """
    features, boxes = _arrays(folder / _BOXES)
    objects = _objects(folder / _OBJECTS)
    if len(objects) != len(features) or max((len(c) for c, _ in objects), default=0) > boxes.shape[1]:
        raise DataError(
            f"{str(folder)!r} has boxes {boxes.shape[:2]} in {_BOXES} and objects of {len(objects)} frames in "
            f"{_OBJECTS}, which do not fit; replace both."
        )
    kept = np.zeros(boxes.shape[:2], dtype=bool)
    for row, (classes, _) in zip(kept, objects, strict=True):
        row[: len(classes)] = True
    found = Detections(
        np.nonzero(kept)[0],
        np.array([c for classes, _ in objects for c in classes], dtype=np.int64),
        np.array([s for _, scores in objects for s in scores], dtype=np.float64),
        boxes[kept].astype(np.float64),
        features[kept],
        features[0, 0],
    )
    if not (folder / LABELS_FILE).exists():
        return found
    listed = read_sounding_objects(folder)
    try:
        sounding = tuple(Sounding(found.row(one.frame, one.box), one.name) for one in listed)
    except DataError as error:
        why = str(error).rstrip(".").replace("; ", ", ")
        raise DataError(
            f"The labels {str(folder / LABELS_FILE)!r} do not fit the boxes ({why}); replace one."
        ) from error
    return replace(found, sounding=sounding)


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def _arrays(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """``features`` and ``boxes``, with their shapes checked before they are read."""
    try:
        import h5py
    except ImportError as error:
        raise DataError("ASIW needs h5py; run: pip install h5py.") from error
    try:
        with h5py.File(file, "r") as h5:
            links = [h5.get(name, getlink=True) for name in _NAMES]
            sets: list[Any] = [
                h5[name] for name, link in zip(_NAMES, links, strict=True) if type(link) is h5py.HardLink
            ]
            if len(sets) < 2 or not all(type(s) is h5py.Dataset and not s.external and not s.is_virtual for s in sets):
                raise DataError(f"{str(file)!r} does not hold features and boxes itself; replace it.")
            shapes = [s.shape for s in sets]
            (count, width, size), fit = shapes[0] if len(shapes[0]) == 3 else (0, 0, 0), shapes[1]
            if not (count and width and size and fit == (count, width, 4) and count * width * size <= _LARGEST):
                raise DataError(
                    f"{str(file)!r} has features {shapes[0]} and boxes {shapes[1]}; give (frames, boxes, D) and "
                    "(frames, boxes, 4)."
                )
            features, boxes = (np.asarray(s[()]) for s in sets)
    except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"The boxes {str(file)!r} cannot be read ({error}); replace the file.") from error
    if features.dtype.kind != "f" or boxes.dtype.kind not in "fiu":
        raise DataError(f"{str(file)!r} holds {features.dtype} and {boxes.dtype}; give numbers.")
    if not (np.isfinite(features).all() and np.isfinite(boxes).all()):
        raise DataError(f"{str(file)!r} holds NaN or infinity; replace it.")
    return features.astype(np.float32), boxes


def _objects(file: Path) -> list[tuple[list[int], list[float]]]:
    """Classes and scores of the objects of every frame."""
    try:
        frames: Any = json.loads(file.read_bytes())
        return [_frame(frame["objects"], frame["objects_conf"]) for frame in frames]
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
        raise DataError(
            f"The objects {str(file)!r} cannot be read ({error}); give a list of frames with 'objects' and "
            "'objects_conf'."
        ) from error


def _frame(classes: list[int], scores: list[float]) -> tuple[list[int], list[float]]:
    if len(classes) != len(scores):
        raise ValueError(f"{len(classes)} objects with {len(scores)} confidences")
    if not all(type(c) is int and 0 <= c < 2**31 for c in classes):
        raise ValueError("a class id is no whole number from 0")
    if not all(isinstance(s, int | float) and 0 <= s <= 1 for s in scores):
        raise ValueError("a confidence is not between 0 and 1")
    return classes, scores
