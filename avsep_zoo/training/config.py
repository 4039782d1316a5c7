"""What a training run is told, with every field checked and saved in the run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from avsep_zoo.data.augment import Augmentation
from avsep_zoo.errors import DataError

__all__ = ["TrainingConfig"]

_LEAST = {
    "steps": 1, "batch": 1, "sources": 2, "warmup": 0, "seed": 0, "validate_every": 1,
    "validation_mixtures": 1, "workers": 0,
}  # fmt: skip


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of the trainer.

    Args:
        steps: optimiser steps in all.
        batch: mixtures per step.
        sources: sources per mixture, at least 2.
        learning_rate: peak learning rate; None is the objective's own.
        warmup: steps of linear warm-up.
        schedule: ``cosine`` (to 1 % at the last step) or ``constant``.
        clip_norm: largest gradient norm, 0 for no clipping.
        seed: of weights, data and augmentation.
        validate_every: steps between validations and checkpoints.
        validation_mixtures: number of validation mixtures.
        workers: data-loading processes.
        precision: ``no`` or ``bf16``.
        half: store the card's weights as float16.
        frame_rate: of the stored frames, per second.
        augmentation: settings of :class:`~avsep_zoo.data.augment.Augmentation`.
    """

    steps: int = 10000
    batch: int = 16
    sources: int = 2
    learning_rate: float | None = None
    warmup: int = 0
    schedule: str = "constant"
    clip_norm: float = 0.0
    seed: int = 0
    validate_every: int = 500
    validation_mixtures: int = 64
    workers: int = 1
    precision: str = "no"
    half: bool = False
    frame_rate: float = 1.0
    augmentation: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            self._check(name, isinstance(getattr(self, name), int), "a whole number")
            self._check(name, getattr(self, name) >= least, f"at least {least}")
        for name in ("learning_rate", "clip_norm", "frame_rate"):
            value = getattr(self, name)
            if name != "learning_rate" or value is not None:
                self._check(name, isinstance(value, int | float) and 0 <= value < math.inf, "a number of at least 0")
                self._check(name, value > 0 or name == "clip_norm", "a number above 0")
        self._check("schedule", self.schedule in ("cosine", "constant"), "cosine or constant")
        self._check("precision", self.precision in ("no", "bf16"), "no or bf16")
        self._check("half", isinstance(self.half, bool), "true or false")
        self.augmenting()

    def _check(self, name: str, right: bool, wanted: str) -> None:
        if not right:
            raise DataError(f"The training setting {name} is {getattr(self, name)!r}; give {wanted}.")

    def augmenting(self) -> Augmentation:
        """Return the augmentation; nothing is varied where it is not set.

        Raises:
            DataError: it has an unknown field or an impossible value.
        """
        values = {} if self.augmentation is None else self.augmentation
        self._check("augmentation", isinstance(values, Mapping), "a mapping of its fields")
        known = [field.name for field in fields(Augmentation)]
        for name, value in values.items():
            if name not in known:
                raise DataError(f"The augmentation has no setting {name!r}; it has {', '.join(known)}.")
            if not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise DataError(f"The augmentation setting {name} is {value!r}; give a number of at least 0.")
        return Augmentation(**values)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> TrainingConfig:
        """Read settings; an unknown name is an error, never ignored.

        Raises:
            DataError: a setting is unknown or has an impossible value.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise DataError(f"The trainer has no setting {unknown[0]!r}; it has {', '.join(sorted(known))}.")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain JSON."""
        return asdict(self)
