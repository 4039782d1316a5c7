"""Noise with a place in time: overlapping windows of a long recording see the same noise where they overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["Sampling", "noise_at"]

_BLOCK = 64  # columns that one generator draws


@dataclass(frozen=True)
class Sampling:
    """How a generative model samples.

    Args:
        seed: of all noise, at least 0; the same seed gives the same stems.
        steps: of the solver; None is the model's own number.
        solver: None is the model's own.
        starts: first feature column of each mixture of the batch within its recording; empty is 0 for all.

    Raises:
        ValueError: the seed is negative.
    """

    seed: int = 0
    steps: int | None = None
    solver: str | None = None
    starts: Sequence[int] = ()

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; give a whole number from 0 on.")


def noise_at(start: int, rows: int, columns: int, *, seed: int, source: int, draw: int) -> Tensor:
    """Standard normal noise (rows, columns) that belongs to columns ``start`` on of a recording, on the CPU.

    It follows from its arguments alone, column by column, whatever window asks for it; no other generator is read
    or moved.

    Args:
        start: first column.
        rows, columns: both at least 1.
        seed: of a separation, at least 0.
        source: number of the source.
        draw: number of the draw within the sampling of one source.
    """
    first, last = start // _BLOCK, (start + columns - 1) // _BLOCK
    blocks = []
    for block in range(first, last + 1):
        place = (source, draw, block & 0xFFFFFFFF, rows)
        sequence = np.random.SeedSequence(seed, spawn_key=place)
        generator = np.random.Generator(np.random.PCG64(sequence))
        blocks.append(generator.standard_normal((rows, _BLOCK), dtype=np.float32))
    offset = start - first * _BLOCK
    return torch.from_numpy(np.concatenate(blocks, axis=1)[:, offset : offset + columns].copy())
