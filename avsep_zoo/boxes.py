"""Boxes in pictures: x1, y1, x2, y2 in pixels."""

from __future__ import annotations

import numpy as np

__all__ = ["overlaps"]


def overlaps(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union (K,), 0 to 1, of one box (4,) with boxes (K, 4); 0 where both have no area."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])  # (K, 2)
    shared = sides.clip(0.0).prod(axis=1)
    union = (box[2:] - box[:2]).clip(0.0).prod() + (boxes[:, 2:] - boxes[:, :2]).clip(0.0).prod(axis=1) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
