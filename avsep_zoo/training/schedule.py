"""The learning rate over a run, as a factor of its peak."""

from __future__ import annotations

import math
from bisect import bisect_right

from avsep_zoo.training.config import TrainingConfig

__all__ = ["learning_rate_factor"]


def learning_rate_factor(step: int, config: TrainingConfig) -> float:
    """Return the factor of step ``step`` (from 0).

    After the linear warm-up: ``constant`` 1; ``cosine`` from 1 to 0.01 and ``linear`` from 1 to 0 over the
    steps that are left; ``step`` times ``decay`` from each milestone on.
    """
    if step < config.warmup:
        return (step + 1) / config.warmup
    done = min(1.0, (step - config.warmup) / max(1, config.steps - config.warmup))
    if config.schedule == "cosine":
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))
    if config.schedule == "linear":
        return 1 - done
    if config.schedule == "step":
        return config.decay ** bisect_right(config.milestones, step)
    return 1.0
