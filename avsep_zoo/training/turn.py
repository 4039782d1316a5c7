"""One turn of a step: losses of all its parts, gradients over all processes, a step of the turn's optimisers."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from avsep_zoo.contracts import Objective
from avsep_zoo.errors import DataError
from avsep_zoo.model import SeparationModel
from avsep_zoo.training.config import TrainingConfig
from avsep_zoo.training.processes import fail

__all__ = ["Optimisers", "Turns", "chosen_precision"]

Optimisers = Mapping[str, Sequence[torch.optim.Optimizer]]


class _Both(nn.Module):
    """Model and objective as one module, so that the gradients of both are averaged over the processes."""

    def __init__(self, model: SeparationModel, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: Mapping[str, Any], turn: str) -> dict[str, Tensor]:
        losses = self.objective.loss(self.model, batch, turn)
        return {name: value if name == "loss" else value.detach() for name, value in losses.items()}


class Turns:
    """Takes the turns of a run.

    Args:
        accelerator: the processes and the device.
        model, objective: on the device.
        optimisers: turn -> its optimisers.
        config: precision and clipping.

    Raises:
        DataError: a turn has nothing to train, or the precision needs another device.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: SeparationModel,
        objective: Objective,
        optimisers: Optimisers,
        config: TrainingConfig,
    ) -> None:
        self.accelerator, self.objective, self.optimisers, self.config = accelerator, objective, optimisers, config
        self.parameters = {turn: _parameters(turn, several, config) for turn, several in optimisers.items()}
        self.module = _Both(model, objective)
        self.device = accelerator.device
        self.precision = chosen_precision(config, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")

    def groups(self) -> list[dict[str, Any]]:
        """Parameter groups of all optimisers, in a fixed order."""
        return [group for several in self.optimisers.values() for o in several for group in o.param_groups]

    def join(self) -> None:
        """Couple the gradients of all processes; every process calls it, with the same weights or not."""
        self.module = self.accelerator.prepare(self.module)

    def take(self, turn: str, batches: Sequence[Mapping[str, Any]], step: int) -> dict[str, float]:
        """Take one turn of step ``step`` and return its losses, averaged over parts and processes.

        Args:
            turn: a key of the optimisers.
            batches: the parts of the step that this process takes.
            step: from 0.

        Raises:
            DataError: the loss or its gradient is not finite; nothing has been changed then.
        """
        self._train_only(turn)
        sums: dict[str, Tensor] = {}
        for number, batch in enumerate(batches, 1):
            with nullcontext() if number == len(batches) else self.accelerator.no_sync(self.module):
                with self._autocast():
                    losses = self.module(_moved(batch, self.device), turn)
                self.scaler.scale(losses["loss"] / len(batches)).backward()
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value.detach().float() / len(batches)
        stepping = [o for o in self.optimisers[turn] if any(p.grad is not None for p in _of(o))]
        for optimiser in stepping:
            self.scaler.unscale_(optimiser)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters[turn], self.config.clip_norm or math.inf)
        means = self.accelerator.reduce(torch.stack(list(sums.values())), "mean")
        values = dict(zip(sums, means.tolist(), strict=True)) | {"gradient_norm": float(norm)}
        self._check(values, step)
        for optimiser in stepping:
            self.scaler.step(optimiser)  # which leaves a step out whose gradient overflows float16
        self.scaler.update()
        return values | {"learning_rate": self.optimisers[turn][0].param_groups[0]["lr"]}

    def _train_only(self, turn: str) -> None:
        """Let gradients reach the parameters of ``turn`` alone, and forget what they were."""
        if turn not in self.parameters:
            raise DataError(
                f"The objective takes a turn {turn!r} and has optimisers for {', '.join(self.parameters)}; "
                "report it to its author."
            )
        for other in self.parameters:
            for parameter in self.parameters[other]:
                parameter.requires_grad_(False)
        for parameter in self.parameters[turn]:
            parameter.requires_grad_(True)
            parameter.grad = None

    def _autocast(self) -> torch.autocast:
        half = torch.float16 if self.precision == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, half, enabled=self.precision != "no")

    def _check(self, values: Mapping[str, float], step: int) -> None:
        overflow = self.scaler.is_enabled() and self.scaler.get_scale() > 1  # float16: the scale is lowered
        if not math.isfinite(values["loss"]) or not (overflow or math.isfinite(values["gradient_norm"])):
            fail(
                DataError(
                    f"The loss is {values['loss']} and its gradient {values['gradient_norm']} in step {step + 1}; "
                    "lower the learning rate or set clip_norm, then run again: the last checkpoint is kept."
                )
            )


def chosen_precision(config: TrainingConfig, device: torch.device) -> str:
    """Return the precision of the settings, or what ``accelerate launch`` says.

    Raises:
        DataError: it is unknown, or float16 and the device is no GPU.
    """
    precision = config.precision or os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if precision not in ("no", "bf16", "fp16"):
        raise DataError(f"The mixed precision of accelerate is {precision!r}; choose no, bf16 or fp16.")
    if precision == "fp16" and device.type != "cuda":
        raise DataError(f"The precision is fp16 and the device {device.type}; take bf16 or no without a GPU.")
    return precision


def _parameters(turn: str, optimisers: Sequence[torch.optim.Optimizer], config: TrainingConfig) -> list[nn.Parameter]:
    parameters = [parameter for optimiser in optimisers for parameter in _of(optimiser)]
    if not parameters:
        frozen = ", ".join(config.freeze) or "nothing"
        raise DataError(f"Nothing is left to train in the turn {turn!r} when {frozen} is frozen; freeze less.")
    return parameters


def _of(optimiser: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimiser.param_groups for parameter in group["params"]]


def _moved(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    return {name: value.to(device) if hasattr(value, "to") else value for name, value in batch.items()}
