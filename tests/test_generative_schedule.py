"""The variance schedule against numbers of its own formula."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch

from avsep_zoo.generative.schedule import DiffusionSchedule


def test_reference_values() -> None:
    """Shares of power of the published schedule; the last beta is clipped to 0.999."""
    schedule = DiffusionSchedule()
    for step, signal in ((0, 0.99834281), (500, 0.29730520), (932, 0.02199059), (998, 2.998872e-4)):
        assert schedule.power(step) == pytest.approx(signal, rel=1e-6)
    assert schedule.power(-1) == 1
    assert float(schedule.vectors["beta"][-1]) == pytest.approx(0.999)
    assert float(schedule.vectors["root_inverse_signal"][-1]) == pytest.approx(1826.085, abs=1e-3)


def test_sigmoid_between_its_ends() -> None:
    """Away from the clipped end the signal is the sigmoid itself, scaled to fall from 1 to 0."""
    schedule = DiffusionSchedule(timesteps=50, start=-2.0, end=2.0, tau=0.8)

    def sigmoid(v: float) -> float:
        return 1 / (1 + math.exp(-v / 0.8))

    for step in (0, 10, 30, 48):
        here = sigmoid(2) - sigmoid(-2 + 4 * (step + 1) / 50)
        assert schedule.power(step) == pytest.approx(here / (sigmoid(2) - sigmoid(-2)), rel=1e-4)


def test_more_noise_in_every_step() -> None:
    for settings in ({}, {"timesteps": 7}, {"start": -3.0, "end": 3.0, "tau": 0.5}):
        schedule = DiffusionSchedule(**settings)
        ratios = [schedule.half_log_snr(step) for step in range(schedule.timesteps)]
        assert all(after < before for before, after in pairwise(ratios))


def test_formulas_undo_each_other() -> None:
    """Data, noise and velocity follow from noisy data and one of the others."""
    schedule = DiffusionSchedule()
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 3, 1, 4, 4, generator=generator)
    step = torch.tensor([0, 400, 998])
    noisy, velocity = schedule.noisy(clean, noise, step), schedule.velocity(clean, noise, step)
    torch.testing.assert_close(schedule.clean_from_noise(noisy, noise, step), clean, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(schedule.noise_from_clean(noisy, clean, step), noise, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(schedule.clean_from_velocity(noisy, velocity, step), clean, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("step", [1, 300, 999])
def test_posterior_is_the_product_of_two_gaussians(step: int) -> None:
    """Bayes: step k - 1 given the data, times step k given step k - 1."""
    schedule = DiffusionSchedule()
    before, beta = schedule.power(step - 1), 1 - schedule.power(step) / schedule.power(step - 1)
    clean, noisy = 0.7, -1.3
    precision = 1 / (1 - before) + (1 - beta) / beta
    mean = (math.sqrt(before) * clean / (1 - before) + math.sqrt(1 - beta) * noisy / beta) / precision
    at = torch.tensor([step])
    got = schedule.posterior_mean(torch.tensor(clean), torch.tensor(noisy), at)
    assert float(got) == pytest.approx(mean, rel=1e-4)
    assert float(schedule.at("posterior_variance", at)) == pytest.approx(1 / precision, rel=1e-4)


def test_steps_of_a_sampler() -> None:
    """The published fifteen, and one that takes every step."""
    schedule = DiffusionSchedule()
    published = [999, 932, 865, 799, 732, 665, 599, 532, 465, 399, 332, 265, 199, 132, 65, -1]
    assert schedule.times(15) == published
    assert schedule.times(1) == [999, -1]
    assert schedule.times(1000) == list(range(999, -2, -1))
    assert all(len(set(schedule.times(n))) == n + 1 for n in range(1, 1001))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"timesteps": 0}, "timesteps is 0; give a whole number from 1 on"),
        ({"timesteps": 9.5}, "timesteps is 9.5"),
        ({"start": 3.0}, "from 3.0 to 3.0 .* give start < end"),
        ({"tau": 0.0}, "with tau 0.0; give start < end and tau > 0"),
        ({"end": math.nan}, "give start < end"),
        ({"start": -5000.0}, "is no schedule of 1000 steps; take values closer"),
        ({"end": 900.0}, "is no schedule of 1000 steps"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        DiffusionSchedule(**settings)
