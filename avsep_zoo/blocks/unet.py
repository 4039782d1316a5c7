"""The mask U-Net of the Sound-of-Pixels family: strided 4x4 convolutions down, bilinear upsampling up.

Channels per level: width, 2, 4, 8, 8, 8, 8 times; the output of the last up level are mask features that a
conditioner's mask embedding or a 1x1 convolution turns into masks.
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

__all__ = ["MaskUNet"]

_LATENT_LEVEL = 4


class MaskUNet(Separator):
    """U-Net that gives sigmoid masks, conditioned at its bottleneck, its decoder levels, its latent or its head.

    Sites in forward order: ``bottleneck``, ``decoder<k>`` after up level k, ``latent`` (stride 8, after up level 4,
    in place of ``decoder4``), ``head`` (mask features at full resolution). The mixture runs through the encoder
    once; features are expanded to N sources at the first site that needs the cue.

    Source: Zhao et al., The Sound of Pixels, ECCV 2018; with 7 levels, width 64 and 32 mask features the audio
    network of iQuery (Chen et al., CVPR 2023).

    Args:
        width: channels of the first level.
        levels: number of down (and up) levels, at least 4; F' and T must be multiples of 2 ** levels.
        mask_features: channels that reach the head.
        widths: channels that leave each site a conditioner acts at.
    """

    def __init__(
        self, *, width: int = 64, levels: int = 7, mask_features: int = 32, widths: Mapping[str, int] | None = None
    ) -> None:
        super().__init__()
        widths = widths or {}
        self.levels, self.mask_features = levels, mask_features
        self.sites = self.plan(width=width, levels=levels, mask_features=mask_features).sites
        channels = _channels(width, levels)
        self.input_norm = nn.BatchNorm2d(1)
        self.down = nn.ModuleList(_Down(1 if k == 0 else channels[k - 1], c, k, levels) for k, c in enumerate(channels))
        ups: list[nn.Module] = []
        incoming = widths.get("bottleneck", channels[-1])
        for level in range(levels, 0, -1):
            outgoing = channels[level - 2] if level > 1 else mask_features
            ups.append(_Up(incoming, outgoing, norm=level > 1))
            if level > 1:
                incoming = channels[level - 2] + widths.get(_site_after(level), outgoing)
        self.up = nn.ModuleList(ups)
        head = widths.get("head", mask_features)
        self.mask_conv = nn.Conv2d(head, 1, 1) if head != 1 else nn.Identity()

    @classmethod
    def plan(cls, *, width: int = 64, levels: int = 7, mask_features: int = 32, **unknown: Any) -> SeparatorPlan:
        """Describe the U-Net of this size."""
        if unknown:
            raise TypeError(f"MaskUNet has no setting {sorted(unknown)}; it takes width, levels, mask_features.")
        if levels < _LATENT_LEVEL:
            raise ValueError(f"MaskUNet levels is {levels}; give at least {_LATENT_LEVEL}.")
        channels = _channels(width, levels)
        sites = {"bottleneck": Site("bottleneck", channels[-1])}
        for level in range(levels, 1, -1):
            name = _site_after(level)
            sites[name] = Site("latent" if name == "latent" else "decoder", channels[level - 2])
        sites["head"] = Site("head", mask_features)
        return SeparatorPlan(sites)

    def forward(self, spectrum: Spectrum, inject: Bound) -> Estimate:
        """Return sigmoid masks (B, N, F', T)."""
        logits = self.logits(spectrum.features, inject)
        return Estimate(torch.sigmoid(logits), logits)

    def logits(self, features: Tensor, inject: Bound) -> Tensor:
        """(B, 1, F', T) -> mask logits (B, N, F', T).

        Raises:
            CompositionError: F' or T is no multiple of 2 ** levels.
        """
        rows, frames = features.shape[2:]
        if rows % 2**self.levels or frames % 2**self.levels:
            raise CompositionError(
                f"The front end gives {rows} x {frames} points and a U-Net of {self.levels} levels needs multiples of "
                f"{2**self.levels}; change length, hop_length or warp_rows, or the levels."
            )
        batch, sources = features.shape[0], inject.sources
        x = self.input_norm(features)
        skips = []
        for down in self.down:
            x = down(x)
            skips.append(x)
        x = inject("bottleneck", skips.pop())
        for index, up in enumerate(self.up):
            level = self.levels - index
            if index:
                skip = skips.pop()
                x = torch.cat((expand_sources(skip, batch, sources) if len(x) != batch else skip, x), dim=1)
            x = up(x)
            x = inject(_site_after(level), x)
        x = expand_sources(self.mask_conv(x), batch, sources)  # (B N, 1, F', T)
        return rearrange(x, "(b n) 1 f t -> b n f t", b=batch)


def _channels(width: int, levels: int) -> list[int]:
    return [width * min(2**level, 8) for level in range(levels)]


def _site_after(level: int) -> str:
    return {1: "head", _LATENT_LEVEL: "latent"}.get(level, f"decoder{level}")


class _Down(nn.Module):
    """Leaky ReLU (not before the first level), 4x4 convolution of stride 2, batch norm (not at the ends)."""

    def __init__(self, incoming: int, outgoing: int, level: int, levels: int) -> None:
        super().__init__()
        self.first = level == 0
        self.conv = nn.Conv2d(incoming, outgoing, 4, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outgoing) if 0 < level < levels - 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x if self.first else F.leaky_relu(x, 0.2)))


class _Up(nn.Module):
    """ReLU, bilinear upsampling by 2, 3x3 convolution, batch norm (not at full resolution)."""

    def __init__(self, incoming: int, outgoing: int, *, norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(incoming, outgoing, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outgoing) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(F.relu(x), scale_factor=2, mode="bilinear", align_corners=True)
        return self.norm(self.conv(x))
