"""Flow matching on a Gaussian, whose velocity and whose end points are known."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from avsep_zoo.generative.contract import Network
from avsep_zoo.generative.flow import Flow

MEAN, SPREAD = 0.5, 0.3
START = torch.randn(2, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def gaussian(flow: Flow) -> Network:
    """The best prediction of all for data of this mean and standard deviation."""

    def network(noisy: Tensor, time: Tensor) -> Tensor:
        t = (time / flow.time_scale)[:, None, None, None]
        left = 1 - (1 - flow.floor) * t
        deviation = (noisy - t * MEAN) / (t**2 * SPREAD**2 + left**2)
        clean, noise = MEAN + t * SPREAD**2 * deviation, left * deviation
        return clean if flow.predicts == "clean" else flow.velocity(clean, noise)

    return network


def error(flow: Flow, steps: int) -> float:
    got = flow.sample(gaussian(flow), START, lambda number: START, steps=steps)
    want = MEAN + math.sqrt(SPREAD**2 + flow.floor**2) * START
    return float((got - want).abs().max())


@pytest.mark.parametrize("predicts", ["velocity", "clean"])
@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("midpoint", 2), ("heun", 2), ("ab2", 2)])
def test_order_of_convergence(solver: str, order: int, predicts: Any) -> None:
    """Twice the steps divide the error by 2 to the order (midpoint does better here)."""
    flow = Flow(solver=solver, predicts=predicts)
    errors = [error(flow, steps) for steps in (32, 64, 128)]
    ratios = [before / after for before, after in pairwise(errors)]
    assert all(0.9 * 2**order < ratio < (1.1 * 2**order if solver != "midpoint" else 9) for ratio in ratios)


@pytest.mark.parametrize("solver", ["euler", "midpoint", "ab2"])
def test_predicting_velocity_and_data_is_the_same(solver: str) -> None:
    a, b = (
        flow.sample(gaussian(flow), START, lambda number: START, steps=5)
        for flow in (Flow(solver=solver), Flow(solver=solver, predicts="clean"))
    )
    torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun", "ab2"])
@pytest.mark.parametrize("predicts", ["velocity", "clean"])
def test_evaluations_are_what_is_counted(solver: str, predicts: Any) -> None:
    flow, times = Flow(solver=solver, predicts=predicts, floor=0.0), []

    def network(noisy: Tensor, time: Tensor) -> Tensor:
        assert time.shape == (1,)
        times.append(float(time))
        return torch.zeros_like(noisy)

    assert flow.sample(network, START, lambda number: START, steps=4).isfinite().all()
    assert len(times) == flow.evaluations(4)
    assert times[0] == 0
    assert max(times) <= 1000


def test_published_network_times() -> None:
    times: list[float] = []
    Flow().sample(lambda x, t: times.append(float(t)) or x, START, lambda number: START)  # type: ignore[func-returns-value]
    assert times == [0, 500]


def test_heun_of_data_ends_with_the_data() -> None:
    """At time 1 the velocity of predicted data is their error over the floor; Heun does not go there."""
    flow = Flow(solver="heun", predicts="clean", steps=3)

    def network(noisy: Tensor, time: Tensor) -> Tensor:
        return torch.full_like(noisy, 0.5) + 0.01 * torch.sin(100 * noisy)

    got = flow.sample(network, START, lambda number: START)
    assert float((got - 0.5).abs().max()) < 0.02


def test_errors_are_the_published_sum() -> None:
    """That of the velocity plus that of the data it means."""
    flow, generator = Flow(floor=0.01), torch.Generator().manual_seed(1)
    clean, noise, answer = torch.randn(3, 2, 1, 4, 4, generator=generator)
    time = torch.tensor([0.2, 0.9])
    seen: dict[str, Tensor] = {}

    def network(noisy: Tensor, t: Tensor) -> Tensor:
        seen.update(noisy=noisy, time=t)
        return answer

    got = flow.errors(network, clean, noise, time)
    data = answer + 0.99 * noise
    torch.testing.assert_close(got, (answer - (clean - 0.99 * noise)).abs() + (clean - data).abs())
    torch.testing.assert_close(seen["time"], 1000 * time)
    torch.testing.assert_close(seen["noisy"][1], 0.9 * clean[1] + (1 - 0.99 * 0.9) * noise[1])


def test_times_follow_a_generator() -> None:
    flow = Flow()
    a, b = (flow.draw_time(64, generator=torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(a, b)
    assert float(a.min()) >= 0
    assert float(a.max()) < 1


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"solver": "rk4"}, "solver is 'rk4'; choose one of euler, midpoint, heun, ab2"),
        ({"steps": 0}, "steps is 0; give a whole number from 1 to 1000"),
        ({"steps": 2.0}, r"steps is 2\.0"),
        ({"steps": True}, "steps is True"),
        ({"predicts": "noise"}, "predicts is 'noise'; choose one of velocity, clean"),
        ({"floor": 1.0}, r"floor is 1\.0"),
        ({"floor": math.nan}, "floor is nan"),
        ({"time_scale": 0}, "time_scale is 0"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Flow(**settings)


def test_a_time_power_draws_more_times_near_the_noise() -> None:
    """With the power 3, half of the times lie below 1/8."""
    times = Flow(time_power=3.0).draw_time(4000, generator=torch.Generator().manual_seed(0))
    assert abs((times < 0.125).float().mean() - 0.5) < 0.03
    assert times.min() >= 0 and times.max() < 1
