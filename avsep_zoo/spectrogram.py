"""Pictures of spectra and masks on one log-frequency, linear-time grid, as paletted PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

__all__ = [
    "MASK_COLOURS",
    "POWER_COLOURS",
    "Axes",
    "band_powers",
    "colour_bar",
    "mask_picture",
    "power_picture",
]

RANGE_DB = 80.0
WINDOW_SECONDS = 0.09

# Both maps rise evenly in lightness, so they also read in grey.
POWER_COLOURS = (
    (9, 9, 22),
    (43, 24, 94),
    (112, 33, 122),
    (190, 60, 98),
    (240, 124, 64),
    (252, 198, 100),
    (255, 251, 224),
)
MASK_COLOURS = ((12, 18, 30), (20, 70, 96), (38, 130, 138), (110, 188, 158), (196, 229, 188), (250, 253, 236))
NO_VALUE = (128, 128, 132)


@dataclass(frozen=True)
class Axes:
    """The grid of a picture: ``seconds`` from left to right, ``low`` to ``high`` Hz upwards, in pixels."""

    seconds: float
    low: float
    high: float
    columns: int
    rows: int = 240

    def frequency_edges(self) -> np.ndarray:
        """Return (rows + 1,) Hz, evenly spaced in log frequency."""
        return np.geomspace(self.low, self.high, self.rows + 1)

    def frequency_ticks(self) -> list[tuple[float, str]]:
        """Return (share of the height, label) of round frequencies in Hz."""
        values = [f for f in (20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4) if self.low <= f <= self.high]
        span = np.log(self.high / self.low)
        return [(float(np.log(f / self.low) / span), f"{f:g}" if f < 1000 else f"{f / 1000:g}k") for f in values]

    def time_ticks(self) -> list[tuple[float, str]]:
        """Return (share of the width, label) of at most 7 round times in seconds."""
        scale = 10.0 ** np.floor(np.log10(self.seconds))
        step = next(s for m in (0.2, 0.5, 1.0, 2.0) if self.seconds / (s := m * scale) <= 6)
        count = int(self.seconds / step + 1e-9)
        return [(i * step / self.seconds, f"{i * step:.6g}") for i in range(count + 1)]


def band_powers(waveform: np.ndarray, rate: int, axes: Axes) -> np.ndarray:
    """Return the power (rows, columns), row 0 lowest, of a (channels, samples) waveform: channel mean."""
    window = 2 ** max(4, round(np.log2(WINDOW_SECONDS * rate)))
    taper = np.hanning(window + 1)[:-1].astype(np.float32)
    samples = waveform.shape[1]
    starts = ((np.arange(axes.columns) + 0.5) * samples / axes.columns).astype(int)  # in the padded waveform
    power = np.zeros((window // 2 + 1, axes.columns), np.float32)
    for channel in waveform:
        padded = np.pad(channel, window // 2)
        spectrum = np.fft.rfft(np.lib.stride_tricks.sliding_window_view(padded, window)[starts] * taper)
        power += (np.abs(spectrum.T) / taper.sum()) ** 2 / len(waveform)  # (bins, columns)
    edges = (np.arange(len(power) + 1) - 0.5) * rate / window
    return regrid(power, edges, axes.frequency_edges())


def regrid(values: np.ndarray, edges: np.ndarray, new_edges: np.ndarray) -> np.ndarray:
    """Average (F, T) values of cells between ``edges`` over cells between ``new_edges``; NaN outside."""
    cumulative = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values * np.diff(edges)[:, None], axis=0)])
    position = np.interp(new_edges, edges, np.arange(len(edges)))
    below = np.minimum(position.astype(int), len(edges) - 2)
    share = (position - below)[:, None]
    integral = cumulative[below] * (1 - share) + cumulative[below + 1] * share
    inside = np.diff(np.clip(new_edges, edges[0], edges[-1]))
    covered = inside > 0.5 * np.diff(new_edges)
    mean = np.diff(integral, axis=0) / np.where(covered, inside, 1)[:, None]
    return np.where(covered[:, None], mean, np.nan)


def power_picture(power: np.ndarray, reference: float) -> bytes:
    """Draw (rows, columns) powers as PNG: ``reference`` is 0 dB, the brightest; -80 dB the darkest."""
    level = 10 * np.log10(np.maximum(power, 1e-30) / max(reference, 1e-20))
    return _png(level / RANGE_DB + 1, POWER_COLOURS)


def mask_picture(mask: np.ndarray, frequencies: np.ndarray, seconds: float, axes: Axes) -> bytes:
    """Draw a (F, T) mask in [0, 1] as PNG on ``axes``; grey where the mask says nothing.

    Args:
        frequencies: (F,) Hz of the rows, ascending.
        seconds: time from one column to the next.
    """
    times = (np.arange(mask.shape[1] + 1) - 0.5) * seconds
    times[0] = 0.0
    frames = int(np.searchsorted(times, axes.seconds)) + 1
    mask, times = mask[:, :frames], times[: frames + 1]
    times[-1] = max(times[-1], min(axes.seconds, times[-1] + seconds))
    middles = (frequencies[1:] + frequencies[:-1]) / 2
    edges = np.concatenate([[min(frequencies[0], axes.low)], middles, [2 * frequencies[-1] - middles[-1]]])
    rows = regrid(np.asarray(mask, np.float64), edges, axes.frequency_edges())
    picture = regrid(rows.T, times, np.linspace(0, axes.seconds, axes.columns + 1)).T
    return _png(picture, MASK_COLOURS)


def colour_bar(colours: Sequence[tuple[int, int, int]]) -> str:
    """Return the colour map as a CSS gradient, from 0 to 1."""
    stops = ", ".join(f"rgb({r} {g} {b})" for r, g, b in colours)
    return f"linear-gradient(to right, {stops})"


def _png(values: np.ndarray, colours: Sequence[tuple[int, int, int]]) -> bytes:
    """Encode (rows, columns) values in [0, 1] with the lowest row at the bottom; NaN is grey."""
    stops = np.linspace(0, 1, len(colours))
    levels = np.linspace(0, 1, 255)
    ramp = np.stack([np.interp(levels, stops, channel) for channel in np.transpose(colours)], axis=1)
    palette = np.concatenate([[NO_VALUE], ramp.round()]).astype(np.uint8)  # (256, 3)
    index = np.where(np.isnan(values), 0, 1 + np.clip(np.nan_to_num(values), 0, 1) * 254).round().astype(np.uint8)
    image = Image.fromarray(index[::-1])
    image.putpalette(palette.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
