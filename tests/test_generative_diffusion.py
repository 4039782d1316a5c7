"""Diffusion on a Gaussian, whose best predictions and whose paths are known."""

from __future__ import annotations

import copy
import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from avsep_zoo.generative.contract import Network
from avsep_zoo.generative.diffusion import Diffusion, Step

MEAN, SPREAD = -3.0, 0.5  # far below 1, where data are clamped
START = torch.randn(2, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
FREE: dict[str, Any] = {"eta": 0.0, "lowest": -100.0, "silence": None}


def gaussian(driver: Diffusion, mean: float = MEAN, spread: float = SPREAD) -> Network:
    """The best prediction of all for data of this mean and standard deviation."""

    def network(noisy: Tensor, time: Tensor) -> Tensor:
        assert time.shape == (1,)
        a = driver.schedule.power(int(time))
        deviation = (noisy - math.sqrt(a) * mean) / (a * spread**2 + 1 - a)
        clean, noise = mean + math.sqrt(a) * spread**2 * deviation, math.sqrt(1 - a) * deviation
        velocity = math.sqrt(a) * noise - math.sqrt(1 - a) * clean
        return {"noise": noise, "clean": clean, "velocity": velocity}[driver.predicts]

    return network


def path(driver: Diffusion, step: int) -> Tensor:
    """Where the probability flow that begins in START is at a step."""
    a = driver.schedule.power(step)
    return math.sqrt(a) * MEAN + math.sqrt(a * SPREAD**2 + 1 - a) * START


def walk(driver: Diffusion, solver: str, steps: list[int]) -> Tensor:
    """Solve from the first of these steps to the last."""
    state, earlier, network = path(driver, steps[0]), None, gaussian(driver)
    for now, then in pairwise(steps):
        time = torch.tensor([now])
        estimates = driver.predictions(network(state, time), state, time, START)
        step = Step(state, *estimates, now=now, then=then)
        state, earlier = driver.advance(solver, step, earlier, lambda: START), step
    return state


def free(draws: int = 0) -> Any:
    """A draw of START, then of seeded noise."""
    generator = torch.Generator().manual_seed(draws)
    return lambda number: torch.randn(START.shape, dtype=START.dtype, generator=generator) if number else START


@pytest.mark.parametrize("predicts", ["noise", "clean", "velocity"])
@pytest.mark.parametrize(("solver", "least", "most"), [("ddim", 1.9, 2.1), ("dpm++", 3.8, 5.0)])
def test_order_of_convergence(solver: str, least: float, most: float, predicts: Any) -> None:
    """Between two steps of the schedule: DDIM without noise is of first order, DPM-Solver++ of second."""
    driver = Diffusion(predicts=predicts, **FREE)
    errors = []
    for count in (20, 40, 80):
        got = walk(driver, solver, [900 - 800 * i // count for i in range(count + 1)])
        errors.append(float((got - path(driver, 100)).abs().max()))
    assert all(least < before / after < most for before, after in pairwise(errors))


@pytest.mark.parametrize("solver", ["ddim", "dpm++"])
def test_more_steps_come_closer_to_the_data(solver: str) -> None:
    driver = Diffusion(predicts="clean", solver=solver, **FREE)
    a = driver.schedule.power(999)
    want = MEAN + SPREAD * (START - math.sqrt(a) * MEAN) / math.sqrt(a * SPREAD**2 + 1 - a)
    errors = [
        float((driver.sample(gaussian(driver), START, free(), steps=n) - want).abs().max()) for n in (15, 60, 1000)
    ]
    assert errors[0] > 2 * errors[1] > 8 * errors[2]
    assert errors[2] < 0.02


@pytest.mark.parametrize(("solver", "eta"), [("ddim", 0.0), ("ddim", 1.0), ("dpm++", 0.0), ("ddpm", 0.0)])
def test_predicting_noise_data_and_velocity_is_the_same(solver: str, eta: float) -> None:
    """As long as no data are clamped."""
    results = []
    for predicts in ("noise", "clean", "velocity"):
        driver = Diffusion(
            predicts=predicts,
            timesteps=60,
            steps=60 if solver == "ddpm" else 12,
            solver=solver,
            **{**FREE, "eta": eta},
        )
        results.append(driver.sample(gaussian(driver), START, free(3)))
    torch.testing.assert_close(results[1], results[0], atol=2e-3, rtol=0)  # float32 noise times 1826
    torch.testing.assert_close(results[1], results[2], atol=1e-4, rtol=0)


def test_ddim_with_all_its_noise_is_ancestral() -> None:
    """Step by step both have the posterior's mean and variance (Song et al., section 4.1)."""
    driver = Diffusion(**{**FREE, "eta": 1.0})
    clean, noise = START, START.flip(-1)
    state = driver.schedule.noisy(clean, noise, torch.tensor([400]))
    step = Step(state, noise, clean, now=400, then=399)
    ddim, ddpm = (driver.advance(solver, step, None, lambda: START.flip(-2)) for solver in ("ddim", "ddpm"))
    torch.testing.assert_close(ddim, ddpm, atol=1e-5, rtol=1e-5)


def test_ancestral_sampling_keeps_the_distribution() -> None:
    """All steps, data of one value: what comes out is that value, and halfway it is as noisy as it should be."""
    driver = Diffusion(solver="ddpm", timesteps=100, steps=100, **{**FREE, "lowest": 0.0})
    seen: dict[int, Tensor] = {}
    exact = gaussian(driver, mean=0.4, spread=0.0)

    def network(noisy: Tensor, time: Tensor) -> Tensor:
        seen[int(time)] = noisy
        return exact(noisy, time)

    generator = torch.Generator().manual_seed(0)
    big = torch.zeros(1, 1, 64, 64, dtype=torch.float64)
    got = driver.sample(network, big, lambda number: torch.randn(big.shape, dtype=big.dtype, generator=generator))
    torch.testing.assert_close(got, torch.full_like(big, 0.4), atol=1e-4, rtol=0)
    a = driver.schedule.power(50)
    assert float(seen[50].mean()) == pytest.approx(math.sqrt(a) * 0.4, abs=0.05)
    assert float(seen[50].std()) == pytest.approx(math.sqrt(1 - a), rel=0.05)


@pytest.mark.parametrize("solver", ["ddim", "dpm++"])
def test_the_noisiest_step_does_no_harm(solver: str) -> None:
    """There an error of predicted noise is 1826 times as large in the data, which are clamped."""
    driver = Diffusion(solver=solver, eta=0.0, silence=None)
    exact, generator = gaussian(driver, mean=0.5, spread=0.0), torch.Generator().manual_seed(2)

    def network(noisy: Tensor, time: Tensor) -> Tensor:
        return exact(noisy, time) + 0.02 * torch.randn(noisy.shape, dtype=noisy.dtype, generator=generator)

    states: list[float] = []

    def watched(noisy: Tensor, time: Tensor) -> Tensor:
        states.append(float(noisy.abs().max()))
        return network(noisy, time)

    got = driver.sample(watched, START, free())
    assert max(states) < 6
    assert float((got - 0.5).abs().max()) < 0.1


def test_only_what_needs_fresh_noise_draws_it() -> None:
    for solver, eta, draws in (("ddim", 0.0, 1), ("dpm++", 1.0, 1), ("ddim", 0.5, 4)):
        drawn: list[int] = []

        def draw(number: int, drawn: list[int] = drawn) -> Tensor:
            drawn.append(number)
            return START

        Diffusion(solver=solver, eta=eta).sample(lambda x, t: x, START, draw, steps=4)
        assert drawn == list(range(draws))


def test_clamp_and_silence() -> None:
    """Estimates are held in their range; where the mixture is silent they are the mixture."""
    mixture = torch.tensor([0.0, 0.001, 0.5, 0.5])
    clean = torch.tensor([0.7, -0.7, -0.7, 1.7])
    assert Diffusion().policy(clean, mixture).tolist() == pytest.approx([0, 0.001, 0, 1])
    ave = Diffusion(lowest=-1.0, silence=None)
    assert ave.policy(clean, mixture).tolist() == pytest.approx([0.7, -0.7, -0.7, 1])
    final = Diffusion(steps=3).sample(lambda x, t: x, torch.zeros_like(START), free())
    assert torch.equal(final, torch.zeros_like(START))


@pytest.mark.parametrize("predicts", ["noise", "clean", "velocity"])
def test_errors_are_those_of_the_prediction(predicts: Any) -> None:
    driver, generator = Diffusion(predicts=predicts), torch.Generator().manual_seed(1)
    clean, noise, answer = torch.randn(3, 2, 1, 4, 4, generator=generator)
    time = torch.tensor([10, 900])
    seen: dict[str, Tensor] = {}

    def network(noisy: Tensor, t: Tensor) -> Tensor:
        seen.update(noisy=noisy, time=t)
        return answer

    got = driver.errors(network, clean, noise, time)
    a = torch.tensor([driver.schedule.power(10), driver.schedule.power(900)]).float()[:, None, None, None]
    target = {"noise": noise, "clean": clean, "velocity": a.sqrt() * noise - (1 - a).sqrt() * clean}[predicts]
    torch.testing.assert_close(got, (answer - target).abs())
    torch.testing.assert_close(seen["noisy"], a.sqrt() * clean + (1 - a).sqrt() * noise)
    assert torch.equal(seen["time"], time)


def test_all_steps_of_the_schedule_or_none_given() -> None:
    """The ancestral sampler takes them all, and says so where another number is asked for."""
    driver = Diffusion()
    assert driver.plan_steps(None, "ddpm") == (1000, "ddpm")
    assert driver.evaluations(None, "ddpm") == 1000
    assert driver.plan_steps(30, None) == (30, "ddim")
    with pytest.raises(ValueError, match="steps is 30 and the solver ddpm takes 1000; give these or another one"):
        driver.plan_steps(30, "ddpm")


def test_times_follow_a_generator() -> None:
    driver = Diffusion(timesteps=10, steps=5)
    a, b = (driver.draw_time(500, generator=torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(a, b)
    assert a.unique().tolist() == list(range(10))


def test_schedule_is_no_state_and_keeps_its_precision() -> None:
    driver = Diffusion()
    assert not driver.state_dict()
    cast = copy.deepcopy(driver).to(torch.bfloat16)
    step = torch.tensor([999])
    assert torch.equal(cast.schedule.at("signal", step), driver.schedule.at("signal", step))


def test_networks_of_half_precision() -> None:
    """They get and give bfloat16; the state is kept in single precision, also in inference mode."""
    driver = Diffusion(silence=None, predicts="clean")

    def network(noisy: Tensor, time: Tensor) -> Tensor:
        assert noisy.dtype == torch.bfloat16
        return torch.full_like(noisy, 0.25)

    mixture = START.to(torch.bfloat16)
    with torch.inference_mode():
        got = driver.sample(network, mixture, lambda number: START.float())
    assert got.dtype == torch.float32
    assert torch.equal(got, torch.full_like(got, 0.25))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"solver": "euler"}, r"solver is 'euler'; choose one of ddim, dpm\+\+, ddpm"),
        ({"steps": 1001}, "steps is 1001; give a whole number from 1 to 1000"),
        ({"timesteps": 10}, "steps is 15; give a whole number from 1 to 10"),
        ({"solver": "ddpm"}, "steps is 15 and the solver ddpm takes 1000"),
        ({"predicts": "score"}, "predicts is 'score'; choose one of noise, clean, velocity"),
        ({"eta": 1.5}, r"eta is 1\.5"),
        ({"eta": math.nan}, "eta is nan"),
        ({"lowest": 1.0}, r"lowest is 1\.0"),
        ({"tau": -1.0}, "tau > 0"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Diffusion(**settings)


def test_a_time_power_draws_more_steps_near_the_noise() -> None:
    """With the power 3, half of the steps lie in the noisiest eighth; with 1 an eighth does."""
    for power, share in ((3.0, 0.5), (1.0, 0.125)):
        steps = Diffusion(time_power=power).draw_time(4000, generator=torch.Generator().manual_seed(0))
        assert abs((steps >= 875).float().mean() - share) < 0.03
        assert steps.dtype == torch.int64 and steps.min() >= 0 and steps.max() < 1000
