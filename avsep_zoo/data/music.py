"""Reader of the MUSIC index files and folder layout (Zhao et al., 2018; as iQuery's lists use it).

A list has rows ``audio,frames,count`` such as ``/cello/AbC.wav,/cello/AbC.mp4,137``; the class is the first
folder. Paths are joined to ``audio``, ``frames``, ``detection_results`` and ``motion_features`` below the
data folder. A mixture list has two audio paths per row.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from avsep_zoo.errors import DataError

__all__ = ["Clip", "read_clips", "read_mixtures"]


@dataclass(frozen=True)
class Clip:
    """One solo clip.

    Args:
        id: ``class/name``.
        label: class.
        audio: sound file.
        frames: folder of ``%06d.jpg``, numbered from 1.
        frame_count: number of frames according to the list.
        detections: ``.npy`` of rows frame, class, score, x1, y1, x2, y2; may not exist.
        motion: ``.npy`` of motion features; may not exist.
    """

    id: str
    label: str
    audio: Path
    frames: Path
    frame_count: int
    detections: Path
    motion: Path

    def boxes(self, frame_rate: float) -> np.ndarray | None:
        """Best detection of every frame as rows time, x1, y1, x2, y2, or None without usable detections.

        Raises:
            DataError: the file is damaged.
        """
        if not self.detections.is_file():
            return None
        try:
            rows = np.asarray(np.load(self.detections, allow_pickle=False), np.float64)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(
                f"The detections {str(self.detections)!r} cannot be read ({error}); remove or replace them."
            ) from error
        if rows.ndim != 2 or rows.shape[1] < 7:
            raise DataError(
                f"The detections {str(self.detections)!r} have shape {rows.shape}; give rows of frame, "
                "class, score, x1, y1, x2, y2."
            )
        rows = rows[np.isfinite(rows).all(axis=1)]
        rows = rows[np.argsort(-rows[:, 2], kind="stable")]
        _, first = np.unique(rows[:, 0], return_index=True)
        best = rows[first]
        usable = best[(best[:, 5] > best[:, 3]) & (best[:, 6] > best[:, 4])]
        if len(usable) == 0:
            return None
        return np.column_stack([(usable[:, 0] - 0.5) / frame_rate, usable[:, 3:7]])


def read_clips(root: Path, split: str) -> list[Clip]:
    """Read ``<root>/<split>.csv``; rows with fewer than two columns are skipped, as published.

    Raises:
        DataError: the list is missing, empty, or a path in it leaves the data folder.
    """
    return [_clip(root, row, f"{split}.csv", number) for number, row in _rows(root / f"{split}.csv")]


def read_mixtures(root: Path, name: str, clips: list[Clip]) -> list[tuple[Clip, ...]]:
    """Read ``<root>/<name>.csv``, one mixture per row, and look its audio paths up among ``clips``.

    Raises:
        DataError: the list is missing, names a clip that is not among ``clips``, or has rows of several
            lengths.
    """
    by_audio = {f"{clip.id}{clip.audio.suffix}": clip for clip in clips}
    mixtures: list[tuple[Clip, ...]] = []
    for number, row in _rows(root / f"{name}.csv"):
        keys = [cell.strip().lstrip("/") for cell in row]
        missing = [key for key in keys if key not in by_audio]
        if missing:
            raise DataError(f"{name}.csv row {number} names {missing[0]!r}, which is not in the list of clips.")
        if mixtures and len(keys) != len(mixtures[0]):
            raise DataError(
                f"{name}.csv row {number} has {len(keys)} clips and the first one {len(mixtures[0])}; "
                "make a list per number of sources."
            )
        mixtures.append(tuple(by_audio[key] for key in keys))
    return mixtures


def _rows(file: Path) -> list[tuple[int, list[str]]]:
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            rows = [(number, row) for number, row in enumerate(csv.reader(stream), 1) if len(row) >= 2]
    except (OSError, ValueError, csv.Error) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(f"The list {str(file)!r} cannot be read ({why}); give a data folder with it.") from error
    if not rows:
        raise DataError(f"The list {str(file)!r} has no rows; check that the data set was written completely.")
    return rows


def _clip(root: Path, row: list[str], file: str, number: int) -> Clip:
    audio, frames = (PurePosixPath(cell.strip().lstrip("/")) for cell in row[:2])
    for path in (audio, frames):
        if ".." in path.parts or len(path.parts) < 2 or not str(path).isprintable() or "\\" in str(path):
            raise DataError(f"{file} row {number} has the path {str(path)!r}; give class/name inside the data folder.")
    try:
        count = int(row[2]) if len(row) > 2 else 0
    except ValueError as error:
        raise DataError(f"{file} row {number} has the frame count {row[2]!r}; give a whole number.") from error
    detections = root / "detection_results" / frames.with_name(frames.name + ".npy")
    motion = root / "motion_features" / frames.with_name(frames.name + ".npy")
    identity = str(audio.with_suffix(""))
    return Clip(identity, audio.parts[0], root / "audio" / audio, root / "frames" / frames, count, detections, motion)
