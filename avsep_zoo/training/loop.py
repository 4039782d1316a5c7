"""One readable training loop on Hugging Face Accelerate."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

from avsep_zoo.data.mix_and_separate import FixedMixtures, MixAndSeparate, collate
from avsep_zoo.data.music import Clip, read_clips
from avsep_zoo.errors import AvsepError, DataError
from avsep_zoo.evaluation.mixtures import objective_of, score_items
from avsep_zoo.model import SeparationModel
from avsep_zoo.training import run_folder
from avsep_zoo.training.config import TrainingConfig

__all__ = ["train"]


def train(
    model: SeparationModel,
    data: Path,
    run: Path,
    config: TrainingConfig,
    *,
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> Path:
    """Train ``model`` on a data folder; continue where ``run`` left off, exactly.

    The run folder is a weights card: ``README.md`` and ``model.safetensors`` hold the best model so far by
    validation SDR, ``checkpoint.pt`` everything needed to go on, ``log.jsonl`` a line per step and one per
    validation, ``training.yaml`` the parts and settings.

    Args:
        model: a composed model; its recipe names the objective.
        data: a folder in the MUSIC layout with ``train.csv`` and ``val.csv``.
        run: folder to write; an existing run of the same recipe is resumed.
        config: settings.
        progress: called with every log record.

    Raises:
        DataError: the data cannot be used, the run folder holds another run, or the loss is not finite.
    """
    accelerator = Accelerator(mixed_precision="no", cpu=not torch.cuda.is_available())
    autocast = torch.autocast(accelerator.device.type, torch.bfloat16, enabled=config.precision == "bf16")
    torch.manual_seed(config.seed)
    objective = objective_of(model)
    items = _training_items(model, read_clips(data, "train"), config)
    validation = _validation_items(model, read_clips(data, "val"), config)
    model.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimisers = objective.optimisers(model, learning_rate=config.learning_rate)
    groups = [group for optimiser in optimisers for group in optimiser.param_groups]
    peak = [group["lr"] for group in groups]
    state = run_folder.open_run(run, model, optimisers, config)
    groups = [group for optimiser in optimisers for group in optimiser.param_groups]  # loading makes new ones
    loader = DataLoader(
        items,
        batch_size=config.batch,
        sampler=range(state.step * config.batch, config.steps * config.batch),
        num_workers=config.workers,
        collate_fn=collate,
        generator=torch.Generator(),  # so that starting to load draws nothing that the model would draw
    )
    with (run / "log.jsonl").open("a", encoding="utf-8") as log:

        def record(**values: Any) -> None:
            log.write(json.dumps({k: v if math.isfinite(v) else None for k, v in values.items()}) + "\n")
            log.flush()
            if progress:
                progress({**values, "steps": config.steps})

        model.train()
        started = time.monotonic()
        for batch in _one_sentence_errors(loader):
            factor = _learning_rate_factor(state.step, config)
            for group, rate in zip(groups, peak, strict=True):
                group["lr"] = rate * factor
            batch = {name: value.to(accelerator.device) for name, value in batch.items()}
            with autocast:
                losses = objective.loss(model, batch)
            values = {name: float(value.detach()) for name, value in losses.items()}
            for optimiser in optimisers:
                optimiser.zero_grad(set_to_none=True)
            accelerator.backward(losses["loss"])
            norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm or math.inf))
            if not math.isfinite(values["loss"] + norm):
                raise DataError(
                    f"The loss is {values['loss']} and its gradient {norm} in step {state.step + 1}; lower "
                    "the learning rate or set clip_norm, then run again: the last checkpoint is kept."
                )
            for optimiser in optimisers:
                optimiser.step()
            state.step += 1
            record(step=state.step, seconds=round(time.monotonic() - started, 2), **values)
            if state.step % config.validate_every == 0 or state.step == config.steps:
                sdr = score_items(model, validation, validation.mixtures, batch=config.batch).sdr
                record(step=state.step, validation_sdr=round(sdr, 3))
                run_folder.save(run, model, optimisers, config, state, sdr=sdr)
    return run


def _one_sentence_errors(batches: Iterable[Any]) -> Iterator[Any]:
    """Pass batches on; of an error in a data-loading process keep the message and drop its traceback."""
    try:
        yield from batches
    except AvsepError as error:
        last = str(error).strip().splitlines()[-1]
        raise type(error)(last.removeprefix(f"{type(error).__module__}.{type(error).__qualname__}: ")) from error


def _training_items(model: SeparationModel, clips: Sequence[Clip], config: TrainingConfig) -> MixAndSeparate:
    return MixAndSeparate(
        clips,
        model.encoder.prepare,
        rate=model.front_end.rate,
        length=model.front_end.length,
        items=config.steps * config.batch,
        sources=config.sources,
        seed=config.seed,
        frame_rate=config.frame_rate,
        augmentation=config.augmenting(),
        motion="motion" in model.encoder.reads,
    )


def _validation_items(model: SeparationModel, clips: Sequence[Clip], config: TrainingConfig) -> FixedMixtures:
    """Pairs of clips of different classes, drawn by the run's seed."""
    rng = np.random.default_rng(config.seed)
    pairs: list[tuple[Clip, ...]] = []
    if len({clip.label for clip in clips}) < config.sources:
        raise DataError(f"val.csv has fewer than {config.sources} classes; validation mixtures need different ones.")
    while len(pairs) < config.validation_mixtures:
        drawn = tuple(clips[i] for i in rng.choice(len(clips), config.sources, replace=False))
        if len({clip.label for clip in drawn}) == config.sources:
            pairs.append(drawn)
    return FixedMixtures(
        pairs,
        model.encoder.prepare,
        rate=model.front_end.rate,
        length=model.front_end.length,
        frame_rate=config.frame_rate,
        motion="motion" in model.encoder.reads,
    )


def _learning_rate_factor(step: int, config: TrainingConfig) -> float:
    if step < config.warmup:
        return (step + 1) / config.warmup
    if config.schedule == "constant":
        return 1.0
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
