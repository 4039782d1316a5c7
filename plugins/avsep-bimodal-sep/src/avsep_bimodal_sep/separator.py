"""Conditional residual U-Net of BiModalSep: a convolution down, a residual block, the cue in the deep levels.

Source: Mahmud et al., Weakly-supervised Audio Separation via Bi-modal Semantic Similarity, ICLR 2024, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from avsep_zoo.contracts import Bound, Estimate, Separator, SeparatorPlan, Site, Spectrum, expand_sources
from avsep_zoo.errors import CompositionError

__all__ = ["ConditionalUNet", "ResidualBlock"]

_PLAIN_LEVELS = 4  # without a site


class ConditionalUNet(Separator):
    """U-Net that gives sigmoid masks; every level from the fifth down is a place where a conditioner may act.

    Sites in forward order: ``deep5``, ``deep6``, ..., ``bottleneck`` (after the way down of their level), ``head``
    (mask features at full resolution). The mixture runs through the first four levels once; features are expanded to N
    sources at the first site that needs the cue. What leaves a deep site goes to the next level and is its skip
    connection, too.

    Args:
        width: channels of the first level; the next ones have 2, 4, 8, 8, ... times as many.
        levels: number of down (and up) levels, at least 5; F' and T must be multiples of 2 ** levels.
        mask_features: channels that reach the head.
        res_layers: convolutions of each residual block, 0 for none.
        widths: channels that leave each site a conditioner acts at.
    """

    def __init__(
        self,
        *,
        width: int = 64,
        levels: int = 7,
        mask_features: int = 32,
        res_layers: int = 1,
        widths: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        widths = widths or {}
        self.levels, self.mask_features, self.res_layers = levels, mask_features, res_layers
        self.sites = self.plan(width=width, levels=levels, mask_features=mask_features, res_layers=res_layers).sites
        channels = _channels(width, levels)
        leaving = [widths.get(_site(level, levels), c) for level, c in enumerate(channels, 1)]
        self.input_norm = nn.BatchNorm2d(1)
        self.down = nn.ModuleList(
            _Down(incoming, c, res_layers) for incoming, c in zip([1, *leaving], channels, strict=False)
        )
        self.up = nn.ModuleList()
        for level in range(levels, 0, -1):
            incoming = leaving[level - 1] + (channels[level - 1] if level < levels else 0)
            outgoing = channels[level - 2] if level > 1 else mask_features
            self.up.append(_Up(incoming, outgoing, res_layers, last=level == 1))
        head = widths.get("head", mask_features)
        self.mask_conv = nn.Conv2d(head, 1, 1) if head != 1 else nn.Identity()

    @classmethod
    def plan(
        cls, *, width: int = 64, levels: int = 7, mask_features: int = 32, res_layers: int = 1, **unknown: Any
    ) -> SeparatorPlan:
        """Describe the U-Net of this size."""
        if unknown:
            known = "width, levels, mask_features, res_layers"
            raise TypeError(f"ConditionalUNet has no setting {sorted(unknown)}; it takes {known}.")
        if levels <= _PLAIN_LEVELS or width < 1 or mask_features < 1 or res_layers < 0:
            raise ValueError(
                f"The U-Net has {levels} levels, width {width}, {mask_features} mask features and {res_layers} layers "
                f"per residual block; give at least {_PLAIN_LEVELS + 1}, 1, 1 and 0."
            )
        deep = {_site(level, levels): Site("bottleneck", 8 * width) for level in range(_PLAIN_LEVELS + 1, levels + 1)}
        return SeparatorPlan({**deep, "head": Site("head", mask_features)})

    def forward(self, spectrum: Spectrum, inject: Bound) -> Estimate:
        """Return sigmoid masks (B, N, F', T)."""
        logits = self.logits(spectrum.features, inject)
        return Estimate(torch.sigmoid(logits), logits)

    def logits(self, features: Tensor, inject: Bound) -> Tensor:
        """(B, 1, F', T) -> mask logits (B, N, F', T), float32.

        Raises:
            CompositionError: F' or T is no multiple of 2 ** levels.
        """
        batch = len(features)
        x = self.mask_conv(inject("head", self.mask_features_of(features, inject)))
        return rearrange(expand_sources(x, batch, inject.sources), "(b n) 1 f t -> b n f t", b=batch).float()

    def mask_features_of(self, features: Tensor, inject: Bound) -> Tensor:
        """(B, 1, F', T) -> mask features (B or B N, C, F', T), before the head.

        Raises:
            CompositionError: F' or T is no multiple of 2 ** levels.
        """
        rows, frames = features.shape[2:]
        if rows % 2**self.levels or frames % 2**self.levels or not rows * frames:
            raise CompositionError(
                f"The front end gives {rows} x {frames} points and a U-Net of {self.levels} levels needs multiples of "
                f"{2**self.levels}; change length, hop_length, n_fft or warp_rows, or the levels."
            )
        batch, sources = len(features), inject.sources
        x = self.input_norm(features)
        skips: list[Tensor] = []
        for level, down in enumerate(self.down, 1):
            x = down(x)
            if level > _PLAIN_LEVELS:
                x = inject(_site(level, self.levels), x)
            skips.append(x)
        x = skips.pop()
        for number, up in enumerate(self.up):
            if number:
                skip = skips.pop()
                x = torch.cat((expand_sources(skip, batch, sources) if len(x) != batch else skip, x), dim=1)
            x = up(x)
        return x


class ResidualBlock(nn.Module):
    """Layers of a 3x3 convolution and batch norm, leaky ReLU between them; added to the input, leaky ReLU.

    Without layers it is the identity.
    """

    def __init__(self, channels: int, layers: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(layers))
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        if not self.convs:
            return x
        y = x
        for number, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y = norm(conv(F.leaky_relu(y, 0.2) if number else y))
        return F.leaky_relu(x + y, 0.2)


class _Down(nn.Module):
    """4x4 convolution of stride 2, batch norm, leaky ReLU, residual block."""

    def __init__(self, incoming: int, outgoing: int, res_layers: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(incoming, outgoing, 4, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outgoing)
        self.residual = ResidualBlock(outgoing, res_layers)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.residual(F.leaky_relu(self.norm(self.conv(x)), 0.2))
        return out


class _Up(nn.Module):
    """Bilinear upsampling by 2, residual block, 3x3 convolution, batch norm and ReLU (not at full resolution)."""

    def __init__(self, incoming: int, outgoing: int, res_layers: int, *, last: bool) -> None:
        super().__init__()
        self.residual = ResidualBlock(incoming, res_layers)
        self.conv = nn.Conv2d(incoming, outgoing, 3, padding=1, bias=last)
        self.norm = nn.Identity() if last else nn.BatchNorm2d(outgoing)
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        x = self.residual(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True))
        x = self.norm(self.conv(x))
        return x if self.last else F.relu(x)


def _channels(width: int, levels: int) -> list[int]:
    return [width * min(2**level, 8) for level in range(levels)]


def _site(level: int, levels: int) -> str:
    return "bottleneck" if level == levels else f"deep{level}"
