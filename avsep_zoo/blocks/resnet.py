"""ResNet-18 features (He et al., CVPR 2016) with torchvision's names, for any width, optionally dilated."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["BasicBlock", "ResNet18Features"]


class ResNet18Features(nn.Module):
    """ResNet-18 without pooling and classifier: (B, inputs, H, W) -> (B, 8 width, H / stride, W / stride).

    With ``width=64`` the entries are those of torchvision's ``resnet18`` up to ``layer4``, so its ImageNet
    weights load.

    Args:
        width: channels of the first stage.
        stride: 32, or 16 to dilate the last stage instead of striding it (its first 3x3 keeps dilation 1).
        inputs: channels of the input: 3 for pictures, 1 for spectrograms.
    """

    def __init__(self, *, width: int = 64, stride: Literal[16, 32] = 32, inputs: int = 3) -> None:
        super().__init__()
        self.channels = 8 * width
        self.conv1 = nn.Conv2d(inputs, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, stride=1)
        self.layer2 = _stage(width, 2 * width, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, stride=2)
        last = {32: (2, 1), 16: (1, 2)}[stride]
        self.layer4 = _stage(4 * width, 8 * width, stride=last[0], dilation=last[1])

    def forward(self, images: Tensor) -> Tensor:
        return self.stages(images)[-1]

    def stages(self, images: Tensor) -> list[Tensor]:
        """The outputs of the four stages: (B, width, H / 4, W / 4), (B, 2 width, H / 8, W / 8), ..."""
        x = F.relu(self.bn1(self.conv1(images)))
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        outputs = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            outputs.append(x)
        return outputs


def _stage(incoming: int, outgoing: int, *, stride: int, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(
        BasicBlock(incoming, outgoing, stride=stride, dilations=(1, dilation)),
        BasicBlock(outgoing, outgoing, stride=1, dilations=(dilation, dilation)),
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution where the shape changes.

    Args:
        incoming, outgoing: channels.
        stride: of the first convolution.
        dilations: of both.
        slope: of the leaky ReLUs below 0; 0 for ReLUs.
    """

    def __init__(
        self,
        incoming: int,
        outgoing: int,
        *,
        stride: int = 1,
        dilations: tuple[int, int] = (1, 1),
        slope: float = 0.0,
    ) -> None:
        super().__init__()
        self.slope = slope
        first, second = dilations
        self.conv1 = nn.Conv2d(incoming, outgoing, 3, stride=stride, padding=first, dilation=first, bias=False)
        self.bn1 = nn.BatchNorm2d(outgoing)
        self.conv2 = nn.Conv2d(outgoing, outgoing, 3, padding=second, dilation=second, bias=False)
        self.bn2 = nn.BatchNorm2d(outgoing)
        self.downsample: nn.Module | None = None
        if stride != 1 or incoming != outgoing:
            self.downsample = nn.Sequential(
                nn.Conv2d(incoming, outgoing, 1, stride=stride, bias=False), nn.BatchNorm2d(outgoing)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.leaky_relu(self.bn1(self.conv1(x)), self.slope)
        return F.leaky_relu(self.bn2(self.conv2(x)) + shortcut, self.slope)
