"""Freezing: which parameters a training run holds still, by name of a part or by pattern."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import chain

from torch import nn

from avsep_zoo.blocks.class_table import ClassTable
from avsep_zoo.errors import DataError
from avsep_zoo.model import SeparationModel

__all__ = ["freeze", "named_by", "train_mode", "trained_tables"]


def freeze(model: SeparationModel, names: Sequence[str]) -> frozenset[str]:
    """Freeze parameters in place and return their names.

    A frozen part does not move at all in :func:`train_mode`. That differs from a part that a method publishes
    as frozen (iQuery's frame network): its parameters get no gradient either, but its batch norms go on
    collecting statistics, unless it is frozen here as well.

    Rows of class tables that are being trained (those of classes just added) stay trainable whatever is named.

    Args:
        model: a composed model; what was frozen before stays frozen.
        names: ``attention`` (every attention, of any method), ``all``, or names and patterns of modules and
            parameters: ``encoder``, ``separator.down*``, ``conditioner.mask_embed``, ``*.bias``.

    Raises:
        DataError: a name fits nothing in the model.
    """
    kept = {id(table.weight) for table in trained_tables(model)}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    frozen: set[str] = set()
    for name in names:
        frozen |= {key for key in _meant(model, name) if id(parameters[key]) not in kept}
    for key in frozen:
        parameters[key].requires_grad_(False)
    model.frozen |= frozen
    return frozenset(frozen)


def train_mode(model: SeparationModel) -> None:
    """Put the model into training mode and what :func:`freeze` froze into eval mode.

    Inside of frozen parts batch norms use and keep their statistics, and nothing is dropped. The four parts
    themselves (encoder, conditioner, separator, front end) are always in training mode, which decides what they
    prepare and return.
    """
    model.train()
    frozen = {id(p) for key, p in model.named_parameters(remove_duplicate=False) if key in model.frozen}
    ignored = {id(table.weight) for table in trained_tables(model)}
    parts = list(model.children())
    for module in model.modules():
        own = {id(p) for p in module.parameters()} - ignored
        if own and own <= frozen and module is not model:
            for still in module.children() if module in parts else (module,):
                still.eval()


def trained_tables(model: nn.Module) -> Iterator[ClassTable]:
    """Class tables of which only some rows are trained: those of classes that were just added."""
    for module in model.modules():
        if isinstance(module, ClassTable) and module.trained_rows is not None:
            yield module


def named_by(name: str, key: str) -> bool:
    """Whether a name or pattern means the parameter or module ``key``, itself or as a part of what it names."""
    return fnmatchcase(key, name) or fnmatchcase(key, f"{name}.*")


def _meant(model: SeparationModel, name: str) -> set[str]:
    parameters = [key for key, _ in model.named_parameters(remove_duplicate=False)]
    attention = set(chain.from_iterable(_attentions(model)))
    if name == "all":
        return set(parameters)
    meant = attention if name == "attention" else {key for key in parameters if named_by(name, key)}
    parts = [slot for slot, _ in model.named_children()]
    if not meant and name not in parts:
        known = ["attention"] * bool(attention) + ["all", *parts]
        inner = [f"{slot}.{child}" for slot, part in model.named_children() for child, _ in part.named_children()]
        raise DataError(f"Nothing in {model.name} is called {name!r}; it has {', '.join(known + inner)}.")
    return meant


def _attentions(model: nn.Module) -> Iterator[list[str]]:
    """Names of the parameters of every attention."""
    for path, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention) or type(module).__name__.endswith("Attention"):
            yield [f"{path}.{key}" for key, _ in module.named_parameters(remove_duplicate=False)]
