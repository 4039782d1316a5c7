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
    pretrained: bool = True,
) -> SeparationModel:
    """Return the model to train, in eval mode; the caller seeds what is drawn.

    Args:
        method: a method or variant (``iquery``, ``iquery.mini``). With ``card`` it may be None. If it is the method
            of the card, the card's parts are taken whatever the variant; if it is another one, the card gives the
            weights of that variant's parts, and every entry has to fit (``davis.mini`` from ``davis_flow.mini``).
        card: folder or name of a weights card to start from; without it the model is untrained but for what the
            encoder starts from (:meth:`~avsep_zoo.contracts.CueEncoder.load_pretrained`).
        overrides: slot (encoder, conditioner, separator, driver, front_end, objective) -> settings that are changed;
            with ``name``, another part with these settings alone.
        add_classes: names of new classes, for methods that can be expanded.
        pretrained: False leaves the encoder untrained, for a run that goes on and has its own weights.

    Raises:
        DataError: neither a method nor a card is given, the weights of the card do not fit the method or a changed
            setting, or the method cannot be expanded.
        CompositionError: there is no such method, slot or setting.
        WeightsError: the card cannot be read, or what the encoder starts from cannot be had.
    """
    if card is not None:
        model = _from_card(method, card, overrides)
    elif method is not None:
        family, _, variant = method.partition(".")
        recipe = registry().method(family)
        parts = _changed(recipe.parts(variant or None), overrides)
        model = compose_recipe(parts, f"{family}.{variant or recipe.default_variant}")
        if pretrained:
            model.encoder.load_pretrained()
    else:
        raise DataError("Neither a method nor a card is given; name one to train, as in iquery.mini.")
    return _expanded(model, add_classes) if add_classes else model


def _from_card(method: str | None, card: str | Path, overrides: Mapping[str, Mapping[str, Any]]) -> SeparationModel:
    trained = load(card)
    family, _, variant = (method or trained.name).partition(".")
    if family == _family(trained):
        if not overrides:
            return trained
        parts = {slot: PartConfig.parse(part) for slot, part in trained.parts.items()}
        name = trained.name
        changed = ", ".join(f"{slot}.{setting}" for slot, settings in overrides.items() for setting in settings)
        what, advice = f"a model with other {changed}", "leave the setting as it is, or train without the card"
    else:
        recipe = registry().method(family)
        parts = recipe.parts(variant or None)
        what = name = f"{family}.{variant or recipe.default_variant}"
        advice = f"take a variant of {family} with the same parts, or train without the card"
    parts = _changed(parts, overrides)
    model = compose_recipe(parts, name)
    wanted, weights = model.state_dict(), trained.state_dict()
    misfits = sorted(wanted.keys() ^ weights.keys()) or [k for k in wanted if wanted[k].shape != weights[k].shape]
    if misfits:
        raise DataError(
            f"The weights of {trained.name} do not fit {what}: {len(misfits)} entries differ, the first is "
            f"{misfits[0]!r}; {advice}."
        )
    if name != trained.name and _class_names(model) != _class_names(trained):
        raise DataError(f"{trained.name} knows other classes than {what}; {advice}.")
    model.load_state_dict(weights)
    return model


def _class_names(model: SeparationModel) -> list[str]:
    return list(model.parts["encoder"].get("classes", ()))


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
