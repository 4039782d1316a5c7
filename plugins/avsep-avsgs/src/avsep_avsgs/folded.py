"""The co-separation U-Net for inference: the same function, with what does not depend on the input computed once.

Batch norms are multiplied into the convolutions before them. What the mixture's own features contribute to an up level
is computed once for all its sources, as a transposed convolution of concatenated maps is the sum of two. Maps are
(B, H, W, C) here. On a CPU, wide layers take :mod:`avsep_avsgs.fast_conv` and small ones a plain matrix product, and a
few maps at a time go through the outer levels, so that what is worked on stays in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avsep_avsgs.fast_conv import FastConv, FastTransposed, SmallTransposed
from avsep_zoo.contracts import Bound

if TYPE_CHECKING:
    from avsep_avsgs.separator import CoSeparationUNet

__all__ = ["FoldedUNet", "foldable", "folded", "forget"]

_MAP = 2**21  # numbers of a level's maps that a CPU works on at once, 8 MB; larger ones it would allocate anew
_CHANNELS, _POINTS = 64, 64  # of a layer's input, from which fast_conv is faster
_KINDS = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)

_cache: WeakKeyDictionary[CoSeparationUNet, tuple[tuple[object, ...], FoldedUNet]] = WeakKeyDictionary()


def foldable(unet: CoSeparationUNet, features: Tensor) -> bool:
    """Whether a network does now what its weights say.

    It is evaluated without gradients in full precision, is conditioned nowhere but at the bottleneck, and its layers
    are neither adapted (LoRA) nor watched by hooks.
    """
    if torch.is_grad_enabled() or torch.is_autocast_enabled(features.device.type):
        return False
    modules = [module for module in unet.modules() if module is not unet]
    levels: list[Any] = [*unet.down, *unet.up]
    layers = [layer for level in levels for layer in (level.conv, level.norm) if layer is not None]
    return (
        unet.conditioned <= {"bottleneck"}
        and all(type(layer) in _KINDS for layer in layers)
        and not any(m.training or m._forward_hooks or m._forward_pre_hooks for m in modules)
        and features.dtype in (torch.float32, torch.float64)
        and all(parameter.dtype == features.dtype for parameter in unet.parameters())
    )


def folded(unet: CoSeparationUNet, rows: int, frames: int) -> FoldedUNet:
    """The folded network for features of this size; it is kept until the weights change."""
    tensors = [*unet.parameters(), *unet.buffers()]
    versions = (-1 if tensor.is_inference() else tensor._version for tensor in tensors)
    key = (rows, frames, *(tensor.data_ptr() for tensor in tensors), *versions)
    known = _cache.get(unet)
    if known is None or known[0] != key:
        known = _cache[unet] = key, FoldedUNet(unet, rows, frames)
    return known[1]


def forget(unet: CoSeparationUNet) -> None:
    """Let go of the folded network."""
    _cache.pop(unet, None)


class FoldedUNet:
    """The network in evaluation mode, with the weights that ``unet`` has when this is built.

    Args:
        unet: whose function it is; conditioned nowhere but at the bottleneck.
        rows, frames: F' and T of the features.
    """

    @torch.no_grad()
    def __init__(self, unet: CoSeparationUNet, rows: int, frames: int) -> None:
        sizes = [(rows >> number, frames >> number) for number in range(1, unet.levels + 1)]
        downs: list[Any] = list(unet.down)
        ups: list[Any] = list(unet.up)
        channels: list[int] = [level.conv.out_channels for level in downs]
        skips = [0, *channels[-2::-1]]
        self.downs = [_down(level.conv, level.norm, size) for level, size in zip(downs, sizes, strict=True)]
        self.ups = [
            _Up(level.conv, level.norm, skip, size) for level, skip, size in zip(ups, skips, sizes[::-1], strict=True)
        ]
        self.numbers = [c * tall * wide for c, (tall, wide) in zip(channels, sizes, strict=True)]

    @torch.no_grad()
    def __call__(self, features: Tensor, inject: Bound) -> Tensor:
        """(B, 1, F', T) -> mask logits (B, N, F', T)."""
        batch = len(features)
        outer, group = self._portions(features)
        portions = [_descend(maps, self.downs[:outer]) for maps in features.permute(0, 2, 3, 1).split(group)]
        inner = _descend(torch.cat([maps[-1] for maps in portions]), self.downs[outer:])
        x = inject("bottleneck", inner.pop().permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        sources, depth = len(x) // batch, len(self.ups) - outer
        x = _ascend(x, self.ups[:depth], [None, *inner[:0:-1]])
        small = max(1, group // sources)
        skips = [[one for maps in portions for one in maps[level].split(small)] for level in range(outer, 0, -1)]
        parts = [
            _ascend(part, self.ups[depth:], own)
            for part, *own in zip(x.split(small * sources if outer else len(x)), *skips, strict=True)
        ]
        logits = torch.cat(parts).unflatten(0, (batch, sources)).squeeze(4)
        return logits.expand(-1, inject.sources, -1, -1)

    def _portions(self, features: Tensor) -> tuple[int, int]:
        """How many outer levels only a few maps go through at a time, and how many maps."""
        batch = len(features)
        outer = sum(number * batch >= _MAP for number in self.numbers[:-1]) if features.device.type == "cpu" else 0
        return outer, max(1, _MAP // self.numbers[0]) if outer else batch


def _descend(x: Tensor, levels: Sequence[Callable[[Tensor], Tensor]]) -> list[Tensor]:
    """What arrives at each level, and what leaves the last."""
    maps = [x]
    for level in levels:
        maps.append(level(maps[-1]))
    return maps


def _ascend(x: Tensor, levels: Sequence[_Up], skips: Sequence[Tensor | None]) -> Tensor:
    for level, skip in zip(levels, skips, strict=True):
        x = level(x, skip)
    return x


class _Transposed(Protocol):
    """A transposed convolution whose input comes in parts: ``drop`` of the sum of what they contribute."""

    def lift(self, x: Tensor, part: int) -> Tensor: ...

    def drop(self, lifted: Tensor, rows: int, columns: int, lowest: float | None = None) -> Tensor: ...


class _PlainTransposed:
    def __init__(self, weight: Tensor, bias: Tensor, parts: Sequence[int]) -> None:
        self.weights = [part.contiguous(memory_format=torch.channels_last) for part in weight.split(list(parts))]
        self.bias = bias

    def lift(self, x: Tensor, part: int) -> Tensor:
        bias = None if part else self.bias
        y = F.conv_transpose2d(x.permute(0, 3, 1, 2), self.weights[part], bias, stride=2, padding=1)
        return y.permute(0, 2, 3, 1).flatten(1, 2)[None]

    def drop(self, lifted: Tensor, rows: int, columns: int, lowest: float | None = None) -> Tensor:
        return lifted[0].unflatten(1, (2 * rows, 2 * columns)).clamp_(min=-torch.inf if lowest is None else lowest)


class _Up:
    """An up level: what is below, of each source, and the features of the mixture."""

    def __init__(self, conv: nn.ConvTranspose2d, norm: nn.BatchNorm2d | None, skip: int, size: tuple[int, int]) -> None:
        weight, bias = _folded(conv, norm)
        parts = [len(weight) - skip, skip][: 2 if skip else 1]
        self.conv: _Transposed
        if weight.device.type != "cpu":
            self.conv = _PlainTransposed(weight, bias, parts)
        elif prod(size) < _POINTS or weight.shape[1] == 1:
            self.conv = SmallTransposed(weight, bias, parts)
        elif min(parts) >= _CHANNELS:
            self.conv = FastTransposed(weight, bias, parts)
        else:
            self.conv = _PlainTransposed(weight, bias, parts)
        self.lowest = None if norm is None else 0.0  # ReLU

    def __call__(self, x: Tensor, skip: Tensor | None) -> Tensor:
        """(B N, H, W, C) of the sources and (B, H, W, C') of their mixtures -> (B N, 2 H, 2 W, C'')."""
        lifted = self.conv.lift(x, 0)
        if skip is not None:
            lifted.unflatten(1, (len(skip), -1)).add_(self.conv.lift(skip, 1)[:, :, None])
        return self.conv.drop(lifted, x.shape[1], x.shape[2], self.lowest)


def _down(conv: nn.Conv2d, norm: nn.BatchNorm2d, size: tuple[int, int]) -> Callable[[Tensor], Tensor]:
    """A down level, whose output has this size."""
    weight, bias = _folded(conv, norm)
    if weight.device.type == "cpu" and prod(size) >= 4 * _POINTS and weight.shape[1] >= 2 * _CHANNELS:
        fast = FastConv(weight, bias)
        return lambda x: F.leaky_relu_(fast(x), 0.2)
    weight = weight.contiguous(memory_format=torch.channels_last)

    def plain(x: Tensor) -> Tensor:
        y = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, stride=2, padding=1)
        return F.leaky_relu_(y, 0.2).permute(0, 2, 3, 1)

    return plain


def _folded(conv: nn.Conv2d | nn.ConvTranspose2d, norm: nn.BatchNorm2d | None) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution with the batch norm behind it."""
    bias = conv.weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias
    if norm is None or norm.running_mean is None or norm.running_var is None:
        return conv.weight.detach(), bias.detach()
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    shape = (1, -1, 1, 1) if isinstance(conv, nn.ConvTranspose2d) else (-1, 1, 1, 1)
    return conv.weight * scale.view(shape), (bias - norm.running_mean) * scale + norm.bias
