"""Denoising diffusion: DDPM's loss, DDIM and DPM-Solver++ as samplers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from avsep_zoo.generative.contract import Draw, Driver, Network
from avsep_zoo.generative.schedule import DiffusionSchedule

__all__ = ["Diffusion"]

Predicts = Literal["noise", "clean", "velocity"]


class Diffusion(Driver):
    """Diffusion in steps k = 0 .. ``timesteps`` - 1; the network's time is k.

    Solvers, all with one network evaluation per step: ``ddim`` (Song et al., ICLR 2021, with ``eta``), ``dpm++``
    (Lu et al., DPM-Solver++, 2022: second-order multistep, no fresh noise) and ``ddpm`` (Ho et al., NeurIPS 2020:
    all steps of the schedule). The defaults are those of DAVIS on MUSIC (Huang et al., ACCV 2024).

    Args:
        steps, solver, full_level, shared_noise: see :class:`~avsep_zoo.generative.contract.Driver`.
        predicts: what the network predicts.
        eta: share of DDIM's noise that is fresh; 0 is deterministic after the start.
        lowest: estimated data are clamped to [``lowest``, 1] in each step; -1 is published for AVE.
        silence: where the mixture is below this, the estimate is the mixture; None for nowhere.
        timesteps, start, end, tau: see :class:`~avsep_zoo.generative.schedule.DiffusionSchedule`.
    """

    solvers = {"ddim": 1, "dpm++": 1, "ddpm": 1}  # noqa: RUF012

    def __init__(
        self,
        *,
        steps: int = 15,
        solver: str = "ddim",
        full_level: bool = True,
        shared_noise: bool = False,
        predicts: Predicts = "noise",
        eta: float = 1.0,
        lowest: float = 0.0,
        silence: float | None = 0.002,
        timesteps: int = 1000,
        start: float = 0.0,
        end: float = 3.0,
        tau: float = 1.0,
    ) -> None:
        self.most_steps = timesteps
        super().__init__(steps=steps, solver=solver, full_level=full_level, shared_noise=shared_noise)
        self.predicts, self.eta, self.lowest, self.silence = predicts, eta, lowest, silence
        self.schedule = DiffusionSchedule(timesteps=timesteps, start=start, end=end, tau=tau)

    def plan_steps(self, steps: int | None, solver: str | None) -> tuple[int, str]:
        """Check steps and solver; ``ddpm`` takes all steps of the schedule."""
        steps, solver = super().plan_steps(steps, solver)
        return (self.most_steps if solver == "ddpm" else steps), solver

    def draw_time(self, count: int, *, generator: torch.Generator | None = None) -> Tensor:
        return torch.randint(self.schedule.timesteps, (count,), generator=generator)

    def errors(self, network: Network, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Absolute error of the prediction, at a step per item."""
        target = {
            "noise": lambda: noise,
            "clean": lambda: clean,
            "velocity": lambda: self.schedule.velocity(clean, noise, time),
        }[self.predicts]()
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

    def sample(
        self,
        network: Network,
        mixture: Tensor,
        draw: Draw,
        *,
        steps: int | None = None,
        solver: str | None = None,
        seen: Callable[[Tensor], None] | None = None,
    ) -> Tensor:
        """See :meth:`~avsep_zoo.generative.contract.Driver.sample`; ``seen`` is called with the state of each step."""
        steps, solver = self.plan_steps(steps, solver)
        take = {"ddim": self._ddim, "dpm++": self._dpm, "ddpm": self._ddpm}[solver]
        state = draw(0)
        times = self.schedule.times(steps)
        earlier: tuple[int, Tensor] | None = None
        for number, (step, following) in enumerate(zip(times[:-1], times[1:], strict=True), 1):
            if seen is not None:
                seen(state)
            now = torch.tensor([step], device=state.device)
            noise, clean = self.predictions(network(state, now), state, now, mixture)
            if following < 0:
                state = clean
                break
            state, earlier = take(state, noise, clean, step, following, earlier, lambda n=number: draw(n))  # type: ignore[misc]
        if seen is not None:
            seen(state)
        return state

    def _ddim(
        self, state: Tensor, noise: Tensor, clean: Tensor, step: int, following: int, _: object, fresh: Callable[[], Tensor]
    ) -> tuple[Tensor, None]:
        now, then = self.schedule.signal[step], self.schedule.signal[following]
        spread = self.eta * ((1 - now / then) * (1 - then) / (1 - now)).sqrt()
        state = then.sqrt() * clean + (1 - then - spread**2).sqrt() * noise
        return (state + spread * fresh() if self.eta else state), None

    def _ddpm(
        self, state: Tensor, noise: Tensor, clean: Tensor, step: int, following: int, _: object, fresh: Callable[[], Tensor]
    ) -> tuple[Tensor, None]:
        now = torch.tensor([step], device=state.device)
        mean = self.schedule.posterior_mean(clean, state, now)
        return mean + (0.5 * self.schedule.at("posterior_log_variance", now)).exp() * fresh(), None

    def _dpm(
        self, state: Tensor, noise: Tensor, clean: Tensor, step: int, following: int,
        earlier: tuple[int, Tensor] | None, fresh: Callable[[], Tensor],
    ) -> tuple[Tensor, tuple[int, Tensor]]:  # fmt: skip
        now, then = self._snr(step), self._snr(following)
        width = then - now
        guess = clean
        if earlier is not None:  # extrapolate the data from the last two steps
            ratio = (now - self._snr(earlier[0])) / width
            guess = clean + (clean - earlier[1]) / (2 * ratio)
        signal, before = float(self.schedule.signal[following]), float(self.schedule.signal[step])
        state = math.sqrt((1 - signal) / (1 - before)) * state - math.sqrt(signal) * math.expm1(-width) * guess
        return state, (step, clean)

    def _snr(self, step: int) -> float:
        """Half the logarithm of the signal-to-noise ratio."""
        signal = float(self.schedule.signal[step])
        return 0.5 * math.log(signal / (1 - signal))
