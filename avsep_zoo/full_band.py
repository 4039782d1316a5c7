"""From the rate of a model to that of a recording: what the model hears, and how its mask acts on all of it.

The mask is carried over to the STFT of the recording: linearly interpolated in Hz and seconds, and above the
model's band (half its rate) continued with one value per frame, the energy-weighted mean of the mask over the
model's top octave. All channels get the same mask and keep their own phase.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from einops import rearrange
from scipy.fft import next_fast_len
from torch import Tensor

from avsep_zoo.media import resample

__all__ = ["FullBand"]


@dataclass(frozen=True)
class FullBand:
    """One segment at both rates: numbers are samples at the recording's rate unless they say otherwise.

    Args:
        rate: of the recording, in Hz.
        segment: length of a segment.
        n_fft, hop_length: of the recording's STFT: the model's window and hop in seconds.
        rows, weight: lower model row and share of the upper one, for each row of the recording's STFT in
            the model's band.
        columns, share: the same for frames.
        octave: first model row of the model's top octave.
        model_rate, model_length: rate in Hz and samples of the model's segment.
    """

    rate: int
    segment: int
    n_fft: int
    hop_length: int
    rows: Tensor
    weight: Tensor
    columns: Tensor
    share: Tensor
    octave: int
    model_rate: int
    model_length: int

    @classmethod
    def of(cls, front: Any, rate: int) -> Self:
        """Lay out the segments of a recording of ``rate`` Hz for a model's STFT front end."""
        scale = rate / front.rate
        segment = max(1, round(front.length * scale))
        n_fft = next_fast_len(max(16, 2 * round(front.n_fft * scale / 2)))
        n_fft += n_fft % 2
        hop_length = max(1, min(round(front.hop_length * scale), n_fft // 4))
        frequencies = torch.arange(n_fft // 2 + 1) * (rate / n_fft)
        place = frequencies[frequencies <= front.rate / 2] * (front.n_fft / front.rate)
        rows = place.floor().long().clamp_max(front.n_fft // 2 - 1)
        frames = front.length // front.hop_length + 1
        when = torch.arange(segment // hop_length + 1) * (hop_length / front.hop_length / scale)
        when = when.clamp_max(frames - 1)
        columns = when.floor().long().clamp_max(max(frames - 2, 0))
        return cls(
            rate=rate,
            segment=segment,
            n_fft=n_fft,
            hop_length=hop_length,
            rows=rows,
            weight=place - rows,
            columns=columns,
            share=when - columns,
            octave=front.n_fft // 4,
            model_rate=front.rate,
            model_length=front.length,
        )

    def listen(self, mixture: np.ndarray) -> np.ndarray:
        """What the model hears of (channels, n <= segment): mono at its rate (model_length,), zero padded.

        Of channels that cancel, the loudest is heard instead of their mean.
        """
        mono = mixture.mean(axis=0)
        powers = (mixture.astype(np.float64) ** 2).sum(axis=1)
        if (mono.astype(np.float64) ** 2).sum() < 1e-3 * powers.max():
            mono = mixture[int(powers.argmax())]
        mono = np.pad(mono, (0, self.segment - len(mono)))
        heard = resample(mono[None], self.rate, self.model_rate)[0][: self.model_length]
        return np.pad(heard, (0, self.model_length - len(heard)))

    def spread(self, mask: Tensor, magnitude: Tensor) -> Tensor:
        """Carry masks of the model over to the recording's STFT.

        Args:
            mask: (B, N, F, T).
            magnitude: (B, 1, F, T) of what the model heard.

        Returns:
            (B, N, F_R, T_R) for the rows and frames of the recording's segment.
        """
        device = mask.device
        energy = magnitude[:, :, self.octave :] ** 2 + 1e-12
        above = (mask[:, :, self.octave :] * energy).sum(dim=2, keepdim=True)
        above = above / energy.sum(dim=2, keepdim=True)  # (B, N, 1, T)
        rows, weight = self.rows.to(device), self.weight.to(device)[:, None]
        inside = mask[:, :, rows] * (1 - weight) + mask[:, :, rows + 1] * weight
        beyond = above.expand(-1, -1, self.n_fft // 2 + 1 - len(rows), -1)
        whole = torch.cat((inside, beyond), dim=2)  # (B, N, F_R, T)
        columns, share = self.columns.to(device), self.share.to(device)
        after = (columns + 1).clamp_max(mask.shape[-1] - 1)
        return whole[..., columns] * (1 - share) + whole[..., after] * share

    def apply(self, mixture: np.ndarray, mask: Tensor) -> np.ndarray:
        """Mask (N, F_R, T_R) a segment (channels, n <= segment): stems (N, channels, n)."""
        channels, samples = mixture.shape
        padded = torch.from_numpy(np.pad(mixture, ((0, 0), (0, self.segment - samples)))).to(mask.device)
        window = torch.hann_window(self.n_fft, device=mask.device)
        stft = torch.stft(
            padded,
            self.n_fft,
            self.hop_length,
            window=window,
            center=True,
            pad_mode="constant",
            return_complex=True,
        )
        masked = rearrange(mask[:, None] * stft, "n c f t -> (n c) f t")
        stems = torch.istft(masked, self.n_fft, self.hop_length, window=window, center=True, length=self.segment)
        return rearrange(stems, "(n c) s -> n c s", c=channels)[..., :samples].cpu().numpy()
