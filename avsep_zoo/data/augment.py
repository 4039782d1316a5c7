"""Make one clean recording sound like many: speed, equaliser, room, level; a given generator draws."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from scipy import fft

__all__ = ["Augmentation", "background"]


@dataclass(frozen=True)
class Augmentation:
    """How far training sounds are varied; every field at 0 changes nothing.

    Args:
        semitones: largest change of speed (pitch and tempo together), in semitones up or down.
        gain: largest change of level, in dB up or down.
        factor: largest change of level by a factor drawn from 1 - ``factor`` to 1 + ``factor``, in [0, 1]; the sound is
            clipped to [-1, 1] then (0.5 in the published co-separation and AVSGS).
        equaliser: largest gain in dB at each of eight bands spaced by the logarithm of frequency.
        room: share of sounds put into a simulated room (exponentially decaying noise, RT60 0.1 to 1 s).
        noise: share of mixtures with coloured noise under them, 15 to 45 dB below.
        silence: share of sources that are silent.
        drop_frames: share of cues without frames.
        drop_label: share of the other cues without label.
    """

    semitones: float = 0.0
    gain: float = 0.0
    factor: float = 0.0
    equaliser: float = 0.0
    room: float = 0.0
    noise: float = 0.0
    silence: float = 0.0
    drop_frames: float = 0.0
    drop_label: float = 0.0

    def speed(self, rng: np.random.Generator) -> float:
        """Factor the sound is played faster by."""
        return float(2 ** (rng.uniform(-self.semitones, self.semitones) / 12))

    def colour(self, sound: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
        """Equalise, put into a room, scale and perhaps clip a (samples,) sound; its length stays."""
        equalised, roomy = self.equaliser > 0, rng.random() < self.room
        if equalised or roomy:
            size = fft.next_fast_len(len(sound) + rate // 2, real=True)
            spectrum = fft.rfft(sound, size)
            if equalised:
                spectrum *= _equaliser(size, rate, self.equaliser, rng)
            if roomy:
                spectrum *= fft.rfft(_room(rate, rng), size)
            sound = fft.irfft(spectrum, size)[: len(sound)].astype(np.float32)
        sound = sound * np.float32(10 ** (rng.uniform(-self.gain, self.gain) / 20))
        if self.factor:
            sound = (sound * np.float32(rng.uniform(1 - self.factor, 1 + self.factor))).clip(-1.0, 1.0)
        return sound


def background(samples: int, level: float, rng: np.random.Generator) -> np.ndarray:
    """Noise (samples,) between white and brown, 15 to 45 dB below the RMS ``level``."""
    spectrum = fft.rfft(rng.standard_normal(samples).astype(np.float32))
    slope = rng.uniform(0, 1.2)
    spectrum *= (np.arange(len(spectrum)) + 10.0) ** -slope
    noise = fft.irfft(spectrum, samples)
    noise *= level * 10 ** (-rng.uniform(15, 45) / 20) / max(float(noise.std()), 1e-9)
    return noise.astype(np.float32)


@functools.cache
def _log_frequencies(size: int, rate: int) -> np.ndarray:
    return np.log(np.fft.rfftfreq(size, 1 / rate) + 40.0)


def _equaliser(size: int, rate: int, span: float, rng: np.random.Generator) -> np.ndarray:
    frequencies = _log_frequencies(size, rate)
    bands = np.linspace(frequencies[0], frequencies[-1], 8)
    gains = rng.uniform(-span, span, len(bands)) / 20
    curve = np.interp(np.linspace(bands[0], bands[-1], 512), bands, 10 ** (gains - gains.mean()))
    place = (frequencies - bands[0]) * (511 / (bands[-1] - bands[0]))
    return curve.astype(np.float32)[place.round().astype(np.int32)]


def _room(rate: int, rng: np.random.Generator) -> np.ndarray:
    """Impulse response (rate / 2,): a direct path, then decaying noise of -12 to 3 dB of its energy."""
    decay = rng.uniform(0.1, 1.0)
    time = np.arange(rate // 2) / rate
    tail = rng.standard_normal(rate // 2) * 10 ** (-3 * time / decay) * (time > rng.uniform(0.001, 0.02))
    tail *= 10 ** (rng.uniform(-12, 3) / 20) / max(float(np.sqrt((tail**2).sum())), 1e-9)
    tail[0] = 1.0
    return tail.astype(np.float32)
