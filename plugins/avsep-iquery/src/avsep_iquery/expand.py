"""New classes for a trained model: one more query per class, behind those the model has.

Source: Chen et al., iQuery, CVPR 2023, which states the principle (a new class is one more query, which plays the
part of a prompt, and attention stays frozen); the published code has nothing for it. What is frozen beside the
old queries is the choice of the training run (:func:`avsep_zoo.training.freeze.freeze`).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch

from avsep_iquery.conditioner import QueryConditioner
from avsep_iquery.encoder import IQueryEncoder
from avsep_zoo.blocks.class_table import ClassTable
from avsep_zoo.class_names import plain_name
from avsep_zoo.errors import CompositionError, DataError
from avsep_zoo.model import SeparationModel

__all__ = ["add_classes"]


def add_classes(model: SeparationModel, names: Sequence[str]) -> SeparationModel:
    """Return a copy of ``model`` that knows more classes; ``model`` itself stays as it is.

    The new queries, drawn from a standard normal distribution, form a group behind all others. They attend to
    the queries before them and no query before them ever attends to them, so every output for the old classes
    (and for no class) is bit for bit what it was, and stays so however the new queries are trained, as long as
    nothing else is: ``freeze(model, ["all"])``. Where the encoder has learned class vectors and recognises
    classes from frames, both grow likewise; frames that show no new class give what they gave before. Spare
    queries stay spare: the last of them stands for no class.

    Of the tables of class rows only the new rows are trained from here on. The model can be expanded again:
    the classes of the first expansion keep every bit through the second one, too.

    Args:
        model: a trained iQuery model.
        names: the new classes.

    Raises:
        CompositionError: the model has no class queries, or not one for every row its encoder counts.
        DataError: no name is given, or one is there twice or already known.
    """
    encoder, conditioner = _parts(model)
    _check_names(model, names)
    rows = encoder.originals + encoder.spare_queries
    if rows != conditioner.queries:
        raise CompositionError(
            f"The encoder of {model.name!r} counts {rows} original rows and there are {conditioner.queries} queries; "
            f"set encoder.spare_queries to {conditioner.queries - encoder.originals} before classes are added."
        )
    expanded = copy.deepcopy(model)
    encoder, conditioner = _parts(expanded)
    encoder.classes, encoder.added = (*encoder.classes, *names), (*encoder.added, len(names))
    encoder.gives = {**encoder.gives, "index": encoder.gives["index"] + len(names)}
    conditioner.added = encoder.added
    conditioner.query_embed = conditioner.query_embed.grown(len(names))
    if encoder.class_vectors is not None:
        encoder.class_vectors = encoder.class_vectors.grown(len(names))
        encoder.added_recogniser = _recogniser(encoder, len(names))
    changes: dict[str, dict[str, Any]] = {
        "encoder": {"classes": list(encoder.classes), "added": list(encoder.added)},
        "conditioner": {"added": list(conditioner.added)},
    }
    for slot, change in changes.items():
        if slot in expanded.parts:
            expanded.parts[slot] = {**expanded.parts[slot], **change}
    return expanded


def _parts(model: SeparationModel) -> tuple[IQueryEncoder, QueryConditioner]:
    encoder, conditioner = model.encoder, model.conditioner
    if not isinstance(encoder, IQueryEncoder) or not isinstance(conditioner, QueryConditioner):
        raise CompositionError(
            f"The model {model.name!r} has the encoder {type(encoder).__name__} and the conditioner "
            f"{type(conditioner).__name__}; only iquery.cues with iquery.queries has class queries to expand."
        )
    return encoder, conditioner


def _recogniser(encoder: IQueryEncoder, count: int) -> ClassTable:
    """The recogniser of the added classes with ``count`` more, which recognise nothing until they are trained."""
    like, width = encoder.fc.weight, encoder.gives["vector"] + 1
    old = encoder.added_recogniser or ClassTable(0, width, device=like.device, dtype=like.dtype)
    table = old.grown(count)
    with torch.no_grad():
        table.weight[-count:] = 0.0
    return table.train(encoder.training)


def _check_names(model: SeparationModel, names: Sequence[str]) -> None:
    if not names:
        raise DataError("No new class is named; give at least one.")
    known = {plain_name(name) for name in model.classes}
    for name in names:
        if not plain_name(name):
            raise DataError(f"The new class {name!r} has no name; give one that is not blank.")
        if plain_name(name) in known:
            raise DataError(f"The class {name!r} is there already; give classes the model does not know, each once.")
        known.add(plain_name(name))
