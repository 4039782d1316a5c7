"""U-Net with a residual encoder, bilinear upsampling and masks that are never negative.

Source: Independency Adversarial Learning for Cross-Modal Sound Separation, AAAI 2024, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from avsep_zoo.blocks.resnet import BasicBlock
from avsep_zoo.contracts import Bound, Estimate, Separator, SeparatorPlan, Site, Spectrum, expand_sources
from avsep_zoo.errors import CompositionError

__all__ = ["ResidualUNet"]


class ResidualUNet(Separator):
    """U-Net that gives ratio masks from 0 up, conditioned at its bottleneck and its decoder levels.

    Sites in forward order: ``bottleneck``, ``decoder<k>`` after up level k, from the number of levels down to 2. The
    mixture runs through the encoder once; features are expanded to N sources at the first site that needs the cue.

    Args:
        width: channels of the first two levels; the next ones have 2, 4, 8, ... times as many.
        levels: number of down (and up) levels, at least 2; F' and T must be multiples of 2 ** levels.
        mask_offset: mask of a source that the network says nothing of; a mask is the ReLU of the sum of both.
        widths: channels that leave each site a conditioner acts at.
    """

    def __init__(
        self,
        *,
        width: int = 64,
        levels: int = 5,
        mask_offset: float = 0.5,
        widths: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        widths = widths or {}
        self.levels, self.mask_offset = levels, mask_offset
        self.sites = self.plan(width=width, levels=levels).sites
        channels = _channels(width, levels)
        self.input_norm = nn.BatchNorm2d(1)
        self.stem = nn.Sequential(
            nn.Conv2d(1, width, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(width), nn.LeakyReLU(0.2)
        )
        self.down = nn.ModuleList(_stage(c, d) for c, d in pairwise(channels))
        self.up = nn.ModuleList()
        incoming = widths.get("bottleneck", channels[-1])
        for level in range(levels, 1, -1):
            outgoing = channels[level - 1]
            self.up.append(_Up(incoming, outgoing))
            incoming = channels[level - 2] + widths.get(f"decoder{level}", outgoing)
        self.mask_conv = nn.Conv2d(incoming, 1, 3, padding=1)
        self.scale, self.bias = nn.Parameter(torch.ones(1)), nn.Parameter(torch.zeros(1))

    @classmethod
    def plan(cls, *, width: int = 64, levels: int = 5, **unknown: Any) -> SeparatorPlan:
        """Describe the U-Net of this size."""
        unknown.pop("mask_offset", None)
        if unknown:
            raise TypeError(f"ResidualUNet has no setting {sorted(unknown)}; it takes width, levels and mask_offset.")
        if width < 1 or levels < 2:
            raise ValueError(f"The U-Net has width {width} and {levels} levels; give at least 1 and 2.")
        channels = _channels(width, levels)
        sites = {"bottleneck": Site("bottleneck", channels[-1])}
        sites |= {f"decoder{level}": Site("decoder", channels[level - 1]) for level in range(levels, 1, -1)}
        return SeparatorPlan(sites)

    def forward(self, spectrum: Spectrum, inject: Bound) -> Estimate:
        """Return masks (B, N, F', T)."""
        scores = self.scores(spectrum.features, inject)
        return Estimate(torch.relu(scores), scores)

    def scores(self, features: Tensor, inject: Bound) -> Tensor:
        """(B, 1, F', T) -> masks (B, N, F', T) before the ReLU, float32.

        Raises:
            CompositionError: F' or T is no multiple of 2 ** levels.
        """
        rows, frames = features.shape[2:]
        if rows % 2**self.levels or frames % 2**self.levels:
            raise CompositionError(
                f"The front end gives {rows} x {frames} points and a U-Net of {self.levels} levels needs multiples of "
                f"{2**self.levels}; change length, hop_length or warp_rows, or the levels."
            )
        batch, sources = len(features), inject.sources
        x = self.stem(self.input_norm(features))
        skips = [x]
        for stage in self.down:
            x = stage(x)
            skips.append(x)
        x = inject("bottleneck", skips.pop())
        for number, up in enumerate(self.up):
            x = inject(f"decoder{self.levels - number}", up(x))
            skip = skips.pop()
            x = torch.cat((expand_sources(skip, batch, sources) if len(x) != batch else skip, x), dim=1)
        scores = rearrange(expand_sources(self._last(x), batch, sources), "(b n) 1 f t -> b n f t", b=batch).float()
        return scores * self.scale + self.bias + self.mask_offset

    def _last(self, x: Tensor) -> Tensor:
        """Bilinear upsampling by 2 and a 3x3 convolution to one channel: (M, C, F' / 2, T / 2) -> (M, 1, F', T).

        The weights of the convolution's nine taps go first, as they commute with the upsampling: at full resolution
        there are nine channels then instead of C.
        """
        weights = rearrange(self.mask_conv.weight.flip(2, 3), "1 c i j -> (i j) c 1 1")
        taps = F.interpolate(F.conv2d(x, weights), scale_factor=2, mode="bilinear", align_corners=True)
        size = (taps.shape[2], taps.shape[3])
        mixed: Tensor = F.fold(taps.flatten(2), size, kernel_size=3, padding=1)
        return mixed if self.mask_conv.bias is None else mixed + self.mask_conv.bias


def _channels(width: int, levels: int) -> list[int]:
    return [width, *(width * 2**level for level in range(levels - 1))]


def _stage(incoming: int, outgoing: int) -> nn.Sequential:
    """Two residual blocks, the first of stride 2 with a 1x1 convolution in its shortcut."""
    return nn.Sequential(BasicBlock(incoming, outgoing, stride=2, slope=0.2), BasicBlock(outgoing, outgoing, slope=0.2))


class _Up(nn.Module):
    """Bilinear upsampling by 2, 3x3 convolution, leaky ReLU, batch norm."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(incoming, outgoing, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outgoing)

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        return self.norm(F.leaky_relu(self.conv(x), 0.2))
