"""Another sample rate by a windowed sinc, differentiable: the resampler between estimates and CLAP."""

from __future__ import annotations

import functools
import math

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

__all__ = ["resample"]

_ZEROS = 6  # of the sinc on each side
_ROLLOFF = 0.99
_LARGEST = 2**24  # taps of all phases together


def resample(waveforms: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Resample (M, L) to (M, ceil(L to_rate / from_rate)).

    Source: Smith, Digital Audio Resampling, with a Hann window of 6 zero crossings and a cutoff at 0.99 of the lower
    Nyquist frequency, torchaudio's defaults; Mahmud et al., ICLR 2024, train through it.

    Args:
        waveforms: floating point; its type is kept.
        from_rate, to_rate: in Hz.

    Raises:
        ValueError: a rate is below 1, or they have so small a common divisor that the filter is too large.
    """
    if from_rate < 1 or to_rate < 1:
        raise ValueError(f"The rates are {from_rate} and {to_rate} Hz; give at least 1.")
    divisor = math.gcd(from_rate, to_rate)
    old, new = from_rate // divisor, to_rate // divisor
    if old == new:
        return waveforms
    reach = _reach(old, new)
    if new * (2 * reach + old) > _LARGEST:
        raise ValueError(f"{from_rate} and {to_rate} Hz share no large divisor; resample to a common rate first.")
    kernel = _kernel(old, new, waveforms.dtype, waveforms.device)
    padded = F.pad(waveforms, (reach, reach + old))
    phases = F.conv1d(padded[:, None], kernel, stride=old)
    length = -(-new * waveforms.shape[-1] // old)
    return rearrange(phases, "m p t -> m (t p)")[:, :length]


def _reach(old: int, new: int) -> int:
    """Samples that the filter reaches to each side."""
    return math.ceil(_ZEROS * old / (_ROLLOFF * min(old, new)))


@functools.lru_cache(8)
def _kernel(old: int, new: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The filter of each phase (new, 1, taps)."""
    with torch.inference_mode(False):
        base, reach = _ROLLOFF * min(old, new), _reach(old, new)
        taps = torch.arange(-reach, reach + old, dtype=torch.float64, device="cpu") / old
        phases = torch.arange(new, dtype=torch.float64, device="cpu") / new
        place = (base * (taps[None, :] - phases[:, None])).clamp(-_ZEROS, _ZEROS)
        window = torch.cos(math.pi * place / (2 * _ZEROS)).square()
        kernel = base / old * window * torch.sinc(place)
        return kernel[:, None].to(dtype).to(device)
