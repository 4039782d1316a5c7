"""Sounds that are varied, and noise under mixtures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from avsep_zoo.data.augment import Augmentation, background


def sine(frequency: float, seconds: float, rate: int = 11025) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def test_nothing_is_changed_by_default() -> None:
    sound, rng = sine(440, 1), np.random.default_rng(0)
    assert Augmentation().speed(rng) == 1.0
    np.testing.assert_array_equal(Augmentation().colour(sound, 11025, rng), sound)


def repeated(draw: Callable[[np.random.Generator], float]) -> np.ndarray:
    return np.array([draw(np.random.default_rng(seed)) for seed in range(60)])


def test_speed_and_level_spread_over_their_range() -> None:
    speeds = 12 * np.log2(repeated(Augmentation(semitones=2).speed))
    assert -2 <= speeds.min() < -1.5 and 1.5 < speeds.max() <= 2
    sound = sine(440, 0.1)
    gains = 20 * np.log10(repeated(lambda rng: float(Augmentation(gain=6).colour(sound, 11025, rng)[100] / sound[100])))
    assert -6.001 <= gains.min() < -4.5 and 4.5 < gains.max() <= 6.001


def test_a_factor_spreads_evenly_and_clips() -> None:
    """The published augmentation of co-separation: a factor of 0.5 to 1.5, clipped to [-1, 1]."""
    sound = np.array([0.5, 0.9], np.float32)
    out = np.stack([Augmentation(factor=0.5).colour(sound, 11025, np.random.default_rng(k)) for k in range(200)])
    factors = out[:, 0] / 0.5
    assert 0.5 <= factors.min() < 0.55 and 1.45 < factors.max() <= 1.5 and abs(factors.mean() - 1) < 0.08
    np.testing.assert_allclose(out[:, 1], np.minimum(1.8 * out[:, 0], 1.0), rtol=1e-6)
    assert out.max() == 1.0


def test_equaliser_stays_within_its_gains() -> None:
    sound = np.zeros(11025, np.float32)
    sound[5000] = 1.0
    for seed in range(10):
        out = Augmentation(equaliser=5).colour(sound, 11025, np.random.default_rng(seed))
        assert out.shape == sound.shape and out.dtype == np.float32
        gains = 20 * np.log10(np.abs(np.fft.rfft(out))[50:-50])
        assert gains.max() - gains.min() > 1
        assert gains.max() < 10.5 and gains.min() > -10.5


def test_room_keeps_the_direct_sound_in_place() -> None:
    sound = np.zeros(11025, np.float32)
    sound[1000] = 1.0
    out = Augmentation(room=1).colour(sound, 11025, np.random.default_rng(1))
    assert np.abs(out[:1000]).max() < 1e-5
    assert out[1000] == pytest.approx(1.0, abs=1e-4)
    tail = np.square(out[1001:], dtype=np.float64).sum()
    assert 10 ** (-12 / 10) * 0.9 < tail < 10 ** (3 / 10) * 1.1


def test_background_lies_15_to_45_db_below() -> None:
    levels = 20 * np.log10(repeated(lambda rng: float(background(8191, 0.1, rng).std())) / 0.1)
    assert -45.001 <= levels.min() < -38
    assert -22 < levels.max() <= -14.999
    assert not background(100, 0.0, np.random.default_rng(0)).any()
