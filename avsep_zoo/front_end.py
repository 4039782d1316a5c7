"""STFT front end with an optional log-frequency warp (Sound of Pixels, Zhao et al., ECCV 2018, section 4.1).

The warp resamples the frequency axis so that rows are spaced by the logarithm of ``10 f + 1`` (in units of the
band): low notes get more rows than a linear axis gives them. The published code draws the sampling grid for
corner alignment but samples without it (``align_corners=False``), which mixes the border rows and columns
half with zero; that is the default here because published weights expect it.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from avsep_zoo.contracts import Estimate, FrontEnd, Spectrum

__all__ = ["StftFrontEnd", "warp_grid"]

_FLOOR = 1e-10
_QUIETEST = 1e-12  # below what the warp leaves of _FLOOR at a border, a quarter
_LOUDEST = 40.0  # logarithm of a magnitude: far above any, and no float32 overflows behind it


def warp_grid(rows: int, columns: int, *, inverse: bool = False) -> Tensor:
    """Return the sampling grid (rows, columns, 2) of the log-frequency warp, coordinates (x, y) in [-1, 1].

    Args:
        rows: frequency rows of the output.
        columns: frames.
        inverse: from log-frequency back to linear.
    """
    v = np.linspace(-1.0, 1.0, rows)
    y = 2 * np.log(10 * v + 11) / math.log(21) - 1 if inverse else (21 ** ((v + 1) / 2) - 11) / 10
    x = np.linspace(-1.0, 1.0, columns)
    grid = np.stack(np.broadcast_arrays(x[None, :], y[:, None]), axis=-1)
    return torch.from_numpy(grid.astype(np.float32))


class StftFrontEnd(FrontEnd):
    """Log-magnitude STFT, warped to a logarithmic frequency axis; masks are unwarped on the way back.

    Args:
        rate: sample rate in Hz of the model.
        length: samples of one segment; a whole number of frames for the separator.
        n_fft: window (periodic Hann) and FFT length; F = n_fft / 2 + 1 rows.
        hop_length: samples between frames; T = 1 + length // hop_length.
        warp_rows: rows F' of the warped axis, or 0 for no warp.
        pad_mode: ``constant`` (librosa >= 0.9) or ``reflect`` (older librosa, which the papers may have used).
        align_corners: sample the warp as its grid was meant; False reproduces the published code.
        warp_frames: frames T' that the warp resamples the time axis to, or 0 to keep T.
        log_scale: factor of ``log(1 + magnitude)``, which is clamped to [0, 1] then; None leaves the logarithm alone.
        level: scale each segment so that its mean magnitude is ``level`` before the logarithm, which makes the
            network blind to the recording level; None leaves the level as it is (published code).
        log_offset: features are ``log(magnitude + log_offset)``. 1.0 (Sound of Pixels) makes them 0 for silence and
            never negative. 0.0 (AVSGS, Chatterjee et al., ICCV 2021) is the plain natural logarithm: negative below a
            magnitude of 1, about -23 for silence, and features are as far apart as levels in decibels are.

    Raises:
        ValueError: ``warp_frames`` without a warp, a negative ``log_offset``, or one other than 1 with ``log_scale``.
    """

    window: Tensor

    def __init__(
        self,
        *,
        rate: int = 11025,
        length: int = 65535,
        n_fft: int = 1022,
        hop_length: int = 256,
        warp_rows: int = 256,
        pad_mode: Literal["constant", "reflect"] = "constant",
        align_corners: bool = False,
        warp_frames: int = 0,
        log_scale: float | None = None,
        level: float | None = None,
        log_offset: float = 1.0,
    ) -> None:
        super().__init__()
        self.rate, self.length, self.n_fft, self.hop_length = rate, length, n_fft, hop_length
        self.warp_rows, self.pad_mode, self.align_corners, self.level = warp_rows, pad_mode, align_corners, level
        if warp_frames and not warp_rows:
            raise ValueError(f"warp_frames is {warp_frames} without a warp; give warp_rows, too.")
        if not 0.0 <= log_offset < math.inf:
            raise ValueError(f"log_offset is {log_offset}; give a number from 0, e.g. 1 for log(1 + magnitude).")
        if log_scale is not None and log_offset != 1.0:
            raise ValueError(
                f"log_offset is {log_offset} with log_scale {log_scale}, which scales log(1 + magnitude) to [0, 1]; "
                "leave one of them out."
            )
        self.warp_frames, self.log_scale, self.log_offset = warp_frames, log_scale, log_offset
        self.frequency_rows = n_fft // 2 + 1
        self.register_buffer("window", torch.hann_window(n_fft, device="cpu"), persistent=False)

    def stft(self, waveform: Tensor) -> Tensor:
        """Complex STFT (..., F, T) of waveforms (..., L): centred, not normalised."""
        flat = waveform.reshape(-1, waveform.shape[-1])
        spectrum = torch.stft(
            flat,
            self.n_fft,
            self.hop_length,
            window=self.window.to(flat.dtype),
            center=True,
            pad_mode=self.pad_mode,
            return_complex=True,
        )
        return spectrum.reshape(*waveform.shape[:-1], *spectrum.shape[-2:])

    def istft(self, spectrum: Tensor, length: int | None = None) -> Tensor:
        """Waveforms (..., L) of complex spectra (..., F, T); L defaults to hop_length (T - 1)."""
        flat = spectrum.reshape(-1, *spectrum.shape[-2:])
        window = self.window.to(spectrum.real.dtype)
        waveform = torch.istft(flat, self.n_fft, self.hop_length, window=window, center=True, length=length)
        return waveform.reshape(*spectrum.shape[:-2], waveform.shape[-1])

    def warp(self, magnitude: Tensor) -> Tensor:
        """(B, C, F, T) -> (B, C, F', T')."""
        if not self.warp_rows:
            return magnitude
        return self._sample(magnitude, warp_grid(self.warp_rows, self.warp_frames or magnitude.shape[-1]))

    def unwarp(self, mask: Tensor, frames: int | None = None) -> Tensor:
        """(B, C, F', T') -> (B, C, F, T); T is ``frames``, or T' where that is None."""
        if not self.warp_rows:
            return mask
        return self._sample(mask, warp_grid(self.frequency_rows, frames or mask.shape[-1], inverse=True))

    def compress(self, warped: Tensor) -> Tensor:
        """Warped magnitudes -> features. With ``log_offset`` 0, a magnitude below 1e-12 counts as 1e-12."""
        if self.log_offset == 0.0:
            return warped.clamp_min(_QUIETEST).log()
        features = torch.log1p(warped) if self.log_offset == 1.0 else (warped + self.log_offset).log()
        return features if self.log_scale is None else (self.log_scale * features).clamp(0.0, 1.0)

    def expand(self, features: Tensor) -> Tensor:
        """Features -> warped magnitudes.

        With ``log_offset`` 1 the sign of a feature does not count; with others it does, and what lies below the
        feature of silence is silence, too.
        """
        if self.log_offset != 1.0:
            return (features.clamp_max(_LOUDEST).exp() - self.log_offset).clamp_min(0.0)
        return torch.expm1((features.abs() / (self.log_scale or 1.0)).clamp_max(_LOUDEST))

    def features(self, magnitude: Tensor, gain: Tensor | None = None) -> Tensor:
        """Features (B, C, F', T') of linear magnitudes (B, C, F, T), e.g. of sources with the gain of their mixture."""
        return self.compress(self.warp(magnitude if gain is None else magnitude * gain))

    def _sample(self, image: Tensor, grid: Tensor) -> Tensor:
        grid = grid.to(image).expand(image.shape[0], -1, -1, -1)
        return F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=self.align_corners)

    def analyse(self, waveform: Tensor) -> Spectrum:
        """Analyse (B, L) waveforms at ``rate``; the gradient does not flow into the features."""
        spectrum = self.stft(waveform)[:, None]  # (B, 1, F, T)
        magnitude = spectrum.abs()
        phase = torch.polar(torch.ones_like(magnitude), spectrum.angle())
        return self.from_magnitude(magnitude, phase)

    def from_magnitude(self, magnitude: Tensor, phase: Tensor | None = None) -> Spectrum:
        """Build the spectrum of a mixture from its linear magnitude (B, 1, F, T)."""
        with torch.no_grad():
            gain = None
            scaled = magnitude + _FLOOR
            if self.level is not None:
                gain = self.level / scaled.mean(dim=(1, 2, 3), keepdim=True).clamp_min(1e-6)
                scaled = scaled * gain
            warped = self.warp(scaled)
            features = warped
            if 0.0 < self.log_offset < 1.0:  # which is the only floor then, as published (IAL-CMS)
                features = (warped - (_FLOOR if gain is None else _FLOOR * gain)).clamp_min(0.0)
            return Spectrum(self.compress(features), warped, magnitude, phase, gain)

    def mask(self, estimate: Estimate, spectrum: Spectrum) -> Tensor:
        """Linear-frequency masks (B, N, F, T) of an estimate, for sources as loud as they are in the mixture."""
        if estimate.kind == "mask":
            return self.unwarp(estimate.values, spectrum.magnitude.shape[-1])
        return self.linear_magnitude(estimate, spectrum) / (estimate.loudness * spectrum.magnitude.clamp_min(_FLOOR))

    def warped_mask(self, estimate: Estimate, spectrum: Spectrum) -> Tensor:
        """The same on the warped axes (B, N, F', T')."""
        if estimate.kind == "mask":
            return estimate.values
        magnitude = self.expand(estimate.values) if estimate.kind == "features" else estimate.values
        return magnitude / (estimate.loudness * spectrum.warped.clamp_min(_FLOOR))

    def linear_magnitude(self, estimate: Estimate, spectrum: Spectrum) -> Tensor:
        """Linear magnitudes (B, N, F, T), as loud as they were estimated."""
        if estimate.kind == "mask":
            return self.unwarp(estimate.values, spectrum.magnitude.shape[-1]) * spectrum.magnitude
        warped = self.expand(estimate.values) if estimate.kind == "features" else estimate.values
        magnitude = self.unwarp(warped, spectrum.magnitude.shape[-1])
        return magnitude if spectrum.gain is None else magnitude / spectrum.gain

    def synthesise(self, estimate: Estimate, spectrum: Spectrum, *, length: int | None = None) -> Tensor:
        """Waveforms (B, N, L') of an estimate with the mixture's phase, clipped to [-1, 1].

        L' is ``length``, or hop_length (T - 1).
        """
        if spectrum.phase is None:
            raise ValueError("The spectrum was made from magnitudes and has no phase; analyse a waveform instead.")
        return self.istft(self.linear_magnitude(estimate, spectrum) * spectrum.phase, length).clamp(-1.0, 1.0)

    def column_seconds(self) -> float:
        """Seconds from one column of features to the next."""
        frames = 1 + self.length // self.hop_length
        stretch = (frames - 1) / (self.warp_frames - 1) if self.warp_frames else 1.0
        return stretch * self.hop_length / self.rate

    def row_frequencies(self) -> np.ndarray:
        """Frequency in Hz of each row (F',) of the mask's domain."""
        if not self.warp_rows:
            return np.linspace(0.0, self.rate / 2, self.frequency_rows)
        y = warp_grid(self.warp_rows, 1)[:, 0, 1].numpy()
        return (y + 1) / 2 * self.rate / 2
