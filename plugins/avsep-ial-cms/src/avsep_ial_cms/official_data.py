"""What the published loader draws of a recording: a segment of its sound.

The view of the object is :func:`avsep_ial_cms.views.object_view`, the test mixtures are
:func:`avsep_zoo.data.readers.duets.published_mixtures`. Source: Independency Adversarial Learning for Cross-Modal Sound
Separation, AAAI 2024, and the code that goes with it.
"""

from __future__ import annotations

import random

import numpy as np

from avsep_zoo.errors import DataError

__all__ = ["GAINS", "drawn_segment"]

GAINS = (0.5, 1.5)
"""Factors of the level of training segments, the last one excluded."""


def drawn_segment(
    sound: np.ndarray, length: int, rng: random.Random, *, gains: tuple[float, float] | None = None
) -> np.ndarray:
    """Draw float32 (length,) of a mono sound (samples,); a shorter one has silence behind it.

    Args:
        sound: float; the segment is clipped to [-1, 1].
        length: samples.
        rng: draws the start, then the factor.
        gains: range of a factor of the level (:data:`GAINS` in training); None leaves the level.

    Raises:
        DataError: the sound is empty.
    """
    if len(sound) == 0:
        raise DataError("The sound is empty and no segment can be drawn from it; remove its row.")
    sound = np.pad(sound.astype(np.float32), (0, max(0, length - len(sound))))
    start = rng.randint(0, len(sound) - length)
    segment = sound[start : start + length]
    if gains is not None:
        segment = segment * np.float32(gains[0] + (gains[1] - gains[0]) * rng.random())
    return segment.clip(-1.0, 1.0)
