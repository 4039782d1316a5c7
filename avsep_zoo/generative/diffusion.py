"""Denoising diffusion: DDPM's loss, and DDIM, DPM-Solver++ and ancestral sampling."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from avsep_zoo.generative.contract import Draw, Driver, Network
from avsep_zoo.generative.schedule import DiffusionSchedule

__all__ = ["Diffusion", "Step"]


@dataclass(frozen=True)
class Step:
    """Where a solver is, and what the network says there.

    Args:
        state: noisy data (B N, 1, F', T) at step ``now``.
        noise, clean: the noise and the data in it, as the network has them.
        now: step of the schedule.
        then: the step to go to; -1 are the data.
    """

    state: Tensor
    noise: Tensor
    clean: Tensor
    now: int
    then: int


class Diffusion(Driver):
    """Diffusion in steps k = 0 .. ``timesteps`` - 1; the network's time is k.

    Solvers, all with one network evaluation per step: ``ddim`` (Song et al., ICLR 2021, with ``eta``), ``dpm++``
    (Lu et al., DPM-Solver++, 2022: second-order multistep, no fresh noise) and ``ddpm`` (Ho et al., NeurIPS 2020:
    all steps of the schedule). The defaults are those of DAVIS on MUSIC (Huang et al., ACCV 2024).

    Args:
        steps, solver, full_level, shared_noise: see :class:`~avsep_zoo.generative.contract.Driver`.
        predicts: what the network predicts.
        eta: share of DDIM's noise that is fresh, in [0, 1]; 0 is deterministic after the start.
        lowest: estimated data are clamped to [``lowest``, 1] in each step; -1 is published for AVE.
        silence: where the mixture is below this, the estimate is the mixture; None for nowhere.
        time_power: training steps are drawn as ``timesteps`` (1 - u ** time_power) with u uniform in [0, 1): above 1,
            more of them near the noise, which matters most to solvers of few steps.
        timesteps, start, end, tau: see :class:`~avsep_zoo.generative.schedule.DiffusionSchedule`.

    Raises:
        ValueError: a setting is out of its range.
    """

    solvers = {"ddim": 1, "dpm++": 1, "ddpm": 1}  # noqa: RUF012
    bounded = True

    def __init__(
        self,
        *,
        steps: int = 15,
        solver: str = "ddim",
        full_level: bool = True,
        shared_noise: bool = False,
        predicts: Literal["noise", "clean", "velocity"] = "noise",
        eta: float = 1.0,
        lowest: float = 0.0,
        silence: float | None = 0.002,
        time_power: float = 1.0,
        timesteps: int = 1000,
        start: float = 0.0,
        end: float = 3.0,
        tau: float = 1.0,
    ) -> None:
        schedule = DiffusionSchedule(timesteps=timesteps, start=start, end=end, tau=tau)
        self.most_steps = timesteps
        super().__init__(steps=steps, solver=solver, full_level=full_level, shared_noise=shared_noise)
        if predicts not in ("noise", "clean", "velocity"):
            raise ValueError(f"predicts is {predicts!r}; choose one of noise, clean, velocity.")
        if not 0 <= eta <= 1:
            raise ValueError(f"eta is {eta}; give a share in [0, 1].")
        if not lowest < 1:
            raise ValueError(f"lowest is {lowest}; give a value below 1, the highest one.")
        if not time_power > 0:
            raise ValueError(f"time_power is {time_power}; give a number above 0.")
        self.predicts, self.eta, self.lowest, self.silence = predicts, eta, lowest, silence
        self.time_power = time_power
        self.schedule = schedule

    def plan_steps(self, steps: int | None, solver: str | None) -> tuple[int, str]:
        """Check steps and solver, filling in the defaults; ``ddpm`` takes all steps of the schedule.

        Raises:
            ValueError: there is no such solver, or the number of steps is not possible.
        """
        given = steps
        steps, solver = super().plan_steps(steps, solver)
        if solver != "ddpm" or steps == self.most_steps:
            return steps, solver
        if given is not None:
            raise ValueError(
                f"steps is {steps} and the solver ddpm takes {self.most_steps}; give these or another one."
            )
        return self.most_steps, solver

    def draw_time(self, count: int, *, generator: torch.Generator | None = None) -> Tensor:
        near = torch.rand(count, generator=generator, dtype=torch.float64) ** self.time_power  # to the noise
        return ((1 - near) * self.schedule.timesteps).long().clamp_max(self.schedule.timesteps - 1)

    def errors(self, network: Network, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Absolute error of the prediction, at a step per item."""
        target = {"noise": noise, "clean": clean}.get(self.predicts)
        if target is None:
            target = self.schedule.velocity(clean, noise, time)
        return (network(self.schedule.noisy(clean, noise, time), time) - target).abs()

    def predictions(self, prediction: Tensor, noisy: Tensor, step: Tensor, mixture: Tensor) -> tuple[Tensor, Tensor]:
        """Return noise and data as the network's prediction at ``step`` (B,) has them.

        The data are clamped, and taken from the mixture where that is silent. Noise that the network predicts is kept;
        otherwise it follows from the clamped data.
        """
        if self.predicts == "noise":
            return prediction, self.policy(self.schedule.clean_from_noise(noisy, prediction, step), mixture)
        clean = prediction
        if self.predicts == "velocity":
            clean = self.schedule.clean_from_velocity(noisy, prediction, step)
        clean = self.policy(clean, mixture)
        return self.schedule.noise_from_clean(noisy, clean, step), clean

    def policy(self, clean: Tensor, mixture: Tensor) -> Tensor:
        """Clamp estimated data and silence what is silent in the mixture."""
        clean = clean.clamp(self.lowest, 1.0)
        if self.silence is None:
            return clean
        return torch.where(mixture < self.silence, mixture.clamp(self.lowest, 1.0), clean)

    def solve(self, network: Network, mixture: Tensor, draw: Draw, steps: int, solver: str) -> Tensor:
        state = draw(0)
        earlier: Step | None = None
        for number, (now, then) in enumerate(pairwise(self.schedule.times(steps)), 1):
            time = torch.tensor([now], device=state.device)
            noise, clean = self.predictions(network(state, time), state, time, mixture)
            step = Step(state, noise, clean, now, then)
            state = self.advance(solver, step, earlier, lambda n=number: draw(n))  # type: ignore[misc]
            earlier = step
        return state

    def advance(self, solver: str, step: Step, earlier: Step | None, fresh: Callable[[], Tensor]) -> Tensor:
        """Noisy data at ``step.then``.

        Args:
            solver: one of ``solvers``.
            step: where it is.
            earlier: where it was before, if it was anywhere.
            fresh: draws noise, where the solver wants any.
        """
        if step.then < 0:
            return step.clean
        if solver == "dpm++":
            return self._multistep(step, earlier)
        return self._ancestral(step, fresh) if solver == "ddpm" else self._implicit(step, fresh)

    def _implicit(self, step: Step, fresh: Callable[[], Tensor]) -> Tensor:
        """Song et al., equations 12 and 16."""
        now, then = self.schedule.power(step.now), self.schedule.power(step.then)
        spread = self.eta * math.sqrt((1 - now / then) * (1 - then) / (1 - now))
        state = math.sqrt(then) * step.clean + math.sqrt(max(0.0, 1 - then - spread**2)) * step.noise
        return state + spread * fresh() if spread else state

    def _ancestral(self, step: Step, fresh: Callable[[], Tensor]) -> Tensor:
        """Ho et al., algorithm 2; ``then`` is ``now`` - 1."""
        now = torch.tensor([step.now], device=step.state.device)
        mean = self.schedule.posterior_mean(step.clean, step.state, now)
        return mean + (0.5 * self.schedule.at("posterior_log_variance", now)).exp() * fresh()

    def _multistep(self, step: Step, earlier: Step | None) -> Tensor:
        """Lu et al., algorithm 2: the data are extrapolated from the last two steps."""
        now, then = self.schedule.half_log_snr(step.now), self.schedule.half_log_snr(step.then)
        width, clean = then - now, step.clean
        if earlier is not None:
            ratio = (now - self.schedule.half_log_snr(earlier.now)) / width
            clean = clean + (clean - earlier.clean) / (2 * ratio)
        signal, before = self.schedule.power(step.then), self.schedule.power(step.now)
        return math.sqrt((1 - signal) / (1 - before)) * step.state - math.sqrt(signal) * math.expm1(-width) * clean
