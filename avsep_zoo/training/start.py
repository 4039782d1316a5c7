"""The model a training run starts from: untrained or from a card, with other settings and more classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from avsep_zoo.compose import compose_recipe
from avsep_zoo.errors import CompositionError, DataError
from avsep_zoo.load import load, methods
from avsep_zoo.model import SeparationModel
from avsep_zoo.recipe import PartConfig
from avsep_zoo.registry import Entry, registry

__all__ = ["starting_model"]

_NOTHING: Mapping[str, Mapping[str, Any]] = MappingProxyType({})


def starting_model(
    method: str | None,
    *,
    card: str | Path | None = None,
    overrides: Mapping[str, Mapping[str, Any]] = _NOTHING,
    add_classes: Sequence[str] = (),
) -> SeparationModel:
    """Return the model to train, in eval mode; the caller seeds what is drawn.

    Args:
        method: a method or variant (``iquery``, ``iquery.mini``). With ``card`` it may be None; otherwise it has
            to be the method of the card, whose parts are taken whatever the variant.
        card: folder or name of a weights card to start from; without it the model is untrained.
        overrides: slot (encoder, conditioner, separator, front_end, objective) -> settings that are changed;
            with ``name``, another part with these settings alone.
        add_classes: names of new classes, for methods that can be expanded.

    Raises:
        DataError: neither a method nor a card is given, they do not belong together, a changed setting does not
            fit the weights, or the method cannot be expanded.
        CompositionError: there is no such method, slot or setting.
        WeightsError: the card cannot be read.
    """
    if card is not None:
        model = _from_card(method, card, overrides)
    elif method is not None:
        family, _, variant = method.partition(".")
        recipe = registry().method(family)
        parts = _changed(recipe.parts(variant or None), overrides)
        model = compose_recipe(parts, f"{family}.{variant or recipe.default_variant}")
    else:
        raise DataError("Neither a method nor a card is given; name one to train, as in iquery.mini.")
    return _expanded(model, add_classes) if add_classes else model


def _from_card(method: str | None, card: str | Path, overrides: Mapping[str, Mapping[str, Any]]) -> SeparationModel:
    trained = load(card)
    if method is not None and method.partition(".")[0] != _family(trained):
        raise DataError(f"The card {str(card)!r} holds {trained.name}, which is not {method}; name its own method.")
    if not overrides:
        return trained
    parts = {slot: PartConfig.parse(part) for slot, part in trained.parts.items()}
    model = compose_recipe(_changed(parts, overrides), trained.name)
    wanted, weights = model.state_dict(), trained.state_dict()
    misfits = sorted(wanted.keys() ^ weights.keys()) or [k for k in wanted if wanted[k].shape != weights[k].shape]
    if misfits:
        changed = ", ".join(f"{slot}.{name}" for slot, settings in overrides.items() for name in settings)
        raise DataError(
            f"The weights of {trained.name} do not fit a model with other {changed}: {len(misfits)} entries differ, "
            f"the first is {misfits[0]!r}; leave the setting as it is, or train without the card."
        )
    model.load_state_dict(weights)
    return model


def _changed(parts: Mapping[str, PartConfig], overrides: Mapping[str, Mapping[str, Any]]) -> dict[str, PartConfig]:
    unknown = sorted(set(overrides) - set(parts))
    if unknown:
        raise CompositionError(f"There is no part {unknown[0]!r} to change; there are {', '.join(parts)}.")
    return {slot: part.changed(overrides.get(slot, {})) for slot, part in parts.items()}


def _expanded(model: SeparationModel, names: Sequence[str]) -> SeparationModel:
    recipe = methods().get(_family(model))
    if recipe is None or recipe.add_classes is None:
        able = ", ".join(name for name, other in methods().items() if other.add_classes) or "none of those installed"
        raise DataError(f"{model.name} cannot be given new classes; methods that can: {able}.")
    plugin = registry().get("method", recipe.name).plugin
    expand = Entry("query expansion", recipe.name, recipe.add_classes, "", plugin).resolve()
    expanded: SeparationModel = expand(model, names)
    return expanded


def _family(model: SeparationModel) -> str:
    return model.name.partition(".")[0]
