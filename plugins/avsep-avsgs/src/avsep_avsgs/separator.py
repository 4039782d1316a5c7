"""The U-Net of co-separation: strided 4x4 convolutions down, transposed ones up, a sigmoid mask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from avsep_avsgs.folded import foldable, folded, forget
from avsep_zoo.contracts import Bound, Estimate, Separator, SeparatorPlan, Site, Spectrum, expand_sources
from avsep_zoo.errors import CompositionError

__all__ = ["CoSeparationUNet"]


class CoSeparationUNet(Separator):
    """U-Net that gives sigmoid masks, conditioned at its bottleneck or its decoder levels.

    Sites in forward order: ``bottleneck``, ``decoder<k>`` after up level k, from the number of levels down to 2. The
    mixture runs through the encoder once; features are expanded to N sources at the first site that needs the cue.

    Source: Gao and Grauman, Co-Separating Sounds of Visual Objects, ICCV 2019; with 7 levels that of Chatterjee et
    al., Visual Scene Graphs for Audio Source Separation, ICCV 2021.

    Args:
        width: channels of the first level; the next ones have 2, 4, 8, 8, ... times as many.
        levels: number of down (and up) levels, at least 2; F' and T must be multiples of 2 ** levels.
        widths: channels that leave each site a conditioner acts at.
    """

    def __init__(self, *, width: int = 64, levels: int = 7, widths: Mapping[str, int] | None = None) -> None:
        super().__init__()
        widths = widths or {}
        self.levels, self.sites = levels, self.plan(width=width, levels=levels).sites
        self.conditioned = frozenset(widths)  # sites a conditioner acts at
        channels = _channels(width, levels)
        self.down = nn.ModuleList(_Down(c, d) for c, d in zip([1, *channels], channels, strict=False))
        ups: list[nn.Module] = []
        incoming = widths.get("bottleneck", channels[-1])
        for level in range(levels, 0, -1):
            outgoing = channels[level - 2] if level > 1 else 1
            ups.append(_Up(incoming, outgoing, norm=level > 1))
            if level > 1:
                incoming = widths.get(f"decoder{level}", outgoing) + channels[level - 2]
        self.up = nn.ModuleList(ups)
        self.apply(_initialise)

    @classmethod
    def plan(cls, *, width: int = 64, levels: int = 7, **unknown: Any) -> SeparatorPlan:
        """Describe the U-Net of this size."""
        if unknown:
            raise TypeError(f"CoSeparationUNet has no setting {sorted(unknown)}; it takes width and levels.")
        if width < 1 or levels < 2:
            raise ValueError(f"The U-Net has width {width} and {levels} levels; give at least 1 and 2.")
        channels = _channels(width, levels)
        sites = {"bottleneck": Site("bottleneck", channels[-1])}
        sites |= {f"decoder{level}": Site("decoder", channels[level - 2]) for level in range(levels, 1, -1)}
        return SeparatorPlan(sites)

    def train(self, mode: bool = True) -> Self:
        if mode:
            forget(self)
        return super().train(mode)

    def forward(self, spectrum: Spectrum, inject: Bound) -> Estimate:
        """Return sigmoid masks (B, N, F', T)."""
        features = spectrum.features
        self._check(features)
        if foldable(self, features):
            logits = folded(self, *features.shape[2:])(features, inject)
        else:
            logits = self.logits(features, inject)
        return Estimate(torch.sigmoid(logits), logits)

    def logits(self, features: Tensor, inject: Bound) -> Tensor:
        """(B, 1, F', T) -> mask logits (B, N, F', T).

        Raises:
            CompositionError: F' or T is no multiple of 2 ** levels.
        """
        self._check(features)
        batch, sources = len(features), inject.sources
        x, skips = features, []
        for down in self.down:
            x = down(x)
            skips.append(x)
        x = inject("bottleneck", skips.pop())
        for number, up in enumerate(self.up):
            level = self.levels - number
            if number:
                skip = skips.pop()
                x = torch.cat((x, expand_sources(skip, batch, sources) if len(x) != batch else skip), dim=1)
            x = up(x)
            if level > 1:
                x = inject(f"decoder{level}", x)
        return rearrange(expand_sources(x, batch, sources), "(b n) 1 f t -> b n f t", b=batch)

    def _check(self, features: Tensor) -> None:
        rows, frames = features.shape[2:]
        if rows % 2**self.levels or frames % 2**self.levels:
            raise CompositionError(
                f"The front end gives {rows} x {frames} points and a U-Net of {self.levels} levels needs multiples of "
                f"{2**self.levels}; change length, hop_length or warp_rows, or the levels."
            )


def _channels(width: int, levels: int) -> list[int]:
    return [width * min(2**level, 8) for level in range(levels)]


class _Down(nn.Module):
    """4x4 convolution of stride 2, batch norm, leaky ReLU."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(incoming, outgoing, 4, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(outgoing)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.norm(self.conv(x)), 0.2)


class _Up(nn.Module):
    """4x4 transposed convolution of stride 2, batch norm and ReLU (not at full resolution)."""

    def __init__(self, incoming: int, outgoing: int, *, norm: bool) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(incoming, outgoing, 4, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(outgoing) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x if self.norm is None else F.relu(self.norm(x))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
