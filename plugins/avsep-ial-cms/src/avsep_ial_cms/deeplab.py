"""DeepLab-style network: a picture becomes a map of unit vectors.

Source: Chen et al., Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation (DeepLabv3+),
ECCV 2018, as IAL-CMS (AAAI 2024) uses it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avsep_zoo.blocks.resnet import ResNet18Features

__all__ = ["DeepLab"]

_TWICE = 0.19  # 1 - 0.9 ** 2, two updates of momentum 0.1 with the same statistics


class DeepLab(nn.Module):
    """ResNet-18 of stride 16, atrous spatial pyramid pooling, a decoder that adds details of stride 8, a common space.

    (N, 3, H, W) -> (N, space, H / 8, W / 8), of unit length over its channels; H and W are multiples of 16.

    Published training runs the last two layers twice per step, with the same result where nothing is dropped, so the
    running statistics of their batch norm move twice; here they move twice as far at once.

    Args:
        width: channels of the first ResNet stage.
        pyramid: channels of each branch of the pyramid; its output has twice as many.
        dilations: of its 3x3 convolutions, behind that of the first branch, which is 1x1.
        details: channels that the stage of stride 8 is reduced to.
        space: channels of the decoder and of the map.
        frozen: train no ResNet parameter (its batch-norm statistics still move, as published).
    """

    def __init__(
        self,
        *,
        width: int = 64,
        pyramid: int = 256,
        dilations: Sequence[int] = (1, 3, 6, 9),
        details: int = 48,
        space: int = 512,
        frozen: bool = True,
    ) -> None:
        super().__init__()
        self.features = ResNet18Features(width=width, stride=16).requires_grad_(not frozen)
        deepest = self.features.channels
        self.branches = nn.ModuleList(
            _Branch(deepest, pyramid, 3 if number else 1, dilation) for number, dilation in enumerate(dilations)
        )
        self.overall = nn.Sequential(nn.Conv2d(deepest, pyramid, 1, bias=False), nn.BatchNorm2d(pyramid), nn.ReLU())
        merged = (len(dilations) + 1) * pyramid
        self.merge = nn.Sequential(
            nn.Conv2d(merged, 2 * pyramid, 1, bias=False), nn.BatchNorm2d(2 * pyramid), nn.ReLU()
        )
        for module in (*self.branches.modules(), *self.overall.modules(), *self.merge.modules()):
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        self.details = nn.Sequential(nn.Conv2d(2 * width, details, 1), nn.ReLU(), nn.BatchNorm2d(details))
        self.decoder = nn.Sequential(
            nn.Conv2d(2 * pyramid + details, space, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(space)
        )
        self.common = nn.Sequential(
            nn.Conv2d(space, space, 1), nn.ReLU(), nn.BatchNorm2d(space, momentum=_TWICE), nn.Conv2d(space, space, 1)
        )

    def forward(self, images: Tensor) -> Tensor:
        stages = self.features.stages(images)
        decoded = self.decode(self.pool(stages[3]), stages[1])
        return F.normalize(self.common(decoded).float(), dim=1, eps=1e-12)

    def pool(self, deep: Tensor) -> Tensor:
        """The pyramid: features of stride 16 (N, 8 width, h, w) -> (N, 2 pyramid, h, w)."""
        overall = self.overall(deep.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *deep.shape[2:])
        return self.merge(torch.cat([*(branch(deep) for branch in self.branches), overall], dim=1))

    def decode(self, pooled: Tensor, shallow: Tensor) -> Tensor:
        """Pooled features of stride 16 and those of the stage of stride 8 -> (N, space, H / 8, W / 8)."""
        finer = F.interpolate(pooled, size=shallow.shape[2:], mode="bilinear", align_corners=True)
        return self.decoder(torch.cat((finer, self.details(shallow)), dim=1))


class _Branch(nn.Module):
    """Convolution of one size (odd) and dilation, batch norm, leaky ReLU."""

    def __init__(self, incoming: int, outgoing: int, size: int, dilation: int) -> None:
        super().__init__()
        padding = dilation * (size // 2)
        self.conv = nn.Conv2d(incoming, outgoing, size, padding=padding, dilation=dilation, bias=False)
        self.norm = nn.BatchNorm2d(outgoing)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.norm(self.conv(x)), 0.01)
