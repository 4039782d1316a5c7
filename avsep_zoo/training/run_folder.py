"""The folder of a training run: a weights card with a checkpoint and a log beside it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from avsep_zoo.cards import write_card
from avsep_zoo.errors import DataError
from avsep_zoo.model import SeparationModel
from avsep_zoo.training.config import TrainingConfig

__all__ = ["RunState", "open_run", "save"]


@dataclass
class RunState:
    """Where a run stands: steps done, best validation SDR in dB."""

    step: int = 0
    best: float = -math.inf


def open_run(
    run: Path, model: SeparationModel, optimisers: Sequence[torch.optim.Optimizer], config: TrainingConfig
) -> RunState:
    """Create the run folder, or load its last checkpoint into model and optimisers.

    The log is cut back to the step of the checkpoint: what a killed run did after it is done again.

    Raises:
        DataError: the folder holds something else, a run with other parts, or a damaged checkpoint.
    """
    state = RunState()
    if (run / "checkpoint.pt").exists():
        state = _load(run, model, optimisers)
    elif run.exists() and (not run.is_dir() or (any(run.iterdir()) and not (run / "training.yaml").exists())):
        raise DataError(f"{str(run)!r} is neither an empty folder nor a training run; choose another one.")
    run.mkdir(parents=True, exist_ok=True)
    _write(run / "training.yaml", yaml.safe_dump({"parts": model.parts, "training": config.to_dict()}))
    _write(run / "log.jsonl", _log_until(run / "log.jsonl", state.step))
    return state


def _load(run: Path, model: SeparationModel, optimisers: Sequence[torch.optim.Optimizer]) -> RunState:
    try:
        saved: dict[str, Any] = torch.load(run / "checkpoint.pt", weights_only=True, map_location="cpu")
        if saved["parts"] != model.parts:
            raise DataError(
                f"The run {str(run)!r} was started with other parts or settings of them; choose another one."
            )
        model.load_state_dict(saved["model"])
        for optimiser, state in zip(optimisers, saved["optimisers"], strict=True):
            optimiser.load_state_dict(state)
        torch.set_rng_state(saved["rng"])
        if torch.cuda.is_available():
            torch.cuda.set_rng_state_all(saved.get("cuda_rng", []))
        return RunState(saved["step"], saved["best"])
    except DataError:
        raise
    except Exception as error:  # a damaged file can fail in any way
        raise DataError(
            f"The checkpoint in {str(run)!r} cannot be used ({type(error).__name__}); it is damaged or from "
            "another version, remove it to start the run anew."
        ) from error


def _log_until(log: Path, step: int) -> str:
    """The lines of a log up to ``step``; a line that was cut off in the middle ends it."""
    kept = []
    if log.exists():
        for line in log.read_text(encoding="utf-8").splitlines(keepends=True):
            try:
                if json.loads(line)["step"] > step or not line.endswith("\n"):
                    break
            except (ValueError, TypeError, LookupError):
                break
            kept.append(line)
    return "".join(kept)


def save(
    run: Path,
    model: SeparationModel,
    optimisers: Sequence[torch.optim.Optimizer],
    config: TrainingConfig,
    state: RunState,
    *,
    sdr: float,
) -> None:
    """Write the card when ``sdr`` is the best so far, then the checkpoint.

    In this order a run that is killed between the two repeats both.
    """
    if sdr > state.best or not (run / "model.safetensors").exists():
        state.best = sdr if math.isfinite(sdr) else -math.inf
        history = {**config.to_dict(), "step": state.step, "validation_sdr": round(sdr, 3)}
        write_card(run, model, half=config.half, manifest={"training": history})
    saved = {
        "parts": model.parts,
        "model": model.state_dict(),
        "optimisers": [optimiser.state_dict() for optimiser in optimisers],
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "step": state.step,
        "best": state.best,
    }
    temporary = run / "checkpoint.pt.part"
    torch.save(saved, temporary)
    temporary.replace(run / "checkpoint.pt")


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
