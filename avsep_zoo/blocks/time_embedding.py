"""Sinusoidal embedding of a time (Vaswani et al., NeurIPS 2017), and the network behind it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["TimeEmbedding", "sinusoids"]


def sinusoids(time: Tensor, width: int) -> Tensor:
    """(B,) times -> float32 (B, width): sines, then cosines, of width / 2 frequencies from 1 down to 1 / 10000."""
    half = width // 2
    frequencies = torch.exp(torch.arange(half, device=time.device) * -(math.log(10000.0) / (half - 1)))
    angle = time[:, None].float() * frequencies
    return torch.cat((angle.sin(), angle.cos()), dim=-1)


class TimeEmbedding(nn.Module):
    """Sinusoids, linear, GELU, linear: (B,) times of any type -> (B, width) of the parameters' type.

    Args:
        sines: width of the sinusoids, even, at least 4.
        width: of what comes out.

    Raises:
        ValueError: ``sines`` is odd or below 4.
    """

    def __init__(self, sines: int, width: int) -> None:
        super().__init__()
        if sines < 4 or sines % 2:
            raise ValueError(f"The time embedding has {sines} sinusoids; give an even number of at least 4.")
        self.sines = sines
        self.mlp = nn.Sequential(nn.Linear(sines, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, time: Tensor) -> Tensor:
        out: Tensor = self.mlp(sinusoids(time, self.sines).to(next(self.parameters()).dtype))
        return out
