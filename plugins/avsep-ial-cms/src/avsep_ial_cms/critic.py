"""The critic that tells pairs of sounds: do they belong to one recording, or were they drawn independently?

Source: Independency Adversarial Learning for Cross-Modal Sound Separation, AAAI 2024, section 3.3; spectral
normalisation: Miyato et al., ICLR 2018; geometric GAN: Lim and Ye, 2017.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from avsep_zoo.errors import CompositionError

__all__ = ["PairCritic", "critic_loss", "independence_loss"]


class PairCritic(nn.Module):
    """Scores (n, 1) of pairs of magnitude spectrograms (n, 2, F', T'): high where they are taken for independent.

    Each spectrogram of a pair goes through the same convolutions (spectrally normalised, as both layers behind them).
    In training every call runs one step of the power iteration, as published. All of it is computed in float32, also
    under autocast: scores are far apart only after long training, and a weight over a largest singular value that the
    iteration has not found yet overflows float16.

    Args:
        width: channels of the first of six convolutions; the next ones have 2, 4, 8, 16, 16 times as many.
    """

    def __init__(self, *, width: int = 64) -> None:
        super().__init__()
        channels = [1, *(width * 2**level for level in range(5)), 16 * width]
        self.convolutions = nn.ModuleList(_SpectralConv(c, d) for c, d in pairwise(channels))
        self.layers = nn.ModuleList((_SpectralLinear(32 * width, 16 * width), _SpectralLinear(16 * width, 16 * width)))
        self.score = nn.Linear(16 * width, 1, bias=False)
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, pairs: Tensor) -> Tensor:
        with torch.autocast(pairs.device.type, enabled=False):
            return self.score(self.features(pairs.to(self.bias.dtype))) + self.bias

    def features(self, pairs: Tensor) -> Tensor:
        """(n, 2, F', T') -> (n, 16 width).

        Raises:
            CompositionError: F' or T' is below 64, too small for six convolutions that halve it.
        """
        x = rearrange(self.sounds(rearrange(pairs, "n p f t -> (n p) 1 f t")), "(n p) c -> n (p c)", p=2)
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
        return x

    def sounds(self, spectrograms: Tensor) -> Tensor:
        """(m, 1, F', T') -> (m, 16 width); raises as :meth:`features`."""
        rows, frames = spectrograms.shape[2:]
        least = 2 ** len(self.convolutions)
        if min(rows, frames) < least:
            raise CompositionError(
                f"The critic needs spectrograms of {least} x {least} points or more and the model gives {rows} x "
                f"{frames}; change length, hop_length or warp_rows of the front end, or set independence of the "
                "objective to 0."
            )
        x = spectrograms
        for convolution in self.convolutions:
            x = F.leaky_relu(convolution(x), 0.2)
        return x.mean(dim=(2, 3))


def critic_loss(independent: Tensor, dependent: Tensor, weight: Tensor, *, margin_weight: float = 1.0) -> Tensor:
    """What the critic lowers: hinges of its scores (n, 1), and the squared norm of its last layer's ``weight``."""
    hinges = F.relu(1.0 - independent).mean() + F.relu(1.0 + dependent).mean()
    return weight.square().sum() + margin_weight * hinges


def independence_loss(independent: Tensor, dependent: Tensor) -> Tensor:
    """What the model lowers: how much more independent drawn pairs look to the critic than those of one recording."""
    return independent.mean() - dependent.mean()


class _Spectral(nn.Module):
    """A weight divided by its largest singular value, which one step of the power iteration per call follows."""

    weight: nn.Parameter
    left: Tensor
    right: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        rows = weight.flatten(1)
        self.register_buffer("left", F.normalize(torch.randn(rows.shape[0]), dim=0))
        self.register_buffer("right", F.normalize(torch.randn(rows.shape[1]), dim=0))

    def normalised(self) -> Tensor:
        rows = self.weight.flatten(1)
        if self.training:
            with torch.no_grad():
                self.right.copy_(F.normalize(rows.t().mv(self.left), dim=0, eps=1e-12))
                self.left.copy_(F.normalize(rows.mv(self.right), dim=0, eps=1e-12))
        # Copies: the vectors of this call must not be those that a later one leaves behind.
        largest = torch.dot(self.left.clone(), rows.mv(self.right.clone()))
        return self.weight / largest


class _SpectralConv(_Spectral):
    """4x4 convolution of stride 2 without bias."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        super().__init__(nn.Conv2d(incoming, outgoing, 4, bias=False).weight.detach())

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.normalised(), stride=2, padding=1)


class _SpectralLinear(_Spectral):
    def __init__(self, incoming: int, outgoing: int) -> None:
        drawn = nn.Linear(incoming, outgoing)
        super().__init__(drawn.weight.detach())
        self.bias = nn.Parameter(drawn.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.normalised(), self.bias)
