"""4x4 convolutions of stride 2 and their transposes on a CPU, with fewer multiplications than the plain sums.

Both are 2x2 convolutions of stride 1: a strided one of the four interleaved grids of its input, a transposed one for
each of the four interleaved grids of its output. A 2x2 convolution is done tile by tile with minimal filtering: 16
products give 3x3 numbers, which plainly take 36, and rounding stays the same. Maps are (B, H, W, C) here.

Source: Winograd, Arithmetic Complexity of Computations, SIAM 1980; for networks Lavin and Gray, Fast Algorithms for
Convolutional Neural Networks, CVPR 2016, section 4.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["FastConv", "FastTransposed", "SmallTransposed"]

_TILE = 3  # numbers that a tile gives, in each direction
_INTO = [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -1, 0, 1]]
_WEIGH = [[1.0, 0.0], [0.5, 0.5], [0.5, -0.5], [0.0, 1.0]]
_OUT = [[1, 1, 1, 0], [0, 1, -1, 0], [0, 1, 1, 1]]
_CONSTANT = 5  # of the 16 numbers the one that is added to all that a tile gives


class _Filter:
    """2x2 correlation in the domain where it is a matrix product for each of the 16 numbers of a tile.

    Args:
        taps: (2, 2, C, O).
    """

    def __init__(self, taps: Tensor) -> None:
        into, weigh, out = (torch.tensor(rows, dtype=torch.float64) for rows in (_INTO, _WEIGH, _OUT))
        into, weigh, out = (torch.kron(matrix, matrix).to(taps) for matrix in (into, weigh, out))
        self.into, self.out = into, out  # (16, 16), (9, 16)
        self.weight = (weigh @ taps.flatten(2).flatten(0, 1)).unflatten(1, taps.shape[2:])  # (16, C, O)

    def lift(self, x: Tensor, tall: int, wide: int, grids: int = 1) -> Tensor:
        """Maps (B, H, W, C / grids^2) with a border of zeros -> (16, B, tiles, O)."""
        sizes = [grids * (_TILE * tiles + 1) for tiles in (tall, wide)]
        x = F.pad(x, (0, 0, 1, sizes[1] - x.shape[2] - 1, 1, sizes[0] - x.shape[1] - 1)).contiguous()
        item, row, column, channel = x.stride()
        down, right = grids * row, grids * column
        shape = (4, 4, len(x), tall, wide, grids, grids, x.shape[3])
        tiles = x.as_strided(shape, (down, right, item, _TILE * down, _TILE * right, row, column, channel))
        lifted = (self.into @ tiles.reshape(16, -1)).view(16, -1, self.weight.shape[1])
        return torch.bmm(lifted, self.weight).unflatten(1, (len(x), -1))

    def drop(self, lifted: Tensor, bias: Tensor) -> Tensor:
        """(16, B, tiles, O) -> (3, 3, B, tiles, O); ``lifted`` is lost."""
        lifted[_CONSTANT] += bias
        return (self.out @ lifted.flatten(1)).view(_TILE, _TILE, *lifted.shape[1:])


class FastConv:
    """A 4x4 convolution of stride 2 and padding 1.

    Args:
        weight: (O, C, 4, 4), as ``nn.Conv2d`` has it.
        bias: (O,).
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        taps = weight.unflatten(3, (2, 2)).unflatten(2, (2, 2))  # (O, C, 2 taps, 2 grids, 2 taps, 2 grids)
        self.filter, self.bias = _Filter(taps.permute(2, 4, 3, 5, 1, 0).flatten(2, 4)), bias

    def __call__(self, x: Tensor) -> Tensor:
        """(B, H, W, C) with even H and W -> (B, H / 2, W / 2, O)."""
        rows, columns = (size // 2 for size in x.shape[1:3])
        tall, wide = _tiles(rows), _tiles(columns)
        y = self.filter.drop(self.filter.lift(x, tall, wide, grids=2), self.bias)
        y = y.unflatten(3, (tall, wide)).permute(2, 3, 0, 4, 1, 5)  # (B, tall, 3, wide, 3, O)
        return y.flatten(3, 4).flatten(1, 2)[:, :rows, :columns]


class FastTransposed:
    """A 4x4 transposed convolution of stride 2 and padding 1, whose input comes in parts.

    The result is :meth:`drop` of the sum of what the parts contribute.

    Args:
        weight: (C, O, 4, 4), as ``nn.ConvTranspose2d`` has it.
        bias: (O,).
        parts: channels of each part of the input, C in all.
    """

    def __init__(self, weight: Tensor, bias: Tensor, parts: Sequence[int]) -> None:
        order = torch.tensor([[2, 0], [3, 1]], device=weight.device)  # taps of odd and of even points
        taps = weight[:, :, order][..., order]  # (C, O, 2 grids, 2 taps, 2 grids, 2 taps)
        taps = taps.permute(3, 5, 0, 2, 4, 1).flatten(3)
        self.filters, self.bias = [_Filter(part) for part in taps.split(list(parts), dim=2)], bias

    def lift(self, x: Tensor, part: int) -> Tensor:
        """What a part (B, H, W, C) contributes: (16, B, tiles, 4 O)."""
        tall, wide = (_tiles(2 * size + 1, grids=2) for size in x.shape[1:3])
        return self.filters[part].lift(x, tall, wide)

    def drop(self, lifted: Tensor, rows: int, columns: int, lowest: float | None = None) -> Tensor:
        """All contributions together, which are lost -> (B, 2 H, 2 W, O), not below ``lowest``.

        Args:
            lifted: the sum of what :meth:`lift` gave.
            rows, columns: H and W.
        """
        tall, wide = (_tiles(2 * size + 1, grids=2) for size in (rows, columns))
        y = self.filters[0].drop(lifted, self.bias.repeat(4)).unflatten(4, (2, 2, -1)).unflatten(3, (tall, wide))
        y = y.permute(2, 3, 0, 5, 4, 1, 6, 7)  # (B, tall, 3, 2 grids, wide, 3, 2 grids, O)
        out = torch.clamp(y, min=-torch.inf if lowest is None else lowest, out=y.new_empty(y.shape))
        return out.flatten(4, 6).flatten(1, 3)[:, 1 : 1 + 2 * rows, 1 : 1 + 2 * columns]


class SmallTransposed:
    """The same as :class:`FastTransposed`, as one matrix product that gives all 16 taps of every point.

    It is faster where maps are small, or where there is one channel to give.
    """

    def __init__(self, weight: Tensor, bias: Tensor, parts: Sequence[int]) -> None:
        self.weights = [part.permute(0, 2, 3, 1).flatten(1).contiguous() for part in weight.split(list(parts))]
        self.bias = bias

    def lift(self, x: Tensor, part: int) -> Tensor:
        """What a part (B, H, W, C) contributes: (1, B, H W, 16 O)."""
        return (x.flatten(0, 2) @ self.weights[part]).unflatten(0, (1, len(x), -1))

    def drop(self, lifted: Tensor, rows: int, columns: int, lowest: float | None = None) -> Tensor:
        taps = lifted.view(-1, rows, columns, 2, 2, 2, 2, len(self.bias))
        out = self.bias.repeat(len(taps), rows + 1, 2, columns + 1, 2, 1)
        for down in (0, 1):
            for right in (0, 1):
                moved = out[:, down : down + rows, :, right : right + columns]
                moved += taps[:, :, :, down, :, right].permute(0, 1, 3, 2, 4, 5)
        return out.flatten(3, 4).flatten(1, 2)[:, 1:-1, 1:-1].clamp_(min=-torch.inf if lowest is None else lowest)


def _tiles(size: int, grids: int = 1) -> int:
    return -(-size // (_TILE * grids))
