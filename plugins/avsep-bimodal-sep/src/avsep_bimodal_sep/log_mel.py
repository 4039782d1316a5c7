"""CLAP's log-mel spectrogram in torch, so that gradients pass through it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["LogMel"]

_N_FFT = 1024
_HOP = 480
_RATE = 48000
_BANDS = 64
_LOWEST, _HIGHEST = 50.0, 14000.0  # Hz
_FLOOR = 1e-10


class LogMel(nn.Module):
    """Waveforms at 48 kHz become 64 bands of 50 Hz to 14 kHz (Slaney's scale and norm), in dB of power.

    Source: LAION-CLAP's preprocessing.
    """

    window: Tensor
    mel: Tensor

    def __init__(self) -> None:
        super().__init__()
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_N_FFT) / _N_FFT)
        self.register_buffer("window", torch.from_numpy(window.astype(np.float32)), persistent=False)
        self.register_buffer("mel", torch.from_numpy(_mel().astype(np.float32)), persistent=False)

    def forward(self, waveforms: Tensor) -> Tensor:
        """(M, L) -> float32 (M, 1, L // 480 + 1, 64), from -100 dB up; L is at least 513."""
        with torch.autocast(waveforms.device.type, enabled=False):
            spectrum = torch.stft(waveforms.float(), _N_FFT, _HOP, window=self.window.float(), return_complex=True)
            power = spectrum.real.square() + spectrum.imag.square()
            bands = power.transpose(1, 2) @ self.mel.float()
            return 10 * bands.clamp_min(_FLOOR).log10()[:, None]


def _mel() -> np.ndarray:
    """Triangular bands of unit area (n_fft / 2 + 1, bands).

    Source: Slaney, Auditory Toolbox, 1998: linear below 1 kHz, logarithmic above.
    """
    bins = np.linspace(0, _RATE / 2, _N_FFT // 2 + 1)
    lowest, highest = _mels(np.array([_LOWEST, _HIGHEST]))
    edges = _hertz(np.linspace(lowest, highest, _BANDS + 2))
    low, tip, high = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (bins[:, None] - low) / (tip - low), (high - bins[:, None]) / (high - tip)
    triangles: np.ndarray = np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)
    return triangles


def _mels(hertz: np.ndarray) -> np.ndarray:
    return np.where(hertz < 1000, 3 * hertz / 200, 15 + 27 * np.log(np.maximum(hertz, 1000) / 1000) / np.log(6.4))


def _hertz(mels: np.ndarray) -> np.ndarray:
    return np.where(mels < 15, 200 * mels / 3, 1000 * np.exp(np.log(6.4) * (mels - 15) / 27))
