"""The folder of a training run: the card of its best model, with all that is needed to go on beside it.

``README.md`` and ``model.safetensors`` are the best model so far, ``last/`` is the card of the last
checkpoint, ``checkpoint.pt`` the state of everything, ``training.yaml`` what decides the run, ``log.jsonl`` a
line per step and validation, ``skipped.jsonl`` the files that could not be used, ``tensorboard/`` curves.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from avsep_zoo.contracts import Objective
from avsep_zoo.errors import DataError, WeightsError
from avsep_zoo.model import SeparationModel
from avsep_zoo.training.average import Average
from avsep_zoo.training.config import TrainingConfig
from avsep_zoo.training.lora import merged
from avsep_zoo.training.turn import Optimisers
from avsep_zoo.weights.cards import write_card

__all__ = [
    "RunState",
    "Trained",
    "card_name",
    "create",
    "resume",
    "save_card",
    "save_checkpoint",
    "save_settings",
]


@dataclass
class RunState:
    """Where a run stands.

    Args:
        step: steps done.
        sdr: of the last validation, in dB.
        best: best validation SDR in dB.
        stale: validations since then.
    """

    step: int = 0
    sdr: float = math.nan
    best: float = -math.inf
    stale: int = 0

    def judge(self, sdr: float) -> bool:
        """Take in a validation and return whether it is the best so far; until one has a score, the last is."""
        better = sdr > self.best or not math.isfinite(self.best)
        self.sdr, self.stale = sdr, 0 if better else self.stale + 1
        self.best = sdr if better and math.isfinite(sdr) else self.best
        return better


@dataclass
class Trained:
    """Everything that changes while a model is trained. Random numbers follow from the seed and the step."""

    model: SeparationModel
    objective: Objective
    optimisers: Optimisers
    scaler: torch.amp.GradScaler
    average: Average | None

    @property
    def exported(self) -> SeparationModel:
        """The model that is validated and written to cards."""
        return self.model if self.average is None else self.average.model

    def state_dict(self) -> dict[str, Any]:
        """All states."""
        return {
            "model": self.model.state_dict(),
            "objective": self.objective.state_dict(),
            "optimisers": {turn: [o.state_dict() for o in several] for turn, several in self.optimisers.items()},
            "scaler": self.scaler.state_dict(),
            "average": None if self.average is None else self.average.model.state_dict(),
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Load all states; an average that was not kept starts with the model."""
        self.model.load_state_dict(saved["model"])
        self.objective.load_state_dict(saved["objective"])
        for turn, several in self.optimisers.items():
            for optimiser, state in zip(several, saved["optimisers"][turn], strict=True):
                optimiser.load_state_dict(state)
        if self.scaler.is_enabled() and saved["scaler"]:
            self.scaler.load_state_dict(saved["scaler"])
        if self.average is not None:
            self.average.model.load_state_dict(saved["average"] or saved["model"])


def resume(
    run: Path, trained: Trained, config: TrainingConfig, data: Mapping[str, Any], told: Mapping[str, Any]
) -> RunState:
    """Load the last checkpoint of a run, if there is one.

    Args:
        run: folder.
        trained: where to load it.
        config: settings. What is trained and what it is validated on must be that of the run, or its best score
            would mean nothing; steps, batch, learning rate, schedule, augmentation and the rest may be others.
        data: what identifies the training data.
        told: further entries of the cards' manifest; ``started_from`` must be that of the run.

    Raises:
        DataError: the run has other parts, other data or a damaged checkpoint.
    """
    file = run / "checkpoint.pt"
    if not file.exists():
        return RunState()
    try:
        saved: dict[str, Any] = torch.load(file, weights_only=True, map_location="cpu")
        wanted = _identity(trained.model, config, data, told)
        for name, meaning in _MEANINGS.items():
            if saved[name] != wanted[name]:
                raise DataError(f"The run {str(run)!r} was started with other {meaning}; choose another one.")
        trained.load_state_dict(saved)
        return RunState(**saved["state"])
    except DataError:
        raise
    except Exception as error:  # a damaged file can fail in any way
        raise DataError(
            f"The checkpoint in {str(run)!r} cannot be used ({type(error).__name__}); it is damaged or from "
            "another version, remove it to start the run anew."
        ) from error


_MEANINGS = {
    "parts": "parts or settings of them",
    "start": "weights to start from",
    "trainable": "frozen parts or adapters",
    "data": "training data",
    "validation": "seed or validation mixtures",
}


def _identity(
    model: SeparationModel, config: TrainingConfig, data: Mapping[str, Any], told: Mapping[str, Any]
) -> dict[str, Any]:
    """What a run cannot change on its way."""
    settings = config.to_dict()
    validation = ("seed", "sources", "validation_mixtures", "frame_rate", "frame_stride", "protocol")
    return {
        "parts": model.parts,
        "start": told.get("started_from", {}).get("sha256"),
        "trainable": {name: settings[name] for name in ("freeze", "lora")},
        "data": {name: value for name, value in data.items() if name != "folder"},
        "validation": {name: settings[name] for name in validation},
    }


def create(run: Path) -> None:
    """Make the folder of a run, or take the one that is there.

    Raises:
        DataError: the folder holds something else.
    """
    begun = {"training.yaml.part", "log.jsonl"}  # all that is there if a run was killed in its first moment
    other = run.exists() and (not run.is_dir() or not {entry.name for entry in run.iterdir()} <= begun)
    if other and not (run / "training.yaml").exists():
        raise DataError(f"{str(run)!r} is neither an empty folder nor a training run; choose another one.")
    run.mkdir(parents=True, exist_ok=True)


def save_settings(run: Path, settings: Mapping[str, Any]) -> None:
    """Write ``training.yaml``."""
    temporary = run / "training.yaml.part"
    temporary.write_text(yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True), encoding="utf-8")
    temporary.replace(run / "training.yaml")


def card_name(model: SeparationModel, run: Path) -> str:
    """The name of the cards of a run: ``<method>.<tag>``, the tag being the name of its folder.

    It has lower-case letters, digits and underscores; a folder whose name has neither letters nor digits of that
    kind is called ``run``.
    """
    tag = re.sub("[^a-z0-9]", "_", run.resolve().name.lower())
    return f"{model.name.partition('.')[0]}.{tag if tag.strip('_') else 'run'}"


def save_checkpoint(
    run: Path,
    trained: Trained,
    config: TrainingConfig,
    state: RunState,
    *,
    data: Mapping[str, Any],
    told: Mapping[str, Any],
) -> None:
    """Write the card ``last/``, then the checkpoint; a run that is killed before the end does both again.

    Raises:
        DataError: a weight cannot be stored, or the disk is full; the last checkpoint is kept.
    """
    save_card(run, trained, config, state, told, last=True)
    saved = {**_identity(trained.model, config, data, told), **trained.state_dict(), "state": asdict(state)}
    temporary = run / "checkpoint.pt.part"
    try:
        torch.save(saved, temporary)
    except RuntimeError as error:  # what torch says of a full disk
        temporary.unlink(missing_ok=True)
        raise DataError(
            f"The checkpoint cannot be written to {str(run)!r}; free space on its disk, then run again: the last "
            "checkpoint is kept."
        ) from error
    temporary.replace(run / "checkpoint.pt")


def save_card(
    run: Path,
    trained: Trained,
    config: TrainingConfig,
    state: RunState,
    told: Mapping[str, Any],
    *,
    last: bool = False,
) -> None:
    """Write the model as it is now as the card of the best model, or of the last one.

    Raises:
        DataError: a weight is not finite, or does not fit float16.
    """
    history = {**config.to_dict(), "step": state.step, "validation_sdr": round(state.sdr, 3)}
    manifest = {**told, "training": history}
    model = merged(trained.exported)
    try:
        write_card(
            run / "last" if last else run, model, name=card_name(model, run), half=config.half, manifest=manifest
        )
    except WeightsError as error:
        why = str(error).partition(";")[0]
        change = "set half to false" if config.half else "lower the learning rate or set clip_norm"
        raise DataError(f"{why}; {change}, then run again: the last checkpoint is kept.") from error
