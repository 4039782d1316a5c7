"""Attention blocks of the DAVIS U-Net; each adds its branch to its input.

Features are (B, C, F, T). ``time`` is the activated time embedding (B or 1, D).
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ChannelNorm", "Film", "FullAttention", "LinearAttention", "TimeAttention"]


class Film(nn.Module):
    """Scale and shift from the time: ``x (1 + scale) + shift``."""

    def __init__(self, time_width: int, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(time_width, 2 * channels)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.linear(time)[..., None, None].chunk(2, dim=1)
        return torch.addcmul(shift, x, scale + 1)


class ChannelNorm(nn.Module):
    """Normalise over channels at each point, with a gain per channel and no bias."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.permute(0, 2, 3, 1), self.gain.shape, self.gain).permute(0, 3, 1, 2)


class LinearAttention(nn.Module):
    """Attention over all points whose cost grows with their number only (Shen et al., WACV 2021)."""

    def __init__(self, channels: int, time_width: int, *, heads: int, head_channels: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = ChannelNorm(channels)
        self.film = Film(time_width, channels)
        self.qkv = nn.Conv2d(channels, 3 * heads * head_channels, 1, bias=False)
        self.out = nn.Conv2d(heads * head_channels, channels, 1)
        self.out_norm = ChannelNorm(channels)

    def branch(self, x: Tensor, time: Tensor) -> Tensor:
        """What is added to ``x``."""
        qkv = self.qkv(self.film(self.norm(x), time))
        q, k, v = rearrange(qkv, "b (s h d) f t -> s b h (f t) d", s=3, h=self.heads)
        q = q.softmax(dim=-1) * q.shape[-1] ** -0.5
        context = k.mT.softmax(dim=-1) @ (v / v.shape[-2])  # (B, H, D, E)
        out = rearrange(q @ context, "b h (f t) e -> b f t (h e)", f=x.shape[2]).permute(0, 3, 1, 2)
        return self.out_norm(self.out(out))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return x + self.branch(x, time)


class FullAttention(nn.Module):
    """Softmax attention over all points, without time."""

    def __init__(self, channels: int, *, heads: int, head_channels: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = ChannelNorm(channels)
        self.qkv = nn.Conv2d(channels, 3 * heads * head_channels, 1, bias=False)
        self.out = nn.Conv2d(heads * head_channels, channels, 1)

    def branch(self, x: Tensor) -> Tensor:
        """What is added to ``x``."""
        q, k, v = rearrange(self.qkv(self.norm(x)), "b (s h d) f t -> s b h (f t) d", s=3, h=self.heads)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.out(rearrange(out, "b h (f t) d -> b (h d) f t", f=x.shape[2]))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class TimeAttention(nn.Module):
    """Attention between frames, each described by all its channels and rows (Wang et al., TF-GridNet, TASLP 2023).

    Queries and keys have ``ceil(features / rows)`` channels per head, values channels / heads. The channels of
    ``project`` are queries of all heads, keys of all heads, values of all heads.
    """

    def __init__(self, channels: int, rows: int, time_width: int, *, heads: int, features: int) -> None:
        super().__init__()
        self.heads = heads
        self.sizes = (heads * -(-features // rows),) * 2 + (channels,)
        self.film = Film(time_width, channels)
        self.project = nn.Conv2d(channels, sum(self.sizes), 1)
        self.slope = nn.Parameter(torch.full((3 * heads,), 0.25))
        self.gain = nn.Parameter(torch.ones(sum(self.sizes), rows))
        self.bias = nn.Parameter(torch.zeros(sum(self.sizes), rows))
        self.out = nn.Conv2d(channels, channels, 1)
        self.out_slope = nn.Parameter(torch.full((1,), 0.25))
        self.out_gain = nn.Parameter(torch.ones(channels, rows))
        self.out_bias = nn.Parameter(torch.zeros(channels, rows))

    def slopes(self) -> Tensor:
        """PReLU slope of each channel of ``project``."""
        slopes = self.slope.unflatten(0, (-1, self.heads))
        parts = zip(slopes, self.sizes, strict=True)
        return torch.cat([part.repeat_interleave(size // self.heads) for part, size in parts])

    def branch(self, x: Tensor, time: Tensor) -> Tensor:
        """What is added to ``x``."""
        y = F.prelu(self.project(self.film(x, time)), self.slopes().to(x.dtype))
        parts = zip(*(p.split(self.sizes, dim=d) for p, d in ((y, 1), (self.gain, 0), (self.bias, 0))), strict=True)
        q, k, v = (_normalise(part, gain, bias, self.heads) for part, gain, bias in parts)  # (B, H, T, F C)
        out = F.scaled_dot_product_attention(q, k, v)
        out = rearrange(out, "b h t (f c) -> b f t (h c)", f=x.shape[2]).permute(0, 3, 1, 2)
        out = F.prelu(self.out(out), self.out_slope.to(x.dtype))
        out = _normalise(out, self.out_gain, self.out_bias, 1)
        return rearrange(out, "b 1 t (f c) -> b c f t", f=x.shape[2])

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return x + self.branch(x, time)


def _normalise(x: Tensor, gain: Tensor, bias: Tensor, heads: int) -> Tensor:
    """(B, H C, F, T) -> (B, H, T, F C), normalised over the last axis, with gain and bias (H C, F)."""
    x = rearrange(x, "b (h c) f t -> b h t (f c)", h=heads)
    x = F.layer_norm(x, x.shape[-1:])
    gain, bias = (rearrange(p, "(h c) f -> h 1 (f c)", h=heads) for p in (gain, bias))
    return x * gain.to(x) + bias.to(x)
