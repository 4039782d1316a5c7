"""What tells the class of a separated spectrogram; it teaches the separator and is not part of the model."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from avsep_zoo.blocks.resnet import ResNet18Features

__all__ = ["SpectrogramClassifier"]


class SpectrogramClassifier(nn.Module):
    """ResNet-18 on one channel, pooled over all points: (R, 1, F', T) log magnitudes -> (R, classes) logits.

    Source: Chatterjee et al., Visual Scene Graphs for Audio Source Separation, ICCV 2021, section 3.4.

    Args:
        classes: number of classes, with the one for background.
        width: channels of the first ResNet stage.
        pooling: the largest value of each feature, or the average.
    """

    def __init__(self, *, classes: int, width: int = 64, pooling: Literal["max", "average"] = "max") -> None:
        super().__init__()
        if pooling not in ("max", "average"):
            raise ValueError(f"The pooling is {pooling!r}; give max or average.")
        self.pooling = pooling
        self.features = ResNet18Features(width=width, inputs=1)
        self.fc = nn.Linear(self.features.channels, classes)
        nn.init.normal_(self.fc.weight, 0.0, 0.02)

    def pool(self, spectrograms: Tensor) -> Tensor:
        """(R, 1, F', T) -> (R, features)."""
        maps: Tensor = self.features(spectrograms)
        return maps.amax(dim=(2, 3)) if self.pooling == "max" else maps.mean(dim=(2, 3))

    def forward(self, spectrograms: Tensor) -> Tensor:
        return self.fc(self.pool(spectrograms))
