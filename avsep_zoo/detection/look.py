"""What a detector finds in a video: boxes at a frame rate, with their features where it gives them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from avsep_zoo.data.detection_file import LARGEST
from avsep_zoo.data.detections import Detections
from avsep_zoo.detection.contract import Detector
from avsep_zoo.errors import DataError, MediaError
from avsep_zoo.media import VideoSource, probe

__all__ = ["AT_ONCE", "BATCH", "MOST", "detect", "found_in", "frame_count"]

AT_ONCE = 2**26  # bytes of decoded frames
BATCH = 32  # frames per call of a detector
MOST = 20
"""Boxes of a frame that are kept, as in the detections of ASIW (Chatterjee et al., 2021)."""


def detect(
    media: str | Path,
    detector: Detector,
    *,
    fps: float = 1.0,
    start: float = 0.0,
    end: float | None = None,
    most: int = MOST,
    features: bool = True,
    progress: Callable[[int, int | None], None] | None = None,
) -> Detections:
    """Run a detector on the frames of a video.

    Frame n, from 1, is what is shown at ``start + (n - 0.5) / fps`` seconds, as ``avsep prepare`` numbers frames.
    Memory holds the boxes and their features, and a few frames at once. The feature of the scene is that of the whole
    picture of frame 1.

    Args:
        media: a file with pictures that FFmpeg reads; a picture is a video of one frame.
        fps: frames per second that are looked at, 0.01 to 240.
        start, end: seconds of the media; without ``end`` to where the pictures end.
        most: boxes of a frame that are kept, the best ones.
        features: whether to ask a detector that gives features for those of the boxes.
        progress: is called with the number of frames that were looked at, and how many there are at most (None where
            the file doesn't say).

    Raises:
        MediaError: the file cannot be read, has no pictures, or ends before ``start``.
        DataError: a number is out of range, the detector gives something else than it should, or the features would
            fill the memory.
    """
    if not (0.01 <= fps <= 240 and most >= 1):
        raise DataError(f"fps is {fps} and most is {most}; give 0.01 to 240 frames per second and 1 box or more.")
    with VideoSource(media) as video:
        count = _count(probe(media).duration, fps, start, end, str(media))
        wanted = features and detector.feature_width > 0
        table, vectors, scene = [np.zeros((0, 8))], [np.zeros((0, detector.feature_width), np.float32)], None
        numbers = 0  # of features so far
        times = (start + (n + 0.5) / fps for n in (itertools.count() if count is None else range(count)))
        for first, shown, frames in _frames(video, times):
            found = [rows[:most] for rows in found_in(detector, frames)]
            for number, (time, rows) in enumerate(zip(shown, found, strict=True), first):
                table.append(np.column_stack([np.full(len(rows), number), np.full(len(rows), time), rows]))
            if wanted:
                boxes = [rows[:, 2:] for rows in found]
                if first == 1:
                    boxes[0] = np.vstack([(0, 0, video.info.width, video.info.height), boxes[0]])
                given = _features_of(detector, frames, boxes)
                if first == 1:
                    scene, given[0] = given[0][0], given[0][1:]
                vectors += given
                numbers += sum(one.size for one in given)
                if numbers > LARGEST:
                    raise DataError(
                        f"{media} has more boxes in its first {first + len(shown) - 1} frames than memory should hold "
                        "features of; look at fewer frames per second, or at a part from start to end."
                    )
            if progress is not None:
                progress(first + len(shown) - 1, count)
    rows = np.concatenate(table)
    return Detections(
        np.rint(rows[:, 0]).astype(np.int64),
        np.rint(rows[:, 2]).astype(np.int64),
        rows[:, 3],
        rows[:, 4:],
        np.concatenate(vectors) if wanted else None,
        scene,
        times=rows[:, 1],
        names=detector.labels,
    )


def frame_count(seconds: float, fps: float) -> int:
    """How many of the times (n - 0.5) / fps, n = 1, 2, ..., lie before ``seconds``; at least the first."""
    return max(1, math.ceil(seconds * fps - 0.5 - 1e-6))


def found_in(detector: Detector, frames: np.ndarray) -> list[np.ndarray]:
    """Return what :meth:`Detector.detect` finds in K frames: rows class, score, x1, y1, x2, y2, best first.

    Raises:
        DataError: the detector gives something else.
    """
    found = detector.detect(frames)
    if len(found) != len(frames) or any(one.ndim != 2 or one.shape[1] != 6 for one in found):
        raise DataError(f"{type(detector).__name__} gives no rows of 6 per frame; report it to its author.")
    if not all(np.isfinite(one).all() for one in found):
        raise DataError(f"{type(detector).__name__} gives NaN or infinity; are its weights whole?")
    if any(len(one) and not 1 <= one[:, 0].min() <= one[:, 0].max() <= len(detector.labels) for one in found):
        raise DataError(f"{type(detector).__name__} gives a class that has no label; report it to its author.")
    return [one.astype(np.float32) for one in found]


def _features_of(detector: Detector, frames: np.ndarray, boxes: list[np.ndarray]) -> list[np.ndarray]:
    given = detector.features(frames, boxes)
    if [one.shape for one in given] != [(len(one), detector.feature_width) for one in boxes]:
        raise DataError(
            f"{type(detector).__name__} gives no {detector.feature_width} numbers per box; report it to its author."
        )
    return [one.astype(np.float32) for one in given]


def _count(duration: float | None, fps: float, start: float, end: float | None, title: str) -> int | None:
    """How many frames there are at most; None where nobody knows."""
    if not 0 <= start < math.inf or (end is not None and not start < end < math.inf):
        raise DataError(f"start is {start} and end is {end}; give seconds from 0 on, the end after the start.")
    if duration is not None and start >= duration:
        raise MediaError(f"{title} is {duration:.2f} s long, so there is nothing from {start:g} s on; start earlier.")
    known = [time for time in (end, duration) if time is not None]
    return frame_count(min(known) - start, fps) if known else None


def _frames(video: VideoSource, times: Iterator[float]) -> Iterator[tuple[int, list[float], np.ndarray]]:
    """Number of the first frame, times and frames (k, H, W, 3), as many at once as memory should hold."""
    size = max(1, min(BATCH, AT_ONCE // (3 * video.info.width * video.info.height)))
    first, shown, frames = 1, [], []
    for time in times:
        shown.append(time)
        frames.append(video.frames_at([time]))
        if len(frames) == size or video.ended:
            yield first, shown, np.concatenate(frames)
            first, shown, frames = first + len(frames), [], []
        if video.ended:
            return
    if frames:
        yield first, shown, np.concatenate(frames)
