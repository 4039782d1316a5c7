"""Data rules of the published loader: detections, crops, motion features. Sounds: avsep_zoo.data.segment.

Source: Chen et al., iQuery, CVPR 2023; its configurations are ``music``, ``music21``, ``ave``, ``nomotion``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from avsep_zoo.errors import DataError
from avsep_zoo.pictures import centre_view, crop, normalise

__all__ = ["choose_box", "collate_motion", "frames_view", "pool_motion"]

_CLASS_OFFSET = {"music21": 1, "ave": 0}  # detector class of class id 0; the other data sets ignore the class


def choose_box(
    rows: np.ndarray, frame: int, dataset: str, class_id: int | None = None
) -> tuple[float, float, float, float] | None:
    """Return the box x1, y1, x2, y2 in pixels that ``frame`` is cropped to, or None for the whole frame.

    ``music`` and ``nomotion`` take the row with the largest score, whatever its class. ``music21`` and
    ``ave`` take the first row of the wanted class, whatever its score, then the row with the largest score of
    any class.

    Args:
        rows: (K, 7) detections of one video: frame number, detector class, score, x1, y1, x2, y2.
        frame: frame number.
        dataset: ``music``, ``nomotion``, ``music21`` or ``ave``.
        class_id: row of the class in the data set's list; needed for ``music21`` and ``ave``.

    Raises:
        DataError: the rows have another shape, the box has no area, the data set is unknown or its class is
            missing.
    """
    rows = np.asarray(rows)
    if rows.ndim != 2 or rows.shape[1] != 7:
        raise DataError(f"The detections have shape {rows.shape}; give (K, 7).")
    if dataset not in ("music", "nomotion", *_CLASS_OFFSET):
        raise DataError(f"There is no detection rule for {dataset!r}; give music, nomotion, music21 or ave.")
    here = rows[rows[:, 0] == frame]
    if len(here) == 0:
        return None
    row = here[here[:, 2].argmax()]
    if dataset in _CLASS_OFFSET:
        if class_id is None:
            raise DataError(f"The detection rule of {dataset} needs the class; give class_id.")
        wanted = here[here[:, 1] == class_id + _CLASS_OFFSET[dataset]]
        row = wanted[0] if len(wanted) else row
    x1, y1, x2, y2 = (float(v) for v in row[3:])
    if round(x2) <= round(x1) or round(y2) <= round(y1):
        raise DataError(f"The detection of frame {frame} is the box {[x1, y1, x2, y2]} without area; remove its row.")
    return x1, y1, x2, y2


def frames_view(
    pictures: Sequence[np.ndarray], boxes: Sequence[Sequence[float] | None], *, size: int = 224
) -> np.ndarray:
    """Crop, resize and normalise the frames of one source to float32 (3, K, size, size).

    The shorter side becomes ``size`` and the centre is cut out.

    Args:
        pictures: K pictures, uint8 RGB (H, W, 3).
        boxes: one per picture, x1, y1, x2, y2 in pixels, or None for the whole picture.
        size: pixels.
    """
    cropped = [crop(picture, box) for picture, box in zip(pictures, boxes, strict=True)]
    return normalise([centre_view(image, size) for image in cropped])


def pool_motion(features: np.ndarray) -> np.ndarray:
    """(D, S, h, w) motion features of a video -> float32 (D, S), the maximum over the picture.

    Raises:
        DataError: the features have another shape or no step.
    """
    features = np.asarray(features)
    if features.ndim != 4 or 0 in features.shape:
        raise DataError(f"The motion features have shape {features.shape}; give (features, steps, rows, columns).")
    return features.max(axis=(2, 3)).astype(np.float32)


def collate_motion(batch: Sequence[Sequence[np.ndarray]]) -> tuple[Tensor, Tensor]:
    """Pad pooled motion features (D, S), one per item and source, to a batch.

    Returns:
        ``motion`` (B, N, D, S), zero at padded steps, and ``motion_mask`` float32 (B, N, S): 0 at real steps,
        1 at steps up to the longest item of the same source slot (the published padding, which an encoder
        with ``motion_padding="added"`` lets through) and infinity at steps only another slot has.

    Raises:
        DataError: the items differ in their number of sources or in their number of features.
    """
    if len({len(sources) for sources in batch}) != 1:
        raise DataError(f"The items have {[len(sources) for sources in batch]} sources; give the same number.")
    widths = {features.shape[0] for sources in batch for features in sources}
    if len(widths) != 1:
        raise DataError(f"The motion features have {sorted(widths)} rows; give the same number.")
    steps = np.array([[features.shape[1] for features in sources] for sources in batch])  # (B, N)
    motion = torch.zeros(*steps.shape, *widths, int(steps.max()))
    mask = torch.full((*steps.shape, int(steps.max())), torch.inf)
    for b, sources in enumerate(batch):
        for n, features in enumerate(sources):
            motion[b, n, :, : features.shape[1]] = torch.from_numpy(features)
            mask[b, n, : steps[:, n].max()] = 1
            mask[b, n, : features.shape[1]] = 0
    return motion, mask
