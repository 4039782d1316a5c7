"""What a run learns from and is validated on: lists of a data set, as items, in the order of the run's seed."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from avsep_zoo.contracts import CueEncoder
from avsep_zoo.data.clip import Clip
from avsep_zoo.data.collate import collate
from avsep_zoo.data.examples import with_examples
from avsep_zoo.data.fixed_mixtures import FixedMixtures
from avsep_zoo.data.mix_and_separate import MixAndSeparate
from avsep_zoo.data.reader import Skipped, open_data
from avsep_zoo.data.splits import hash_split
from avsep_zoo.errors import AvsepError, CueError, DataError
from avsep_zoo.model import SeparationModel
from avsep_zoo.registry import registry
from avsep_zoo.training.config import TrainingConfig

__all__ = [
    "Lists",
    "ValidationItems",
    "check_classes",
    "parts_of_steps",
    "read_lists",
    "training_items",
    "validation_items",
]


@dataclass(frozen=True)
class Lists:
    """Clips to train and to validate with, rows that were left out, and what identifies all of it."""

    train: Sequence[Clip]
    validation: Sequence[Clip]
    skipped: Sequence[Skipped]
    identity: dict[str, Any]


def read_lists(data: Path, dataset: str | None, config: TrainingConfig) -> Lists:
    """Read the lists of a data folder to train and to validate with.

    Raises:
        DataError: the folder is not a data set, or has no such lists.
    """
    reader = open_data(data, dataset, protocol=config.protocol, frame_rate=config.frame_rate)  # type: ignore[arg-type]
    train = reader.clips(config.train_split)
    beside = config.validation_split or config.train_split.replace("train", "val", 1)
    if config.validation_split or (beside != config.train_split and beside in reader.splits()):
        validation = reader.clips(beside)
    else:
        dealt = hash_split({clip.id: " + ".join(clip.labels) for clip in train})
        validation = [clip for clip in train if dealt[clip.id] == "val"]
        train = [clip for clip in train if dealt[clip.id] != "val"]
    kind = type(reader)
    targets = (kind, f"{kind.__module__}:{kind.__qualname__}")
    names = [entry.name for entry in registry().list("reader") if entry.target in targets]
    digest = hashlib.sha256()
    for clips in (train, validation):
        digest.update("\n".join(["", *(clip.id for clip in clips), ""]).encode())
    identity = {
        "folder": str(data.resolve()),
        "dataset": names[0] if names else None,
        "clips": len(train),
        "sha256": digest.hexdigest(),
    }
    return Lists(train, validation, tuple(reader.skipped), identity)


def check_classes(model: SeparationModel, clips: Iterable[Clip]) -> None:
    """Check that a model with a list of classes knows all that the clips have.

    Raises:
        DataError: it does not know some of them.
    """
    position = getattr(model.encoder, "label_index", None)
    unknown = []
    for label in sorted({label for clip in clips for label in clip.labels}) if position else ():
        try:
            position(label)  # type: ignore[misc]
        except CueError:
            unknown.append(label)
    if unknown:
        raise DataError(
            f"The data has classes that {model.name} does not know: {', '.join(unknown)}; add them with --add-class, "
            "rename them, or leave them out of the lists."
        )


def training_items(
    model: SeparationModel,
    clips: Sequence[Clip],
    config: TrainingConfig,
    *,
    whole: bool = False,
    captioned: bool = False,
) -> MixAndSeparate:
    """Items of all steps: mixture p of step s is item s * batch + p, however many processes there are.

    With ``whole`` recordings are taken as they are, of any number of sounds; with ``captioned`` they have texts as a
    whole, too (flags of the :class:`~avsep_zoo.contracts.Objective`).

    Raises:
        DataError: the clips do not fit the settings, or the encoder has no texts for recordings.
    """
    encoder = _preparing(model.encoder).train()
    caption = getattr(encoder, "caption", None) if captioned else None
    if captioned and config.members > 1 and caption is None:
        raise DataError(
            f"The objective needs texts of whole recordings and the encoder of {model.name} makes none; set members to "
            "1, or take an encoder of texts."
        )
    return MixAndSeparate(
        clips,
        encoder.prepare,
        rate=model.front_end.rate,
        length=model.front_end.length,
        items=config.steps * config.batch,
        sources=config.sources,
        members=config.members,
        whole=whole,
        solos=config.solos,
        caption=caption,
        seed=config.seed,
        augmentation=config.augmenting(),
        reads=encoder.reads,
        pictures=_pictures(encoder),
        stride=config.frame_stride,
        protocol=config.protocol,  # type: ignore[arg-type]
    )


class ValidationItems(Dataset[dict[str, Any]]):
    """Fixed mixtures; one that cannot be used gives way to the next that can, and is noted in ``skipped``."""

    def __init__(self, mixtures: FixedMixtures) -> None:
        self.mixtures = mixtures
        self.skipped: list[Skipped] = []

    def __len__(self) -> int:
        return len(self.mixtures)

    def __getitem__(self, index: int) -> dict[str, Any]:
        for turn in range(index, index + len(self)):
            clips = self.mixtures.mixtures[turn % len(self)]
            try:
                item = self.mixtures[turn % len(self)]
            except AvsepError as error:
                last = error
                self.skipped.append(Skipped(" + ".join(clip.id for clip in clips), str(error)))
            else:
                self.skipped += item["skipped"]
                return item
        raise DataError(f"None of the {len(self)} validation mixtures can be used; the last one: {last}") from last


def validation_items(model: SeparationModel, clips: Sequence[Clip], config: TrainingConfig) -> ValidationItems:
    """Mixtures of clips of one sound that have no class in common, drawn by the run's seed.

    Where there are none and the run learns from mixtures only, mixtures of its kind of recordings: what is scored then
    is each recording, put together from its sounds.

    Raises:
        DataError: there are too few classes.
    """
    members, mixtures = 1, _draw_mixtures([clip for clip in clips if len(clip.labels) < 2], config)
    if not mixtures and config.members > 1:
        members = config.members
        mixtures = _draw_mixtures([clip for clip in clips if len(clip.labels) == members], config)
    if not mixtures:
        raise DataError(
            f"The {len(clips)} clips for validation have too few classes for mixtures of {config.sources} sources; add "
            f"clips of one sound, of at least {config.sources} classes."
        )
    encoder = _preparing(model.encoder).eval()
    fixed = FixedMixtures(
        with_examples(mixtures, clips),
        encoder.prepare,
        rate=model.front_end.rate,
        length=model.front_end.length,
        reads=encoder.reads,
        members=members,
        pictures=_pictures(encoder),
        stride=config.frame_stride,
        protocol=config.protocol,  # type: ignore[arg-type]
    )
    return ValidationItems(fixed)


def _draw_mixtures(clips: Sequence[Clip], config: TrainingConfig) -> list[tuple[Clip, ...]]:
    rng = np.random.default_rng(config.seed)
    mixtures: list[tuple[Clip, ...]] = []
    for _ in range(100 * config.validation_mixtures):
        if len(mixtures) == config.validation_mixtures or len(clips) < config.sources:
            break
        drawn = tuple(clips[i] for i in rng.choice(len(clips), config.sources, replace=False))
        labels = [label for clip in drawn for label in clip.labels]
        if len(set(labels)) == len(labels):
            mixtures.append(drawn)
    return mixtures


def parts_of_steps(
    items: MixAndSeparate, config: TrainingConfig, step: int, *, process: int, processes: int
) -> Iterator[dict[str, Any]]:
    """Batches that process ``process`` of ``processes`` takes from step ``step`` on, ``accumulate`` of them per step.

    Raises:
        DataError: the batch cannot be shared evenly, or an item cannot be made.
    """
    parts = processes * config.accumulate
    if config.batch % parts:
        raise DataError(
            f"The batch of {config.batch} mixtures cannot be shared by {processes} processes in {config.accumulate} "
            f"parts each; give a batch that is a multiple of {parts}."
        )
    size = config.batch // parts
    first = range(step * config.batch + process * size, config.steps * config.batch, processes * size)
    loader = DataLoader(
        items,
        batch_sampler=(list(range(start, start + size)) for start in first),
        num_workers=config.workers,
        persistent_workers=config.workers > 0,
        prefetch_factor=4 if config.workers else None,
        collate_fn=collate,
        generator=torch.Generator(),  # so that starting to load draws nothing that the model would draw
    )
    return _one_sentence_errors(loader)


def _preparing(encoder: CueEncoder) -> CueEncoder:
    """Copy an encoder to prepare cues with, in a mode of its own; preparing needs no weights, which are shared."""
    weights = (*encoder.parameters(), *encoder.buffers())
    return copy.deepcopy(encoder, {id(tensor): tensor for tensor in weights})


def _pictures(encoder: CueEncoder) -> int:
    return int(getattr(encoder, "frames", 3))


def _one_sentence_errors(batches: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Pass batches on; of an error in a data-loading process keep the message and drop its traceback."""
    try:
        yield from batches
    except AvsepError as error:
        last = str(error).strip().splitlines()[-1]
        raise type(error)(last.removeprefix(f"{type(error).__module__}.{type(error).__qualname__}: ")) from error
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise DataError(
            "A data-loading process was ended, perhaps for want of memory; lower workers, or free memory."
        ) from error
