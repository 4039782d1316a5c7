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
        seed: of all noise; the same seed gives the same stems.
        steps: of the solver; None is the model's own number.
        solver: None is the model's own.
        starts: first feature column of each mixture of the batch within its recording; empty is 0 for all.
    """

    seed: int = 0
    steps: int | None = None
    solver: str | None = None
    starts: Sequence[int] = ()


def noise_at(start: int, rows: int, columns: int, *, seed: int, source: int, draw: int) -> Tensor:
    """Standard normal noise (rows, columns) that belongs to columns ``start`` on of a recording, on the CPU.

    It follows from its arguments alone, column by column, whatever window asks for it.

    Args:
        start: first column, at least 0.
        seed: of a separation.
        source: number of the source.
        draw: number of the draw within the sampling of one source.
    """
    blocks = []
    first = start // _BLOCK
    for block in range(first, (start + columns - 1) // _BLOCK + 1):
        entropy = np.random.SeedSequence((seed, source, draw, block)).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(entropy) & (2**63 - 1))
        blocks.append(torch.randn(rows, _BLOCK, generator=generator))
    offset = start - first * _BLOCK
    return torch.cat(blocks, dim=1)[:, offset : offset + columns]
