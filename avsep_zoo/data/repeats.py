"""Which of the sounds of a recording are asked for, where it has more or fewer than wanted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["draw_places", "shares"]


def draw_places(there: int, wanted: int, rng: np.random.Generator) -> list[int]:
    """Draw ``wanted`` of the places 0 to ``there`` - 1: different ones, or all of them and then some again.

    Source: Mahmud et al., BiModalSep, ICLR 2024, for the phrases of a caption.
    """
    if there >= wanted:
        return [int(place) for place in rng.choice(there, wanted, replace=False)]
    return [*range(there), *(int(place) for place in rng.integers(there, size=wanted - there))]


def shares(places: Sequence[int]) -> tuple[float, ...]:
    """Weights of places: those of one that is there several times add up to 1."""
    return tuple(1 / places.count(place) for place in places)
