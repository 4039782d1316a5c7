"""Flow matching along straight lines (Lipman et al., ICLR 2023), and solvers of its ordinary differential equation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from avsep_zoo.generative.contract import Draw, Driver, Network

__all__ = ["Flow"]


class Flow(Driver):
    """A straight path from noise at time 0 to data at time 1.

    Solvers: ``euler``; ``midpoint`` and ``heun``, of second order with two network evaluations per step; and
    ``ab2``, Adams-Bashforth of second order with one, whose first step is Euler's. The defaults are those of
    DAVIS-Flow (Huang et al., 2025).

    Args:
        steps, solver, full_level, shared_noise: see :class:`~avsep_zoo.generative.contract.Driver`.
        predicts: what the network predicts: the ``velocity`` of the path (published) or the ``clean`` data.
        floor: standard deviation of the noise that is left at time 1.
        time_scale: factor from time to the network's time.
    """

    solvers = {"euler": 1, "midpoint": 2, "heun": 2, "ab2": 1}  # noqa: RUF012

    def __init__(
        self,
        *,
        steps: int = 2,
        solver: str = "euler",
        full_level: bool = True,
        shared_noise: bool = True,
        predicts: Literal["velocity", "clean"] = "velocity",
        floor: float = 1e-4,
        time_scale: float = 1000.0,
    ) -> None:
        super().__init__(steps=steps, solver=solver, full_level=full_level, shared_noise=shared_noise)
        self.predicts, self.floor, self.time_scale = predicts, floor, time_scale

    def draw_time(self, count: int, *, generator: torch.Generator | None = None) -> Tensor:
        return torch.rand(count, generator=generator)

    def noisy(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """The path at ``time`` (B,)."""
        time = time[:, None, None, None]
        return time * clean + (1 - (1 - self.floor) * time) * noise

    def velocity(self, clean: Tensor, noise: Tensor) -> Tensor:
        """Velocity of the path, the same at any time."""
        return clean - (1 - self.floor) * noise

    def errors(self, network: Network, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Twice the absolute error of the prediction: published is that of the velocity plus that of the data."""
        target = clean if self.predicts == "clean" else self.velocity(clean, noise)
        return 2 * (network(self.noisy(clean, noise, time), self.time_scale * time) - target).abs()

    def sample(
        self, network: Network, mixture: Tensor, draw: Draw, *, steps: int | None = None, solver: str | None = None
    ) -> Tensor:
        steps, solver = self.plan_steps(steps, solver)
        state, width = draw(0), 1 / steps

        def velocity(state: Tensor, time: float) -> Tensor:
            predicted = network(state, torch.tensor([self.time_scale * time], device=state.device))
            if self.predicts == "velocity":
                return predicted
            noise = (state - time * predicted) / (1 - (1 - self.floor) * time)
            return self.velocity(predicted, noise)

        last: Tensor | None = None
        for step in range(steps):
            now = velocity(state, step * width)
            state = state + width * self._slope(solver, velocity, state, step * width, width, now, last)
            last = now
        return state

    @staticmethod
    def _slope(
        solver: str, velocity: Callable[[Tensor, float], Tensor], state: Tensor, time: float, width: float,
        now: Tensor, last: Tensor | None,
    ) -> Tensor:  # fmt: skip
        """The velocity that a step of ``width`` follows."""
        if solver == "midpoint":
            return velocity(state + width / 2 * now, time + width / 2)
        if solver == "heun":
            return (now + velocity(state + width * now, time + width)) / 2
        if solver == "ab2" and last is not None:
            return 1.5 * now - 0.5 * last
        return now
