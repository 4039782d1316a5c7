"""The contract between a driver and the network it drives.

Data are a front end's features (B N, 1, F', T): each source is an item of its own; noise has the same shape.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from avsep_zoo.contracts import Bound, Estimate, Separator, Spectrum
from avsep_zoo.errors import CompositionError

__all__ = ["Draw", "DrivenSeparator", "Driver", "Network"]

Network = Callable[[Tensor, Tensor], Tensor]
"""(noisy (B N, 1, F', T), time (B N,), or (1,) where it is the same for all) -> a prediction like noisy."""

Draw = Callable[[int], Tensor]
"""Number of a draw -> standard normal noise (B N, 1, F', T): 0 is the start, k what is added after step k."""


class DrivenSeparator(Separator):
    """A separator whose network also reads a noisy estimate and a time; a driver calls it.

    Sites and conditioners are those of any separator. Features carry B N items from the first site on.
    ``driven`` is False for one that was built to work without a driver, which then overrides ``forward``.
    """

    driven: bool = True

    @abstractmethod
    def bind(self, spectrum: Spectrum, inject: Bound) -> Network:
        """Return the network for one batch of mixtures and cues: what no step changes is computed here, once."""

    def forward(self, spectrum: Spectrum, inject: Bound) -> Estimate:
        raise CompositionError(f"{type(self).__name__} needs a driver; compose it with one, e.g. driver='flow'.")


class Driver(nn.Module, ABC):
    """What is generative about a method: schedule, loss and solver.

    Args:
        steps: of the solver, by default.
        solver: the default one of ``solvers``.
        full_level: sources are estimated N times as loud as they are in the mixture (the published DAVIS, whose
            mixture is the mean of its sources).
        shared_noise: all sources of a mixture start from the same noise.

    Raises:
        ValueError: there is no such solver, or the number of steps is not possible.
    """

    solvers: ClassVar[Mapping[str, int]]
    """Solver -> network evaluations per step and source."""

    most_steps: int = 1000

    bounded: ClassVar[bool] = False
    """Whether data above 1 cannot be made, so that a front end has to hold its features in [0, 1]."""

    def __init__(self, *, steps: int, solver: str, full_level: bool, shared_noise: bool) -> None:
        super().__init__()
        self.full_level, self.shared_noise = full_level, shared_noise
        self.steps, self.solver = self.plan_steps(steps, solver)

    def plan_steps(self, steps: int | None, solver: str | None) -> tuple[int, str]:
        """Check steps and solver, filling in the defaults.

        Raises:
            ValueError: there is no such solver, or the number of steps is not possible.
        """
        solver = self.solver if solver is None else solver
        steps = self.steps if steps is None else steps
        if solver not in self.solvers:
            raise ValueError(f"solver is {solver!r}; choose one of {', '.join(self.solvers)}.")
        if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= self.most_steps:
            raise ValueError(f"steps is {steps!r}; give a whole number from 1 to {self.most_steps}.")
        return steps, solver

    def evaluations(self, steps: int | None = None, solver: str | None = None) -> int:
        """Network evaluations per source."""
        steps, solver = self.plan_steps(steps, solver)
        return steps * self.solvers[solver]

    def sample(
        self, network: Network, mixture: Tensor, draw: Draw, *, steps: int | None = None, solver: str | None = None
    ) -> Tensor:
        """Make an estimate (B N, 1, F', T) out of noise, in single precision or better, whatever the network takes.

        Args:
            network: of a driven separator; it gets noisy data of the mixture's type, and a time (1,).
            mixture: features (B N, 1, F', T) of the mixture, repeated for each source.
            draw: the noise.
            steps, solver: other than the defaults.

        Raises:
            ValueError: there is no such solver, or the number of steps is not possible.
        """
        steps, solver = self.plan_steps(steps, solver)
        wide = torch.promote_types(mixture.dtype, torch.float32)

        def widened(noisy: Tensor, time: Tensor) -> Tensor:
            return network(noisy.to(mixture.dtype), time).to(wide)

        return self.solve(widened, mixture.to(wide), lambda number: draw(number).to(wide), steps, solver)

    @abstractmethod
    def solve(self, network: Network, mixture: Tensor, draw: Draw, steps: int, solver: str) -> Tensor:
        """:meth:`sample` with checked steps and solver, everything in one precision."""

    @abstractmethod
    def draw_time(self, count: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Draw the training times (count,) of as many items, on the CPU."""

    @abstractmethod
    def errors(self, network: Network, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Distances (B N, 1, F', T) that training lowers.

        Args:
            network: of a driven separator.
            clean: features of the sources.
            noise: standard normal, like ``clean``.
            time: (B N,), as :meth:`draw_time` draws it.
        """
