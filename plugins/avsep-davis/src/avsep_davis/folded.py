"""The DAVIS U-Net for inference: the same function, with what no step changes computed once and less memory traffic.

What is linear is multiplied out beforehand: scale and shift of the time into the weights that follow, values and
output of an attention into its context. Maps are kept with channels last. On a CPU, items go through the wide levels
one by one and points through the attention in portions, so that what is worked on stays in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avsep_davis.attention import Film, LinearAttention, TimeAttention
from avsep_zoo.contracts import Bound

if TYPE_CHECKING:
    from avsep_davis.separator import DavisUNet, Down, Level, ResnetBlock, Up

__all__ = ["FoldedFrames", "FoldedPoints", "FoldedUNet"]

_MAP = 2**22  # numbers of a first-level map that a CPU works on at once, 16 MB; larger ones it would allocate anew
_POINTS = 2048  # that a CPU attends to at once

Step = Callable[[Tensor], Tensor]
"""A part of the network at one time: (B, C, F, T) -> (B, C', F', T')."""


class FoldedUNet:
    """The network of one batch of mixtures, when no gradient is needed and all items have the same time.

    Weights are read when it is built.

    Args:
        unet: whose function it is.
        mixture: (B N, 1, F', T').
        inject: the conditioner at the bottleneck.
    """

    def __init__(self, unet: DavisUNet, mixture: Tensor, inject: Bound) -> None:
        self.unet, self.mixture, self.inject = unet, mixture, inject
        self.downs = [_FoldedLevel(level) for level in unet.downs]
        self.ups = [_FoldedLevel(level) for level in unet.ups]
        self.middle_in, self.middle_out = (_FoldedBlock(b).at(None) for b in (unet.middle_in, unet.middle_out))
        self.last = _FoldedBlock(unet.last_block)
        self.group = len(mixture)
        if mixture.device.type == "cpu":
            points = mixture[0].numel() // unet.patch**2
            self.group = max(1, _MAP // (points * unet.first.out_channels))

    def __call__(self, noisy: Tensor, time: Tensor) -> Tensor:
        if len(time) > 1:
            return self.unet.predict(self.mixture, noisy, time, self.inject)
        clock = F.silu(self.unet.time(time))
        origins = self._origins(noisy)
        downs, ups = ([level.at(clock) for level in levels] for levels in (self.downs, self.ups))
        last = self.last.at(clock)
        bottoms: dict[int, Tensor] = {}
        skips: dict[int, list[Tensor]] = {}
        for group in _groups(sorted(set(origins)), self.group):
            pair = [torch.cat((self.mixture[item : item + 1], noisy[item : item + 1]), dim=1) for item in group]
            x = F.pixel_unshuffle(_joined(pair), self.unet.patch).contiguous(memory_format=torch.channels_last)
            x = self.unet.first(x)
            kept = [x]
            for features, resample in downs:
                kept.append(features(x))
                x = resample(kept[-1])
            for row, item in enumerate(group):
                bottoms[item] = x[row : row + 1]
                skips[item] = [one[row : row + 1] for one in kept]
        x = self.inject("bottleneck", _joined([bottoms[origin] for origin in origins]))
        x = self.middle_out(self.unet.middle_attention(self.middle_in(x)))
        outs = []
        for group in _groups(range(len(noisy)), self.group):
            y = x[group[0] : group[-1] + 1]
            merged = [_joined(list(one)) for one in zip(*(skips[origins[item]] for item in group), strict=True)]
            for features, resample in ups:
                y = resample(features(torch.cat((y, merged.pop()), dim=1)))
            outs.append(self.unet.last(last(torch.cat((y, merged.pop()), dim=1))))
        return self.unet.finished(_joined(outs), self.mixture)

    def _origins(self, noisy: Tensor) -> list[int]:
        """First of the items whose way to the bottleneck is that of an item: the sources may start from one noise."""
        origins = list(range(len(noisy)))
        for item in origins[1:]:
            if item % self.inject.sources and torch.equal(noisy[item], noisy[item - 1]):
                origins[item] = origins[item - 1]
        return origins


def _groups(items: Iterable[int], size: int) -> list[list[int]]:
    items = list(items)
    return [items[i : i + size] for i in range(0, len(items), size)]


def _joined(items: list[Tensor]) -> Tensor:
    return items[0] if len(items) == 1 else torch.cat(items)


def _scale_shift(film: Film, clock: Tensor) -> tuple[Tensor, Tensor]:
    """What ``film`` multiplies with and adds at this time: (C,) each."""
    scale, shift = film.linear(clock)[0].float().chunk(2)
    return scale + 1, shift


class _FoldedLevel:
    def __init__(self, level: Level) -> None:
        self.block, self.points = _FoldedBlock(level.block), FoldedPoints(level.points)
        self.frames, self.resample = FoldedFrames(level.frames), _folded_resample(level.resample)

    def at(self, clock: Tensor) -> tuple[Step, Step]:
        """Features and resampling at this time."""
        block, points, frames = (part.at(clock) for part in (self.block, self.points, self.frames))
        return lambda x: frames(points(block(x))), self.resample


def _folded_resample(module: Down | Up | nn.Conv2d) -> Step:
    if isinstance(module, nn.Conv2d):
        return module
    return module.folded()


class _FoldedBlock:
    def __init__(self, block: ResnetBlock) -> None:
        self.block = block
        convs = (block.conv1, block.conv2)
        self.weights = [c.standardised().contiguous(memory_format=torch.channels_last) for c in convs]

    def at(self, clock: Tensor | None) -> Step:
        gain: Tensor = self.block.norm1.weight
        bias: Tensor = self.block.norm1.bias
        if self.block.film is not None and clock is not None:
            scale, shift = _scale_shift(self.block.film, clock)
            gain, bias = gain * scale, bias * scale + shift
        return partial(self._run, gain, bias)

    def _run(self, gain: Tensor, bias: Tensor, x: Tensor) -> Tensor:
        block, groups = self.block, self.block.norm1.num_groups
        h = F.conv2d(x, self.weights[0], block.conv1.bias, padding=1)
        h = F.silu(_group_norm(h, groups, gain, bias), inplace=True)
        h = F.conv2d(h, self.weights[1], block.conv2.bias, padding=1)
        h = F.silu(_group_norm(h, groups, block.norm2.weight, block.norm2.bias), inplace=True)
        return h.add_(_mixed(block.shortcut, x) if isinstance(block.shortcut, nn.Conv2d) else x)


def _group_norm(x: Tensor, groups: int, gain: Tensor, bias: Tensor) -> Tensor:
    """Group norm of maps with channels last, in place; PyTorch's own leaves sixty times the rounding."""
    points = x.permute(0, 2, 3, 1).flatten(1, 2)
    portion = _POINTS if x.device.type == "cpu" else points.shape[1]
    squares = [part.square().sum(dim=1) for part in points.split(portion, dim=1)]
    mean, power = points.mean(dim=1), torch.stack(squares).sum(dim=0) / points.shape[1]  # (B, C)
    centre, power = (p.unflatten(1, (groups, -1)).mean(dim=2, keepdim=True) for p in (mean, power))
    scale = gain.unflatten(0, (groups, -1)) * (power - centre.square() + 1e-5).rsqrt()  # (B, G, C / G)
    shift = bias.unflatten(0, (groups, -1)) - centre * scale
    return torch.addcmul(shift.flatten(1)[..., None, None], x, scale.flatten(1)[..., None, None], out=x)


def _mixed(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A 1x1 convolution as a matrix product, which is faster where channels are last."""
    return F.linear(x.permute(0, 2, 3, 1), *_matrix(conv)).permute(0, 3, 1, 2)


def _matrix(conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Weight (O, C) and bias (O,) of a 1x1 convolution."""
    bias = conv.weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias
    return conv.weight[:, :, 0, 0], bias


class FoldedPoints:
    """:class:`LinearAttention` whose values and output are applied to the context, not to the points.

    ``softmax(k) v`` = (softmax(k) u) W_v for the normalised input u; a bias of k does not change its softmax.
    """

    def __init__(self, attention: LinearAttention) -> None:
        self.attention = attention

    def at(self, clock: Tensor) -> Step:
        attention = self.attention
        scale, shift = _scale_shift(attention.film, clock)
        plain, _ = _matrix(attention.qkv)
        query, key, value = (plain * (scale * attention.norm.gain)).chunk(3)
        query_bias, _, value_bias = (plain @ shift).chunk(3)
        return partial(self._run, query, key, value, query_bias, value_bias)

    def _run(
        self, query: Tensor, key: Tensor, value: Tensor, query_bias: Tensor, value_bias: Tensor, x: Tensor
    ) -> Tensor:
        attention, heads = self.attention, self.attention.heads
        points = x.permute(0, 2, 3, 1).flatten(1, 2)  # (B, P, C)
        portion = max(1, _POINTS // len(x)) if x.device.type == "cpu" else points.shape[1]
        parts = points.split(portion, dim=1)
        context = self._context(parts, key)  # (B, H D, C)
        context = context.unflatten(1, (heads, -1)) @ value.unflatten(0, (heads, -1)).mT
        context = (context + value_bias.unflatten(0, (heads, 1, -1))) / points.shape[1]  # (B, H, D, E)
        out, bias = _matrix(attention.out)
        out = context * context.shape[2] ** -0.5 @ out.unflatten(1, (heads, -1)).permute(1, 2, 0)
        out = out.flatten(1, 2)  # (B, H D, C)
        result = torch.empty_like(points)
        for part, place in zip(parts, result.split(portion, dim=1), strict=True):
            u = F.layer_norm(part, part.shape[-1:])
            q = F.linear(u, query, query_bias).unflatten(-1, (heads, -1)).softmax(dim=-1).flatten(-2)
            y = torch.baddbmm(bias, q, out)
            torch.add(part, F.layer_norm(y, y.shape[-1:], attention.out_norm.gain), out=place)
        return result.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)

    @staticmethod
    def _context(parts: Sequence[Tensor], key: Tensor) -> Tensor:
        """Mean of the normalised points, weighted by the softmax of each key over all of them: (B, H D, C)."""
        shape = len(parts[0]), len(key), 1
        top, total, context = (parts[0].new_full(shape, value) for value in (-torch.inf, 0.0, 0.0))
        for part in parts:
            u = F.layer_norm(part, part.shape[-1:])
            k = F.linear(u, key).float()
            new = torch.maximum(top, k.amax(dim=1)[..., None])
            weights, decay = k.sub_(new.mT).exp_(), (top - new).exp_()
            total = total * decay + weights.sum(dim=1)[..., None]
            context = context * decay + weights.mT @ u
            top = new
        return context / total


class FoldedFrames:
    """:class:`TimeAttention` on maps (channels, rows, frames), where heads are plain matrices."""

    def __init__(self, attention: TimeAttention) -> None:
        self.attention = attention
        self.slopes = attention.slopes()
        heads = attention.heads
        gains, biases = (
            [p.unflatten(0, (heads, -1)).flatten(1)[..., None] for p in whole.split(attention.sizes)]
            for whole in (attention.gain, attention.bias)
        )
        self.affine = list(zip(gains, biases, strict=True))  # (H, C F, 1) each
        self.out_affine = [p.mT[:, None].contiguous() for p in (attention.out_gain, attention.out_bias)]  # (F, 1, C)

    def at(self, clock: Tensor) -> Step:
        scale, shift = _scale_shift(self.attention.film, clock)
        weight, bias = _matrix(self.attention.project)
        return partial(self._run, weight * scale, (weight @ shift + bias)[:, None])

    def _run(self, weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
        attention, heads = self.attention, self.attention.heads
        batch, _, rows, frames = x.shape
        last = x.permute(0, 2, 3, 1)  # (B, F, T, C)
        y = torch.baddbmm(bias, weight.expand(batch, -1, -1), last.flatten(1, 2).mT)
        y = F.prelu(y, self.slopes.to(y.dtype)).unflatten(-1, (rows, frames))
        parts = [part.unflatten(1, (heads, -1)).flatten(2, 3) for part in y.split(attention.sizes, dim=1)]
        for part in parts:  # (B, H, C F, T)
            part.sub_(_mean(part, 2))
        deviations = [_deviation(part, 2) for part in parts]
        q, k = (
            part.div_(deviation).mul_(gain).add_(bias)
            for part, deviation, (gain, bias) in zip(parts[:2], deviations, self.affine, strict=False)
        )
        weights = (q.mT @ k * q.shape[2] ** -0.5).softmax(dim=-1)  # (B, H, T, T)
        gain, bias = self.affine[2]
        out = (parts[2] @ (weights / deviations[2]).mT).mul_(gain).add_(bias)
        out = out.unflatten(2, (-1, rows)).flatten(1, 2).flatten(2)  # (B, C, F T)
        weight, bias = _matrix(attention.out)
        out = torch.baddbmm(bias, out.mT, weight.mT.expand(batch, -1, -1))
        out = F.prelu(out, attention.out_slope.to(out.dtype)).unflatten(1, (rows, frames))
        out.sub_(_mean(out, 3, 1))
        gain, bias = self.out_affine
        out.div_(_deviation(out, 3, 1)).mul_(gain).add_(bias).add_(last)
        return out.permute(0, 3, 1, 2)


def _mean(x: Tensor, *dims: int) -> Tensor:
    """Mean over one axis after the other, which is faster than over both at once."""
    for dim in dims:
        x = x.mean(dim, keepdim=True)
    return x


def _deviation(centred: Tensor, *dims: int) -> Tensor:
    """What a layer norm divides by."""
    return (_mean(centred.square(), *dims) + 1e-5).sqrt()
