"""What a user asks of the sampling of a model, checked, and what is written down about it."""

from __future__ import annotations

from typing import Any

from avsep_zoo.errors import CompositionError
from avsep_zoo.generative.contract import Driver
from avsep_zoo.generative.noise import Sampling

__all__ = ["describe_sampling", "plan_sampling"]


def plan_sampling(
    driver: Driver | None, name: str, *, seed: int = 0, steps: int | None = None, solver: str | None = None
) -> Sampling | None:
    """Check how a model is to sample and fill in its defaults.

    Args:
        driver: of the model.
        name: of the model.
        seed: of all noise, at least 0.
        steps: of the solver; None is the driver's own number.
        solver: None is the driver's own.

    Returns:
        None for a model without a driver, which has nothing to sample.

    Raises:
        CompositionError: the driver has no such solver or cannot take as many steps, or there is no driver for them.
    """
    if driver is None:
        given = [f"{what} {value!r}" for what, value in (("steps", steps), ("solver", solver)) if value is not None]
        if given:
            raise CompositionError(f"{name} makes nothing out of noise step by step; leave out {' and '.join(given)}.")
        return None
    try:
        return Sampling(seed, *driver.plan_steps(steps, solver))
    except ValueError as error:
        raise CompositionError(f"{name} cannot sample like this: {error}") from error


def describe_sampling(driver: Driver | None, sampling: Sampling | None) -> dict[str, Any] | None:
    """Return seed, steps, solver and network evaluations per source as plain JSON; None where nothing is sampled."""
    if driver is None or sampling is None:
        return None
    evaluations = driver.evaluations(sampling.steps, sampling.solver)
    return {"seed": sampling.seed, "steps": sampling.steps, "solver": sampling.solver, "evaluations": evaluations}
