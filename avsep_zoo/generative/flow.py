"""Flow matching along straight lines (Lipman et al., ICLR 2023), and solvers of its ordinary differential equation."""

from __future__ import annotations

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
        time_power: training times are drawn as a uniform number in [0, 1) to this power: above 1, more of them near the
            noise, which matters most to solvers of few steps.

    Raises:
        ValueError: a setting is out of its range.
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
        time_power: float = 1.0,
    ) -> None:
        super().__init__(steps=steps, solver=solver, full_level=full_level, shared_noise=shared_noise)
        if predicts not in ("velocity", "clean"):
            raise ValueError(f"predicts is {predicts!r}; choose one of velocity, clean.")
        if not 0 <= floor < 1:
            raise ValueError(f"floor is {floor}; give a standard deviation in [0, 1).")
        if not time_scale > 0:
            raise ValueError(f"time_scale is {time_scale}; give a factor above 0.")
        if not time_power > 0:
            raise ValueError(f"time_power is {time_power}; give a number above 0.")
        self.predicts, self.floor, self.time_scale, self.time_power = predicts, floor, time_scale, time_power

    def evaluations(self, steps: int | None = None, solver: str | None = None) -> int:
        steps, solver = self.plan_steps(steps, solver)
        return steps * self.solvers[solver] - self._spared(solver)

    def _spared(self, solver: str) -> bool:
        """Whether the last step is Euler's: velocities of data at time 1 are their errors divided by the floor."""
        return solver == "heun" and self.predicts == "clean"

    def draw_time(self, count: int, *, generator: torch.Generator | None = None) -> Tensor:
        return torch.rand(count, generator=generator) ** self.time_power

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

    def solve(self, network: Network, mixture: Tensor, draw: Draw, steps: int, solver: str) -> Tensor:
        def velocity(state: Tensor, time: float) -> Tensor:
            predicted = network(state, torch.tensor([self.time_scale * time], dtype=state.dtype, device=state.device))
            if self.predicts == "velocity":
                return predicted
            noise = (state - time * predicted) / (1 - (1 - self.floor) * time)
            return self.velocity(predicted, noise)

        state, width = draw(0), 1 / steps
        last: Tensor | None = None
        for step in range(steps):
            time = step * width
            slope = now = velocity(state, time)
            if solver == "midpoint":
                slope = velocity(state + width / 2 * now, time + width / 2)
            elif solver == "heun" and not (self._spared(solver) and step == steps - 1):
                slope = (now + velocity(state + width * now, time + width)) / 2
            elif solver == "ab2" and last is not None:
                slope = 1.5 * now - 0.5 * last
            state, last = state + width * slope, now
        return state
