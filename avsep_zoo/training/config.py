"""The settings of the trainer, every one of them checked."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from avsep_zoo.data.augment import Augmentation
from avsep_zoo.errors import DataError

__all__ = ["TrainingConfig", "hint"]

_WHOLE = {
    "steps": 1, "batch": 1, "accumulate": 1, "sources": 2, "members": 1, "warmup": 0, "seed": 0, "validate_every": 1,
    "validation_mixtures": 1, "patience": 0, "checkpoint_every": 1, "workers": 0, "frame_stride": 1,
}  # fmt: skip
_CHOICES: dict[str, tuple[str, ...]] = {
    "schedule": ("constant", "cosine", "linear", "step"),
    "precision": ("no", "bf16", "fp16"),
    "protocol": ("default", "paper"),
}
_SWITCHES = ("validate_first", "half", "tensorboard")
_MAY_BE_NONE = (
    "learning_rate", "checkpoint_every", "precision", "frame_rate", "validation_split", "lora",
    "augmentation",
)  # fmt: skip


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of the trainer; a data set, a seed and these decide a run.

    Args:
        steps: optimiser steps in all.
        batch: mixtures per step, over all processes and accumulated parts.
        accumulate: parts a step's mixtures are taken in, one after the other.
        sources: sources per mixture, at least 2.
        members: sounds per source; above 1 the sources are mixtures themselves, for methods that learn from those.
        solos: share of recordings of one sound among those of several, for methods that take both; in [0, 1).
        learning_rate: peak learning rate; None is the objective's own.
        warmup: steps of linear warm-up.
        schedule: ``constant``, ``cosine`` (to 1 % at the last step), ``linear`` (to 0 after the last step) or
            ``step`` (times ``decay`` at each of the ``milestones``).
        milestones: steps, ascending.
        decay: factor above 0, at most 1.
        clip_norm: largest gradient norm, 0 for no clipping.
        ema: decay in [0, 1) of the running average of the weights that is validated and exported; 0 for none.
        freeze: names of what is not trained: parts, groups a method defines, or parameters.
        lora: settings of low-rank adapters, e.g. ``{"r": 8}``; None for none.
        seed: of weights, data and augmentation.
        validate_every: steps between validations.
        validate_first: validate before the first step, too.
        validation_mixtures: number of validation mixtures.
        patience: validations without a better one until the run stops; 0 for never.
        checkpoint_every: steps between checkpoints; None is ``validate_every``.
        workers: data-loading processes, per training process.
        precision: ``no``, ``bf16`` or ``fp16``; None is what ``accelerate launch`` says.
        half: store the cards' weights as float16.
        tensorboard: write curves for TensorBoard.
        frame_rate: of the stored frames, per second; None is the data set's own.
        frame_stride: frames of the data set from one picture of a cue to the next.
        train_split: list of the clips to train with.
        validation_split: list of the clips to validate with; None is ``val`` where there is ``train``, and where the
            data set has no such list, a tenth of the training clips, which is not trained with then.
        protocol: ``default``, or ``paper`` for what published loaders do silently wrong.
        augmentation: settings of :class:`~avsep_zoo.data.augment.Augmentation`.
    """

    steps: int = 10000
    batch: int = 16
    accumulate: int = 1
    sources: int = 2
    members: int = 1
    solos: float = 0.0
    learning_rate: float | None = None
    warmup: int = 0
    schedule: str = "constant"
    milestones: tuple[int, ...] = ()
    decay: float = 0.1
    clip_norm: float = 0.0
    ema: float = 0.0
    freeze: tuple[str, ...] = ()
    lora: Mapping[str, Any] | None = None
    seed: int = 0
    validate_every: int = 500
    validate_first: bool = True
    validation_mixtures: int = 64
    patience: int = 0
    checkpoint_every: int | None = None
    workers: int = 1
    precision: str | None = None
    half: bool = False
    tensorboard: bool = False
    frame_rate: float | None = None
    frame_stride: int = 1
    train_split: str = "train"
    validation_split: str | None = None
    protocol: str = "default"
    augmentation: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        for name in ("milestones", "freeze"):
            self._check(name, isinstance(getattr(self, name), list | tuple), "a list")
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for field in fields(self):
            if getattr(self, field.name) is not None or field.name not in _MAY_BE_NONE:
                self._check_value(field.name)
        if self.schedule == "step":
            self._check("milestones", bool(self.milestones), "at least one step, as the schedule is step")
        if self.batch % self.accumulate:
            raise DataError(
                f"The batch of {self.batch} mixtures cannot be taken in {self.accumulate} equal parts; give a batch "
                f"that is a multiple of {self.accumulate}, or another accumulate."
            )
        self.augmenting()

    def _check_value(self, name: str) -> None:
        value = getattr(self, name)
        if name in _WHOLE:
            self._check(name, _is_whole(value), "a whole number")
            self._check(name, value >= _WHOLE[name], f"at least {_WHOLE[name]}")
            self._check(name, value < 2**63, "less than 2**63")
        elif name in _CHOICES:
            self._check(name, isinstance(value, str), "a text")
            self._check(name, value in _CHOICES[name], f"{hint(value, _CHOICES[name])}")
        elif name in _SWITCHES:
            self._check(name, isinstance(value, bool), "true or false")
        elif name in ("learning_rate", "frame_rate"):
            self._check(name, _is_number(value) and value > 0, "a number above 0")
        elif name == "clip_norm":
            self._check(name, _is_number(value), "a number of at least 0")
        elif name == "decay":
            self._check(name, _is_number(value) and 0 < value <= 1, "a number above 0, at most 1")
        elif name in ("ema", "solos"):
            self._check(name, _is_number(value) and value < 1, "a number of at least 0 and below 1")
        elif name == "milestones":
            steps = all(_is_whole(step) and step > 0 for step in value)
            self._check(name, steps and sorted(set(value)) == list(value), "steps in ascending order")
        elif name in ("train_split", "validation_split"):
            self._check(name, isinstance(value, str), "the name of a list")
        elif name == "freeze":
            self._check(name, all(isinstance(entry, str) and entry for entry in value), "a list of names")
        elif name == "lora":
            self._check(name, isinstance(value, Mapping), "a mapping with r")

    def _check(self, name: str, right: bool, wanted: str) -> None:
        if not right:
            raise DataError(f"The training setting {name} is {_plain(getattr(self, name))!r}; give {wanted}.")

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
                raise DataError(f"The augmentation has no setting {name!r}; {_known(name, known)}.")
            if not _is_number(value):
                raise DataError(f"The augmentation setting {name} is {value!r}; give a number of at least 0.")
        return Augmentation(**values)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> TrainingConfig:
        """Read settings; an unknown name is an error, never ignored.

        Raises:
            DataError: a setting is unknown or has an impossible value.
        """
        known = sorted(field.name for field in fields(cls))
        for name in values:
            if name not in known:
                raise DataError(f"The trainer has no setting {name!r}; {_known(name, known)}.")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain JSON."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}


def hint(name: Any, known: Iterable[str]) -> str:
    """Return the known names, or the one that is nearly ``name``."""
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return near[0] if near else ", ".join(known)


def _known(name: Any, known: list[str]) -> str:
    meant = hint(name, known)
    return f"did you mean {meant!r}" if meant in known else f"it has {meant}"


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    """Whether it is a number of at least 0."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value
