"""One readable training loop on Hugging Face Accelerate."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from accelerate.utils import set_seed

from avsep_zoo.errors import DataError
from avsep_zoo.evaluation.score import objective_of, validate
from avsep_zoo.model import SeparationModel
from avsep_zoo.training import items, processes, run_folder
from avsep_zoo.training.average import Average
from avsep_zoo.training.config import TrainingConfig
from avsep_zoo.training.freeze import freeze, train_mode
from avsep_zoo.training.logs import Progress, RunLog, note_skipped
from avsep_zoo.training.lora import add_adapters
from avsep_zoo.training.run_folder import RunState, Trained
from avsep_zoo.training.schedule import learning_rate_factor
from avsep_zoo.training.turn import Turns

__all__ = ["train"]


def train(
    model: SeparationModel,
    data: Path,
    run: Path,
    config: TrainingConfig,
    *,
    dataset: str | None = None,
    origin: Mapping[str, Any] = MappingProxyType({}),
    told: Mapping[str, Any] = MappingProxyType({}),
    progress: Progress | None = None,
) -> Path:
    """Train ``model`` on a data folder; continue where ``run`` left off, exactly.

    What is drawn in a step follows from the seed, the step and the process, and mixture p of step s is the same
    for any number of processes. On a GPU, kernels that sum in any order may change the last bits.

    Args:
        model: a composed model (:func:`~avsep_zoo.training.start.starting_model`); its recipe names the objective.
        data: folder of a data set.
        run: folder to write (:mod:`avsep_zoo.training.run_folder`); an existing run is resumed.
        config: settings.
        dataset: reader of the data; None is the first that knows the folder.
        origin: where the model comes from, for ``training.yaml``.
        told: further entries of the cards' manifest: licences, and ``started_from``, the card it starts from.
        progress: called with every log record, in the main process.

    Raises:
        DataError: the data cannot be used, the run folder holds another run, or the loss is not finite. With
            several processes the others end with SystemExit.
    """
    accelerator = processes.start()
    main = accelerator.is_main_process
    with processes.together():
        torch.manual_seed(config.seed)
        objective = objective_of(model)
        if not (run / "checkpoint.pt").exists():
            objective.load_pretrained()
        if config.members > 1 and not objective.mixtures_only:
            raise DataError(f"{model.name} cannot learn from mixtures only; set members to 1.")
        lists = items.read_lists(data, dataset, config)
        items.check_classes(model, (*lists.train, *lists.validation))
        training = items.training_items(
            model, lists.train, config, whole=objective.whole_recordings, captioned=objective.captioned
        )
        validation = items.validation_items(model, lists.validation, config)
        freeze(model, config.freeze)
        if config.lora is not None:
            add_adapters(model, config.lora)
        model.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        objective.to(accelerator.device)
        optimisers = objective.optimisers(model, learning_rate=config.learning_rate)
        turns = Turns(accelerator, model, objective, optimisers, config)
        peak = [group["lr"] for group in turns.groups()]
        average = Average(model, config.ema) if config.ema and main else None
        trained = Trained(model, objective, optimisers, turns.scaler, average)
        state = run_folder.resume(run, trained, config, lists.identity, told)
        batches = items.parts_of_steps(
            training, config, state.step, process=accelerator.process_index, processes=accelerator.num_processes
        )
    with processes.together():
        if main:
            run_folder.create(run)
        kept = state.step if (run / "checkpoint.pt").exists() else -1
        log = RunLog(run if main else None, step=kept, tensorboard=config.tensorboard, progress=progress)
    turns.join()

    part = config.batch // config.accumulate  # what fits the device

    def judge() -> None:
        """Score the model, keep it if it is the best, and let every process know."""
        with processes.together():
            if main:
                better = state.judge(validate(trained.exported, objective, validation, batch=part))
                log.record(step=state.step, validation_sdr=round(state.sdr, 3))
                note_skipped(run, validation.skipped)
                if better:
                    run_folder.save_card(run, trained, config, state, told)
        (known,) = processes.gathered([vars(state)] if main else [])
        vars(state).update(known)
        train_mode(model)

    def save() -> None:
        with processes.together():
            if main:
                run_folder.save_checkpoint(run, trained, config, state, data=lists.identity, told=told)

    train_mode(model)
    objective.train()
    started = time.monotonic()
    with log:
        with processes.together():
            if main:
                made_of = origin or {"parts": model.parts}
                run_folder.save_settings(run, {**made_of, "data": lists.identity, "training": config.to_dict()})
                note_skipped(run, (*lists.skipped, *training.skipped))
        if config.validate_first and state.step == 0:
            judge()
        while state.step < config.steps and not _is_stale(state, config):
            processes.end_if_orphaned()
            begun = time.monotonic()
            with processes.together():
                parts = list(islice(batches, config.accumulate))
            _note(run, parts, main)
            set_seed(_seed(config, state.step, accelerator.process_index))
            for group, rate in zip(turns.groups(), peak, strict=True):
                group["lr"] = rate * learning_rate_factor(state.step, config)
            values: dict[str, float] = {}
            for turn in objective.turns(state.step):
                losses = turns.take(turn, parts, state.step)
                values |= losses if turn == "model" else {f"{turn}.{name}": loss for name, loss in losses.items()}
            state.step += 1
            if average is not None:
                average.update(model, state.step)
            now = time.monotonic()
            speed = {"seconds": round(now - started, 2), "items_per_second": round(config.batch / (now - begun), 2)}
            log.record(step=state.step, **speed, **values)
            if state.step % config.validate_every == 0 or state.step == config.steps:
                judge()
            every = config.checkpoint_every or config.validate_every
            if state.step % every == 0 or state.step == config.steps or _is_stale(state, config):
                save()
    return run


def _seed(config: TrainingConfig, step: int, process: int) -> int:
    return int(np.random.SeedSequence((config.seed, step, process)).generate_state(1)[0])


def _is_stale(state: RunState, config: TrainingConfig) -> bool:
    return 0 < config.patience <= state.stale


def _note(run: Path, parts: Sequence[Mapping[str, Any]], main: bool) -> None:
    skipped = processes.gathered([entry for part in parts for entry in part["skipped"]])
    if main and skipped:
        note_skipped(run, skipped)
