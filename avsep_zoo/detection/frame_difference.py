"""Simple motion features: how much each part of the picture changes, twice a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from avsep_zoo.detection.contract import MotionNet
from avsep_zoo.errors import WeightsError

__all__ = ["GRID", "STEPS_PER_SECOND", "FrameDifference", "motion_features"]

GRID = 32
STEPS_PER_SECOND = 2


class FrameDifference(MotionNet):
    """Mean change of each cell of a 32 x 32 grid, 2 steps per second: features (1024, S, 1, 1) without weights."""

    fps = 8.0
    side = 64

    def __init__(self, weights: Path | None = None, *, device: str = "cpu") -> None:
        if weights is not None:
            raise WeightsError(f"frame_difference has no weights and {str(weights)!r} was given; leave it out.")

    def features(self, frames: np.ndarray, fps: float) -> np.ndarray:
        return motion_features(frames, int(fps))


def motion_features(video: np.ndarray, fps: int) -> np.ndarray:
    """Mean absolute difference of successive grey frames on a 32 x 32 grid, averaged to 2 steps per second.

    video: uint8 [frames, height, width, 3], height and width at least 32, fps even. Returns float32
    [1024, S, 1, 1] in 0..1, S = floor(2 * frames / fps) and at least 1; the first frame counts as unchanged.
    """
    grey = video.astype(np.float32) @ np.array((0.299, 0.587, 0.114), np.float32) / 255  # [frames, h, w]
    change = np.abs(np.diff(grey, axis=0, prepend=grey[:1]))
    for axis in (1, 2):
        edges = np.arange(GRID) * change.shape[axis] // GRID
        counts = np.diff(np.append(edges, change.shape[axis]))
        shape = [1, 1, 1]
        shape[axis] = GRID
        change = np.add.reduceat(change, edges, axis=axis) / counts.reshape(shape)
    cells = change.reshape(len(change), GRID * GRID)
    span = fps // STEPS_PER_SECOND
    steps = max(1, len(cells) // span)
    means = [cells[step * span : (step + 1) * span].mean(axis=0) for step in range(steps)]
    return np.stack(means, axis=1).astype(np.float32)[:, :, None, None]
