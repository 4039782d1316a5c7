"""The denoising U-Net of DAVIS, with attention over all points and over time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional as F

from avsep_davis.attention import Film, FullAttention, LinearAttention, TimeAttention
from avsep_davis.folded import FoldedUNet
from avsep_zoo.blocks.time_embedding import TimeEmbedding
from avsep_zoo.contracts import Bound, SeparatorPlan, Site, Spectrum
from avsep_zoo.errors import CompositionError
from avsep_zoo.generative.contract import DrivenSeparator, Network

__all__ = ["DavisUNet"]


class DavisUNet(DrivenSeparator):
    """U-Net that predicts what a driver asks for from the mixture, a noisy estimate and a time.

    Its site is the ``bottleneck``, the only place the cue enters.

    Source: Huang et al., High-Quality Visually-Guided Sound Separation from Diverse Categories, ACCV 2024, section 3.3.

    Args:
        width: channels of the first level.
        multipliers: channels that leave each level, in widths; all levels but the last halve rows and frames.
        rows: F' of the front end; T' has to be a multiple of 2 ** (levels - 1).
        groups: of the group normalisations.
        heads, head_channels: of the attention over points.
        time_heads, time_features: of the attention over frames: features per query.
        patch: rows and frames that are one point of the first level (1 in the published network).
        gated: what is predicted is the clean data, as a share in (0, 1) of the mixture's features at each point.
        widths: channels that leave the bottleneck, where a conditioner acts there.
    """

    def __init__(
        self,
        *,
        width: int = 64,
        multipliers: Sequence[int] = (1, 2, 4, 4, 8),
        rows: int = 256,
        groups: int = 8,
        heads: int = 4,
        head_channels: int = 32,
        time_heads: int = 4,
        time_features: int = 512,
        patch: int = 1,
        gated: bool = False,
        widths: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        plan = self.plan(
            width=width, multipliers=multipliers, rows=rows, groups=groups, time_heads=time_heads, patch=patch
        )
        self.gated = gated
        self.sites, self.rows, self.halvings, self.patch = plan.sites, rows, len(multipliers) - 1, patch
        channels = [width, *(width * m for m in multipliers)]
        pairs = list(pairwise(channels))
        clock = 4 * width
        self.time = TimeEmbedding(width, clock)
        points = {"heads": heads, "head_channels": head_channels}
        frames = {"heads": time_heads, "features": time_features}

        def level(incoming: int, outgoing: int, depth: int, resample: Down | Up | nn.Conv2d) -> Level:
            return Level(
                ResnetBlock(incoming, outgoing, groups=groups, time_width=clock),
                LinearAttention(outgoing, clock, **points),
                TimeAttention(outgoing, rows // patch >> depth, clock, **frames),
                resample,
            )

        self.first = nn.Conv2d(2 * patch**2, width, 1)
        downs, ups = [], []
        for depth, (incoming, outgoing) in enumerate(pairs):
            last = depth == self.halvings
            down = nn.Conv2d(incoming, outgoing, 3, padding=1) if last else Down(incoming, outgoing)
            downs.append(level(incoming, incoming, depth, down))
            up = Up(outgoing, incoming) if depth else nn.Conv2d(outgoing, incoming, 3, padding=1)
            ups.append(level(outgoing + incoming, outgoing, depth, up))
        self.downs: Iterable[Level] = nn.ModuleList(downs)  # type: ignore[assignment]
        self.ups: Iterable[Level] = nn.ModuleList(reversed(ups))  # type: ignore[assignment]
        bottom = channels[-1]
        self.middle_in = ResnetBlock((widths or {}).get("bottleneck", bottom), bottom, groups=groups)
        self.middle_attention = FullAttention(bottom, **points)
        self.middle_out = ResnetBlock(bottom, bottom, groups=groups)
        self.last_block = ResnetBlock(2 * width, width, groups=groups, time_width=clock)
        self.last = nn.Conv2d(width, patch**2, 1)
        nn.init.kaiming_normal_(self.last.weight)

    @classmethod
    def plan(
        cls,
        *,
        width: int = 64,
        multipliers: Sequence[int] = (1, 2, 4, 4, 8),
        rows: int = 256,
        groups: int = 8,
        time_heads: int = 4,
        patch: int = 1,
        **_: Any,
    ) -> SeparatorPlan:
        """Describe the U-Net of this size."""
        if not multipliers or rows % (patch * 2 ** (len(multipliers) - 1)):
            raise ValueError(
                f"rows is {rows} with {len(multipliers)} levels of patches of {patch}; give a multiple of "
                "patch * 2 ** (levels - 1)."
            )
        wrong = [c for c in (width, *(width * m for m in multipliers)) if c % groups or c % time_heads]
        if wrong:
            raise ValueError(
                f"A level has {wrong[0]} channels; choose groups ({groups}) and time_heads ({time_heads}) to divide it."
            )
        return SeparatorPlan({"bottleneck": Site("bottleneck", width * multipliers[-1])}, driven=True)

    def bind(self, spectrum: Spectrum, inject: Bound) -> Network:
        mixture = spectrum.features
        rows, frames = mixture.shape[2:]
        step = self.patch * 2**self.halvings
        if rows != self.rows or frames % step:
            raise CompositionError(
                f"The front end gives {rows} x {frames} points and this U-Net needs {self.rows} rows and a multiple of "
                f"{step} frames; change warp_rows, length or hop_length, or the U-Net's rows."
            )
        mixture = repeat(mixture, "b 1 f t -> (b n) 1 f t", n=inject.sources)
        if not torch.is_grad_enabled() and not any(map(_changed, self.modules())):
            return FoldedUNet(self, mixture, inject)
        return lambda noisy, time: self.predict(mixture, noisy, time, inject)

    def predict(self, mixture: Tensor, noisy: Tensor, time: Tensor, inject: Bound) -> Tensor:
        """One evaluation of the network.

        Args:
            mixture, noisy: (B N, 1, F', T').
            time: (B N,) or (1,).
            inject: the conditioner at the bottleneck.
        """
        clock = F.silu(self.time(time))
        x = first = self.first(F.pixel_unshuffle(torch.cat((mixture, noisy), dim=1), self.patch))
        skips = []
        for level in self.downs:
            skips.append(level.features(x, clock))
            x = level.resample(skips[-1])
        x = inject("bottleneck", x)
        x = self.middle_out(self.middle_attention(self.middle_in(x)))
        for level in self.ups:
            x = level.resample(level.features(torch.cat((x, skips.pop()), dim=1), clock))
        return self.finished(self.last(self.last_block(torch.cat((x, first), dim=1), clock)), mixture)

    def finished(self, x: Tensor, mixture: Tensor) -> Tensor:
        """The prediction that the channels of the last convolution mean."""
        x = F.pixel_shuffle(x, self.patch)
        return mixture * torch.sigmoid(x.float()) if self.gated else x


def _changed(module: nn.Module) -> bool:
    """Whether a module does more than its weights say: it is adapted (LoRA), or watched by hooks."""
    return hasattr(module, "base_layer") or bool(module._forward_hooks or module._forward_pre_hooks)


class Level(nn.Module):
    """What happens at one resolution, and the way to the next."""

    def __init__(
        self, block: ResnetBlock, points: LinearAttention, frames: TimeAttention, resample: Down | Up | nn.Conv2d
    ) -> None:
        super().__init__()
        self.block, self.points, self.frames, self.resample = block, points, frames, resample

    def features(self, x: Tensor, clock: Tensor) -> Tensor:
        return self.frames(self.points(self.block(x, clock), clock), clock)


class StandardisedConv(nn.Module):
    """3x3 convolution whose weight is standardised per output channel (Qiao et al., 2019)."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        super().__init__()
        plain = nn.Conv2d(incoming, outgoing, 3)
        self.weight, self.bias = plain.weight, plain.bias

    def standardised(self) -> Tensor:
        """The weight that is convolved with."""
        return F.layer_norm(self.weight, self.weight.shape[1:])  # eps is 1e-5

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.standardised().to(x.dtype), self.bias, padding=1)


class ResnetBlock(nn.Module):
    """Two standardised convolutions with group norm and SiLU around a shortcut; the time acts in the first."""

    def __init__(self, incoming: int, outgoing: int, *, groups: int, time_width: int | None = None) -> None:
        super().__init__()
        self.film = Film(time_width, outgoing) if time_width else None
        self.conv1, self.norm1 = StandardisedConv(incoming, outgoing), nn.GroupNorm(groups, outgoing)
        self.conv2, self.norm2 = StandardisedConv(outgoing, outgoing), nn.GroupNorm(groups, outgoing)
        self.shortcut = nn.Conv2d(incoming, outgoing, 1) if incoming != outgoing else nn.Identity()

    def forward(self, x: Tensor, clock: Tensor | None = None) -> Tensor:
        h = self.norm1(self.conv1(x))
        if self.film is not None and clock is not None:
            h = self.film(h, clock)
        h = F.silu(self.norm2(self.conv2(F.silu(h))))
        return h + self.shortcut(x)


class Down(nn.Module):
    """Half the rows and frames: 2 x 2 points become channels."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4 * incoming, outgoing, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(rearrange(x, "b c (f i) (t j) -> b (c i j) f t", i=2, j=2))

    def folded(self) -> Callable[[Tensor], Tensor]:
        """The same without gradients, as one strided convolution."""
        weight = rearrange(self.conv.weight, "o (c i j) 1 1 -> o c i j", i=2, j=2)
        return partial(F.conv2d, weight=weight, bias=self.conv.bias, stride=2)


class Up(nn.Module):
    """Twice the rows and frames: nearest neighbour and a 3x3 convolution."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(incoming, outgoing, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))

    def folded(self) -> Callable[[Tensor], Tensor]:
        """The same without gradients, as one transposed convolution: taps that fall on one point are added up."""
        taps = F.avg_pool2d(self.conv.weight.flip(2, 3), 2, 1, padding=1, divisor_override=1)  # (O, C, 4, 4)
        return partial(F.conv_transpose2d, weight=taps.transpose(0, 1), bias=self.conv.bias, stride=2, padding=1)
