"""The mask U-Net of the Sound-of-Pixels family: strided 4x4 convolutions down, bilinear upsampling up.

Channels per level: width, 2, 4, 8, 8, 8, 8 times; the output of the last up level are mask features that a
conditioner's mask embedding or a 1x1 convolution turns into masks, or into what a driver asks the network for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional as F

from avsep_zoo.blocks.time_embedding import TimeEmbedding
from avsep_zoo.contracts import Bound, Estimate, SeparatorPlan, Site, Spectrum, expand_sources
from avsep_zoo.errors import CompositionError
from avsep_zoo.generative.contract import DrivenSeparator, Network

__all__ = ["MaskUNet"]

_LATENT_LEVEL = 4
_SINES = 64  # of the time a driven network reads


class MaskUNet(DrivenSeparator):
    """U-Net that gives sigmoid masks, conditioned at its bottleneck, its decoder levels, its latent or its head.

    Sites in forward order: ``bottleneck``, ``decoder<k>`` after up level k, ``latent`` (stride 8, after up level 4,
    in place of ``decoder4``), ``head`` (mask features at full resolution). The mixture runs through the encoder
    once; features are expanded to N sources at the first site that needs the cue.

    A driven one is no mask network: it reads a noisy estimate beside the mixture's features, and a time that shifts
    the channels of each level, and answers without a sigmoid. All its features are those of B N items.

    Source: Zhao et al., The Sound of Pixels, ECCV 2018; with 7 levels, width 64 and 32 mask features the audio
    network of iQuery (Chen et al., CVPR 2023).

    Args:
        width: channels of the first level.
        levels: number of down (and up) levels, at least 4; F' and T must be multiples of 2 ** levels.
        mask_features: channels that reach the head.
        driven: build the network of a driver.
        widths: channels that leave each site a conditioner acts at.
    """

    def __init__(
        self,
        *,
        width: int = 64,
        levels: int = 7,
        mask_features: int = 32,
        driven: bool = False,
        widths: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        widths = widths or {}
        self.levels, self.mask_features, self.driven = levels, mask_features, driven
        self.sites = self.plan(width=width, levels=levels, mask_features=mask_features).sites
        channels = _channels(width, levels)
        self.input_norm = nn.BatchNorm2d(1)
        reads = [2 if driven else 1, *channels]
        self.down = nn.ModuleList(_Down(reads[k], c, k, levels) for k, c in enumerate(channels))
        ups: list[nn.Module] = []
        shifted = list(channels)
        incoming = widths.get("bottleneck", channels[-1])
        for level in range(levels, 0, -1):
            outgoing = channels[level - 2] if level > 1 else mask_features
            ups.append(_Up(incoming, outgoing, norm=level > 1))
            shifted.append(outgoing)
            if level > 1:
                incoming = channels[level - 2] + widths.get(_site_after(level), outgoing)
        self.up = nn.ModuleList(ups)
        head = widths.get("head", mask_features)
        self.mask_conv = nn.Conv2d(head, 1, 1) if head != 1 else nn.Identity()
        self.clock = _Clock(4 * width, shifted) if driven else None

    @classmethod
    def plan(
        cls, *, width: int = 64, levels: int = 7, mask_features: int = 32, driven: bool = False, **unknown: Any
    ) -> SeparatorPlan:
        """Describe the U-Net of this size."""
        if unknown:
            known = "width, levels, mask_features, driven"
            raise TypeError(f"MaskUNet has no setting {sorted(unknown)}; it takes {known}.")
        if levels < _LATENT_LEVEL:
            raise ValueError(f"MaskUNet levels is {levels}; give at least {_LATENT_LEVEL}.")
        channels = _channels(width, levels)
        sites = {"bottleneck": Site("bottleneck", channels[-1])}
        for level in range(levels, 1, -1):
            name = _site_after(level)
            sites[name] = Site("latent" if name == "latent" else "decoder", channels[level - 2])
        sites["head"] = Site("head", mask_features)
        return SeparatorPlan(sites, driven)

    def forward(self, spectrum: Spectrum, inject: Bound) -> Estimate:
        """Return sigmoid masks (B, N, F', T)."""
        if self.driven:
            return super().forward(spectrum, inject)
        logits = self.logits(spectrum.features, inject)
        return Estimate(torch.sigmoid(logits), logits)

    def logits(self, features: Tensor, inject: Bound) -> Tensor:
        """(B, 1, F', T) -> mask logits (B, N, F', T).

        Raises:
            CompositionError: F' or T is no multiple of 2 ** levels.
        """
        self._check(features)
        batch = features.shape[0]
        x = self._levels(self.input_norm(features), inject, batch)
        return rearrange(x, "(b n) 1 f t -> b n f t", b=batch)

    def bind(self, spectrum: Spectrum, inject: Bound) -> Network:
        """Return the network of a driver.

        Raises:
            CompositionError: F' or T is no multiple of 2 ** levels, or the U-Net is not driven.
        """
        clock = self.clock
        if clock is None:
            raise CompositionError("This U-Net gives masks and has nothing to drive; build it with driven: true.")
        self._check(spectrum.features)
        batch = spectrum.features.shape[0]
        mixture = repeat(self.input_norm(spectrum.features), "b 1 f t -> (b n) 1 f t", n=inject.sources)
        return lambda noisy, time: self._levels(torch.cat((mixture, noisy), dim=1), inject, batch, clock(time))

    def _check(self, features: Tensor) -> None:
        rows, frames = features.shape[2:]
        if rows % 2**self.levels or frames % 2**self.levels:
            raise CompositionError(
                f"The front end gives {rows} x {frames} points and a U-Net of {self.levels} levels needs multiples of "
                f"{2**self.levels}; change length, hop_length or warp_rows, or the levels."
            )

    def _levels(self, x: Tensor, inject: Bound, batch: int, shifts: Sequence[Tensor] = ()) -> Tensor:
        """(B or B N, 1 or 2, F', T) -> (B N, 1, F', T), with a shift of its channels after each level, if any."""
        sources, moved = inject.sources, iter(shifts)
        skips = []
        for down in self.down:
            x = down(x)
            x = x + next(moved) if shifts else x
            skips.append(x)
        x = inject("bottleneck", skips.pop())
        for index, up in enumerate(self.up):
            level = self.levels - index
            if index:
                skip = skips.pop()
                x = torch.cat((expand_sources(skip, batch, sources) if len(x) != batch else skip, x), dim=1)
            x = up(x)
            x = x + next(moved) if shifts else x
            x = inject(_site_after(level), x)
        return expand_sources(self.mask_conv(x), batch, sources)


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


class _Clock(nn.Module):
    """A time becomes a shift of the channels of each level."""

    def __init__(self, width: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.time = TimeEmbedding(_SINES, width)
        self.shifts = nn.Linear(width, sum(channels))
        self.channels = list(channels)

    def forward(self, time: Tensor) -> tuple[Tensor, ...]:
        """(B N,) or (1,) times -> (B N or 1, C, 1, 1) for each level."""
        shifts: Tensor = self.shifts(F.silu(self.time(time)))
        return shifts[:, :, None, None].split(self.channels, dim=1)
