"""New classes for a trained model: one more query per class, attention frozen.

Source: Chen et al., iQuery, CVPR 2023, which states the principle (a query plays the part of a prompt); the
published code has nothing for it, so what else stays trainable is a setting here.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn

from avsep_iquery.conditioner import QueryConditioner
from avsep_iquery.encoder import IQueryEncoder, plain_name
from avsep_zoo.errors import CompositionError, DataError
from avsep_zoo.model import SeparationModel

__all__ = ["add_classes", "freeze_for_expansion"]


def add_classes(model: SeparationModel, names: Sequence[str]) -> SeparationModel:
    """Return a copy of ``model`` that knows more classes; ``model`` itself stays as it is.

    A model has spare queries behind those of its classes (11 classes and 12 queries in ``iquery.music``).
    They have always taken part in the attention between queries, so a spare query becomes the query of a new
    class without any change of a number: every output for the old classes is bit for bit what it was. When
    there are more new classes than spare queries, new queries drawn from a standard normal distribution are
    put behind the old ones, and from then on every old query attends to them too: the old classes' outputs
    change a little at once. In both cases training the new query changes them further, because the old
    queries see it; nothing in this architecture keeps them bit-equal during training, however much is frozen.

    A model that can do without a label (``optional`` has ``label``) uses its last query for it. That query is
    never given away and stays the last one. Learned class vectors, where the encoder has them, grow likewise.

    Args:
        model: a trained iQuery model.
        names: the new classes.

    Raises:
        CompositionError: the model has no class queries.
        DataError: no name is given, or one is there twice or already known.
    """
    _parts(model)
    _check_names(model, names)
    expanded = copy.deepcopy(model)
    encoder, conditioner = _parts(expanded)
    classes = (*encoder.classes, *names)
    reserved = int("label" in encoder.optional)
    needed = len(classes) + reserved
    conditioner.query_embed = conditioner.query_embed.grown(needed, kept_last=reserved)
    if encoder.class_vectors is not None:
        encoder.class_vectors = encoder.class_vectors.grown(needed, kept_last=reserved)
    if encoder.recogniser is not None:
        encoder.recogniser = _with_outputs(encoder.recogniser, len(names))
    rows = max(needed, encoder.gives["index"])
    encoder.classes, encoder.gives = classes, {**encoder.gives, "index": rows}
    changes: dict[str, dict[str, Any]] = {
        "encoder": {"classes": list(classes), "spare_queries": rows - len(classes)},
        "conditioner": {"queries": conditioner.query_embed.num_embeddings},
    }
    for slot, change in changes.items():
        if slot in expanded.parts:
            expanded.parts[slot] = {**expanded.parts[slot], **change}
    return expanded


def freeze_for_expansion(
    model: SeparationModel, names: Sequence[str], *, frozen: Literal["attention", "all"] = "attention"
) -> SeparationModel:
    """Leave only what an expansion trains with a gradient, in place, and return ``model``.

    ``attention``, the default reading of the paper, freezes the parameters of every attention and every query
    (and class vector) but those of ``names``; feed-forward blocks, norms, projections, mask embedding, U-Net
    and frame head are trained on. ``all`` freezes everything but the queries (and class vectors) of
    ``names``. Batch norms in training mode move their running statistics in both cases. The objective's
    optimisers use no weight decay on the queries, which keeps frozen ones bit-equal; an optimiser of your own
    must do the same. (Freezing itself may move the last bit of an output: PyTorch chooses kernels by it.)

    Args:
        model: a model that knows ``names``, usually from :func:`add_classes`.
        names: the new classes.
        frozen: what is frozen beside the other queries.

    Raises:
        CompositionError: the model has no class queries.
        CueError: a class is unknown.
    """
    encoder, conditioner = _parts(model)
    rows = tuple(sorted(encoder.label_index(name) for name in names))
    for key, parameter in model.named_parameters():
        if frozen == "all" or "attn" in key:
            parameter.requires_grad_(False)
    for table in (conditioner.query_embed, encoder.class_vectors):
        if table is not None:
            table.trained_rows = rows
            table.requires_grad_(True)
    return model


def _parts(model: SeparationModel) -> tuple[IQueryEncoder, QueryConditioner]:
    encoder, conditioner = model.encoder, model.conditioner
    if not isinstance(encoder, IQueryEncoder) or not isinstance(conditioner, QueryConditioner):
        raise CompositionError(
            f"The model {model.name!r} has the encoder {type(encoder).__name__} and the conditioner "
            f"{type(conditioner).__name__}; only iquery.cues with iquery.queries has class queries to expand."
        )
    return encoder, conditioner


def _with_outputs(linear: nn.Linear, count: int) -> nn.Linear:
    """Add ``count`` outputs that a softmax ignores to the last bit until they are trained."""
    wide = nn.Linear(linear.in_features, linear.out_features + count, device=linear.weight.device)
    with torch.no_grad():
        wide.weight.zero_()
        wide.bias.fill_(-1e4)
        wide.weight[: linear.out_features] = linear.weight
        wide.bias[: linear.out_features] = linear.bias
    return wide.requires_grad_(linear.weight.requires_grad)


def _check_names(model: SeparationModel, names: Sequence[str]) -> None:
    if not names:
        raise DataError("No new class is named; give at least one.")
    known = {plain_name(name) for name in model.classes}
    for name in names:
        if plain_name(name) in known:
            raise DataError(f"The class {name!r} is there already; give classes the model does not know, each once.")
        known.add(plain_name(name))
