"""The pictures of a clip: frames as JPEG files, what a detector finds in them, and motion features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from avsep_zoo.detection.contract import Detector, MotionNet
from avsep_zoo.detection.look import AT_ONCE, BATCH, found_in, frame_count
from avsep_zoo.media import VideoSource
from avsep_zoo.replaced import replaced

__all__ = ["frame_times", "write_detections", "write_frames", "write_motion"]

QUALITY = 90  # of JPEG


def frame_times(seconds: float, fps: float) -> list[float]:
    """The times (n - 0.5) / fps, n = 1, 2, ..., that lie before ``seconds``; at least the first."""
    return [(number + 0.5) / fps for number in range(frame_count(seconds, fps))]


def write_frames(video: VideoSource, target: Path, times: Sequence[float]) -> None:
    """Write the frames shown at ``times`` as ``%06d.jpg``, from 1, into the folder ``target``.

    Where the pictures end before the sound, the last one stays, as players show it.
    """
    with replaced(target) as part:
        part.mkdir()
        number = 0
        for pictures in _frames(video, times):
            for picture in pictures:
                number += 1
                Image.fromarray(picture).save(part / f"{number:06d}.jpg", quality=QUALITY)


def write_detections(folder: Path, count: int, target: Path, detector: Detector) -> None:
    """Write what is detected in the stored frames: float32 rows frame, class, score, x1, y1, x2, y2 (pixels).

    Raises:
        DataError: the detector gives something else.
    """
    rows = [np.zeros((0, 7), np.float32)]
    for first in range(1, count + 1, BATCH):
        numbers = range(first, min(first + BATCH, count + 1))
        frames = np.stack([np.asarray(Image.open(folder / f"{number:06d}.jpg")) for number in numbers])
        for number, one in zip(numbers, found_in(detector, frames), strict=True):
            rows.append(np.insert(one, 0, number, axis=1))
    _save(target, np.concatenate(rows))


def write_motion(video: VideoSource, target: Path, net: MotionNet, *, start: float, seconds: float) -> None:
    """Write the motion features, float32 (D, S, h, w), of ``seconds`` from ``start`` on."""
    times = [start + time for time in frame_times(seconds, net.fps)]
    window = net.window or len(times)
    steps = []
    for first in range(0, len(times), window):
        pieces = [_small(frames, net.side) for frames in _frames(video, times[first : first + window])]
        steps.append(net.features(np.concatenate(pieces), net.fps))
    _save(target, np.concatenate(steps, axis=1).astype(np.float32))


def _frames(video: VideoSource, times: Sequence[float]) -> Iterator[np.ndarray]:
    """Yield the frames at rising times, uint8 (k, H, W, 3), as many at once as memory should hold."""
    size = max(1, AT_ONCE // (3 * video.info.width * video.info.height))
    for first in range(0, len(times), size):
        yield video.frames_at(times[first : first + size])


def _small(frames: np.ndarray, side: int) -> np.ndarray:
    """Resize (k, H, W, 3) so that the shorter side is ``side`` pixels."""
    height, width = frames.shape[1:3]
    scale = side / min(height, width)
    size = (max(side, round(width * scale)), max(side, round(height * scale)))
    return np.stack([np.asarray(Image.fromarray(f).resize(size, Image.Resampling.BILINEAR)) for f in frames])


def _save(target: Path, array: np.ndarray) -> None:
    with replaced(target) as part, part.open("wb") as file:
        np.save(file, array)
