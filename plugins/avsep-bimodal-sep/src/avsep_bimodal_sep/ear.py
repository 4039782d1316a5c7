"""A small network that hears: sounds become vectors, in a space shared with texts."""

from __future__ import annotations

from itertools import pairwise

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Ear"]

_N_FFT = 1024
_HOP = 512
_BANDS = 64
_QUIET = 1e-5  # power below the loudest band that counts as silence


class Ear(nn.Module):
    """Log spectrogram in bands, four convolutions of stride 2 with batch norm, the mean over bands and frames.

    It is blind to the level of a sound, and its gradient reaches the waveform.

    Args:
        rate: sample rate in Hz of the sounds.
        width: channels of the first convolution; the next ones have 2, 4 and 4 times as many.
        features: D of the vectors.
    """

    window: Tensor
    bands: Tensor

    def __init__(self, *, rate: int, width: int, features: int) -> None:
        super().__init__()
        self.rate = rate
        channels = [1, width, 2 * width, 4 * width, 4 * width]
        self.convs = nn.ModuleList(nn.Conv2d(c, d, 3, stride=2, padding=1, bias=False) for c, d in pairwise(channels))
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for c in channels[1:])
        self.fc = nn.Linear(2 * channels[-1], features)
        self.register_buffer("window", torch.hann_window(_N_FFT), persistent=False)
        self.register_buffer("bands", _bands(rate), persistent=False)

    def forward(self, waveforms: Tensor) -> Tensor:
        """(M, L) at ``rate`` -> (M, D) of length 1. Sounds shorter than a window are padded with silence."""
        waveforms = F.pad(waveforms.float(), (0, max(0, _N_FFT - waveforms.shape[-1])))
        with torch.autocast(waveforms.device.type, enabled=False):
            power = torch.stft(waveforms, _N_FFT, _HOP, window=self.window, return_complex=True)
            power = torch.einsum("kf,mft->mkt", self.bands, power.real.square() + power.imag.square())
            loudest = power.detach().amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)
            x = (power / loudest + _QUIET).log()[:, None] / 4 + 1.5
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(conv(x)))
        x = rearrange(x, "m c k t -> m c (k t)")
        pooled = torch.cat((x.mean(dim=2), x.amax(dim=2)), dim=1)
        return F.normalize(self.fc(pooled).float(), dim=-1)


def _bands(rate: int) -> Tensor:
    """Triangles (bands, n_fft / 2 + 1) whose tips are equally far apart on the mel scale, from 40 Hz up."""

    def mel(hertz: Tensor) -> Tensor:
        return 2595 * torch.log10(1 + hertz / 700)

    bins = torch.linspace(0, rate / 2, _N_FFT // 2 + 1)
    edges = 700 * (10 ** (torch.linspace(mel(torch.tensor(40.0)), mel(bins[-1]), _BANDS + 2) / 2595) - 1)
    low, tip, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - low) / (tip - low), (high - bins) / (high - tip)
    triangles = torch.minimum(rising, falling).clamp_min(0)
    return triangles / triangles.sum(dim=1, keepdim=True).clamp_min(1e-6)
