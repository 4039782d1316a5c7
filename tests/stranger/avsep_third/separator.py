"""A U-Net whose masks are more or less decided."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from avsep_zoo.blocks.unet import MaskUNet
from avsep_zoo.contracts import Bound

__all__ = ["SharpUNet"]


class SharpUNet(MaskUNet):
    """The core's mask U-Net with a learned factor of its logits."""

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self.sharpness = nn.Parameter(torch.ones(()))

    def logits(self, features: Tensor, inject: Bound) -> Tensor:
        """(B, 1, F', T) -> mask logits (B, N, F', T)."""
        return self.sharpness * super().logits(features, inject)
