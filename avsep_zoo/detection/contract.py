"""What a detector and a network of motion features are to those who use them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from avsep_zoo.errors import DataError

__all__ = ["Detector", "MotionNet"]


class Detector(ABC):
    """Finds objects in pictures.

    Args:
        weights: folder in the Hub's layout, or a weights file; None where the user gives none.
        labels: what to find; empty is what the weights know.
        min_score: detections below it are left out, 0..1; None is the detector's own.
        device: as torch names it.

    Attributes:
        labels: name of each class: number c of a detection is ``labels[c - 1]``.
        min_score: the one in use.
        open_vocabulary: whether it finds whatever ``labels`` say, so that they may be the classes of a data set.
        feature_width: numbers of the feature that :meth:`features` gives of a box; 0: it gives none.

    Raises:
        WeightsError: the weights are missing, damaged or not for this detector, or ``labels`` do not fit them.
    """

    labels: tuple[str, ...]
    min_score: float
    open_vocabulary = False
    feature_width: int = 0

    @abstractmethod
    def __init__(
        self, weights: Path | None, *, labels: Sequence[str] = (), min_score: float | None = None, device: str = "cpu"
    ) -> None: ...

    @abstractmethod
    def detect(self, frames: np.ndarray) -> list[np.ndarray]:
        """Return what is in each of K frames.

        Args:
            frames: uint8 RGB (K, H, W, 3).

        Returns:
            K arrays float32 (n, 6), rows class, score, x1, y1, x2, y2 in pixels, best first; n may be 0.
        """

    def features(self, frames: np.ndarray, boxes: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return what the detector knows of given boxes, whether it found them or not.

        Args:
            frames: uint8 RGB (K, H, W, 3).
            boxes: K arrays (n, 4), rows x1, y1, x2, y2 in pixels of the frame; n may be 0.

        Returns:
            K arrays float32 (n, ``feature_width``).

        Raises:
            DataError: it gives no features.
        """
        raise DataError(f"{type(self).__name__} gives no features of boxes; take another detector.")


class MotionNet(ABC):
    """Turns a video into a sequence of motion features.

    Args:
        weights: as :class:`Detector`.
        device: as torch names it.

    Attributes:
        fps: frames per second it wants.
        side: shorter side, in pixels, of the frames it wants.
        window: frames per call, where features of a long video come from pieces of it; None: all at once.

    Raises:
        WeightsError: as :class:`Detector`.
    """

    fps: float
    side: int
    window: int | None = None

    @abstractmethod
    def __init__(self, weights: Path | None, *, device: str = "cpu") -> None: ...

    @abstractmethod
    def features(self, frames: np.ndarray, fps: float) -> np.ndarray:
        """Return float32 (D, S, h, w), S steps over the time of the frames.

        Args:
            frames: uint8 RGB (K, H, W, 3), K at least 1.
            fps: frames per second.
        """
