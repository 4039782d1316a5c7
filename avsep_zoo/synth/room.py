"""What lies between an instrument and the file: room, microphone colour, noise floor and recording level."""

from __future__ import annotations

import numpy as np
import scipy

__all__ = ["record", "set_peak"]


def _impulse_response(rng: np.random.Generator, rate: int) -> np.ndarray:
    """Direct sound, a few early reflections and a decaying diffuse tail that loses its highs first."""
    decay = float(np.exp(rng.uniform(np.log(0.15), np.log(2.2))))  # seconds to -60 dB
    length = int(min(decay, 1.6) * rate)
    times = np.arange(length) / rate
    tail = np.zeros(length)
    for low, high, factor in (
        (60, 500, 1.15),
        (500, 3000, 1.0),
        (3000, 12000, float(rng.uniform(0.25, 0.8))),
    ):
        band = scipy.signal.butter(2, (low, high), "bandpass", fs=rate, output="sos")
        noise = scipy.signal.sosfilt(band, rng.standard_normal(length))
        tail += noise * 10 ** (-3 * times / (decay * factor))
    start = int(rng.uniform(0.002, 0.03) * rate)
    tail[:start] = 0
    for _ in range(int(rng.integers(2, 9))):
        tail[int(rng.integers(start, min(length, start + int(0.06 * rate))))] += rng.normal() * 4
    tail *= float(10 ** (rng.uniform(-16, 1) / 20)) / np.sqrt(np.sum(tail**2))
    tail[0] += 1.0
    return tail


def _colour(rng: np.random.Generator, sound: np.ndarray, rate: int) -> np.ndarray:
    """One to three broad peaks or dips of up to 9 dB."""
    for _ in range(int(rng.integers(1, 4))):
        centre = float(np.exp(rng.uniform(np.log(120), np.log(9000))))
        gain = 10 ** (float(rng.uniform(-9, 9)) / 40)
        w = 2 * np.pi * centre / rate
        alpha = np.sin(w) / (2 * float(rng.uniform(0.4, 1.6)))
        b = np.array((1 + alpha * gain, -2 * np.cos(w), 1 - alpha * gain))
        a = np.array((1 + alpha / gain, -2 * np.cos(w), 1 - alpha / gain))
        sound = scipy.signal.lfilter(b / a[0], a / a[0], sound)
    return sound


def set_peak(sound: np.ndarray, decibels: float) -> np.ndarray:
    """Scale so that the largest magnitude lies at ``decibels`` below full scale; silence stays silence."""
    peak = float(np.max(np.abs(sound), initial=0.0))
    return sound if peak == 0 else sound * (10 ** (-abs(decibels) / 20) / peak)


def record(rng: np.random.Generator, sound: np.ndarray, rate: int) -> np.ndarray:
    """A dry sound as a microphone in a room hears it: float32 [samples], peak between -14 and -1 dBFS."""
    sound = sound.astype(np.float64)
    length = len(sound)
    if rng.random() < 0.6:
        sound = scipy.signal.oaconvolve(sound, _impulse_response(rng, rate))[:length]
    if rng.random() < 0.7:
        sound = _colour(rng, sound, rate)
    if rng.random() < 0.4:
        floor = 10 ** (float(rng.uniform(-75, -48)) / 20) * np.max(np.abs(sound), initial=0.0)
        sound = sound + floor * rng.standard_normal(length)
    return set_peak(sound, float(rng.uniform(1, 14))).astype(np.float32)
