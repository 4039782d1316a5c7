"""What the network sees of an object: its box, stretched to a square and cut to the middle of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from avsep_zoo.errors import CueError
from avsep_zoo.pictures import IMAGENET_MEAN, IMAGENET_STD

__all__ = ["MARGIN", "object_view", "seen_region"]

MARGIN = 1 / 7  # of the view's side, that the stretched box is larger


def object_view(
    picture: Tensor | np.ndarray,
    box: Sequence[float] | None,
    size: int,
    *,
    side: int | None = None,
    antialias: bool = False,
    rng: np.random.Generator | None = None,
) -> Tensor:
    """Cut a box out of a picture, stretch it to a square (bilinear), cut that, normalise it by ImageNet's statistics.

    The square is larger than the view, by a seventh as published; the view is its middle, or with ``rng`` any part of
    it, mirrored half of the time. The published code stretched without antialiasing, as tensors were in torchvision up
    to 0.16.

    Args:
        picture: (3, H, W) from 0 to 1, or uint8 RGB (H, W, 3).
        box: x1, y1, x2, y2 in pixels, truncated to integers; None is the whole picture.
        size: pixels of the view's side.
        side: pixels of the square's side, at least ``size``; None is a seventh more.
        antialias: filter what is made smaller.
        rng: of a training item.

    Returns:
        float32 (3, size, size).

    Raises:
        CueError: the box has no pixel of the picture.
    """
    height, width = picture.shape[:2] if isinstance(picture, np.ndarray) else picture.shape[1:]
    x1, y1, x2, y2 = _pixels(box, width, height)
    if isinstance(picture, np.ndarray):
        cut = torch.from_numpy(picture[y1:y2, x1:x2].copy()).permute(2, 0, 1)  # the picture may be read-only
    else:
        cut = picture[:, y1:y2, x1:x2]
    if cut.dtype == torch.uint8:
        cut = cut.float() / 255
    side, rim = _square(size, side)
    square = F.interpolate(cut[None], (side, side), mode="bilinear", antialias=antialias)[0]
    left = top = rim
    mirrored = False
    if rng is not None:
        left, top = rng.integers(0, side - size + 1, 2).tolist()
        mirrored = bool(rng.random() < 0.5)
    view = square[:, top : top + size, left : left + size]
    view = view.flip(2) if mirrored else view
    mean, std = (torch.from_numpy(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (view - mean) / std


def seen_region(box: Sequence[float] | None, size: int, *, width: int, height: int) -> list[float]:
    """The part of a picture that the middle view of a box shows.

    Args:
        box, size: as :func:`object_view`.
        width, height: of the picture, in pixels.

    Returns:
        x1, y1, x2, y2 in pixels.

    Raises:
        CueError: the box has no pixel of the picture.
    """
    x1, y1, x2, y2 = _pixels(box, width, height)
    side, rim = _square(size)
    begin, end = rim / side, (rim + size) / side
    return [x1 + begin * (x2 - x1), y1 + begin * (y2 - y1), x1 + end * (x2 - x1), y1 + end * (y2 - y1)]


def _square(size: int, side: int | None = None) -> tuple[int, int]:
    """Pixels of the side of the square that a view is cut from, and of the rim before its middle."""
    side = size + round(size * MARGIN) if side is None else side
    return side, round((side - size) / 2)


def _pixels(box: Sequence[float] | None, width: int, height: int) -> list[int]:
    """x1, y1, x2, y2 of what a box has of a picture."""
    if box is None:
        return [0, 0, width, height]
    limits = np.array([width, height, width, height])
    x1, y1, x2, y2 = np.asarray(box, dtype=np.float64).clip(0, limits).astype(int).tolist()
    if x1 >= x2 or y1 >= y2:
        raise CueError(
            f"The box {[float(v) for v in box]} has no pixel of a picture of {width} x {height}; give x1, y1, x2, y2 "
            "in its pixels."
        )
    return [x1, y1, x2, y2]
