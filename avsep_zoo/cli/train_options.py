"""What ``avsep train`` is told: preset < config file < options < ``--set``, joined to one plan."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from avsep_zoo.errors import DataError
from avsep_zoo.registry import registry

if TYPE_CHECKING:
    from avsep_zoo.recipe import Recipe
    from avsep_zoo.training.config import TrainingConfig
    from avsep_zoo.training.plan import Plan
    from avsep_zoo.weights.cards import Card

__all__ = ["Task", "adapter_settings", "assigned", "choose_preset", "names", "planned"]


@dataclass(frozen=True)
class Task:
    """A run as it will be.

    Args:
        plan: all that was said, with the method's variant.
        config: settings of the trainer.
        card: the card it starts from.
    """

    plan: Plan
    config: TrainingConfig
    card: Card | None

    @property
    def origin(self) -> dict[str, Any]:
        """Where the model comes from, for ``training.yaml``."""
        plan = self.plan
        return {
            "method": plan.method,
            "from": None if self.card is None else {"card": plan.card, "sha256": self.card.sha256},
            "add_classes": list(plan.add_classes),
            "parts": {slot: dict(settings) for slot, settings in plan.parts.items()},
        }

    @property
    def told(self) -> dict[str, Any]:
        """What the cards of the run tell of the method's variant, of the card it starts from, and of its licences."""
        from avsep_zoo.weights.licences import inherited

        variant = {"variant": self.plan.method}
        if self.card is None:
            return variant
        origin = {"name": self.card.name, "sha256": self.card.sha256}
        licences = inherited(self.card, Path(str(self.plan.data)).resolve().name)
        return {**variant, "started_from": origin} | ({"licences": licences} if licences else {})


def planned(
    plan: Plan, *, given: Mapping[str, Any], training: Mapping[str, Any], sets: Sequence[str], preset: str | None
) -> Task:
    """Join the config file's ``plan`` with the options.

    Args:
        plan: of the config file, or an empty one.
        given: fields of the plan that are options, None where they are not given.
        training: settings of the trainer that are options, likewise.
        sets: texts of ``--set``.
        preset: name of the preset.

    Raises:
        DataError, CompositionError, WeightsError: something is unknown, impossible or contradictory.
        typer.BadParameter: a text of ``--set`` is no setting.
    """
    from avsep_zoo.load import find_card
    from avsep_zoo.training.config import TrainingConfig
    from avsep_zoo.training.plan import merged

    chosen = {name: value for name, value in given.items() if value is not None}
    if "card" in chosen:
        plan = replace(plan, sha256=None)
    plan = replace(plan, **chosen)
    if plan.card is None and plan.method is None:
        raise DataError("Neither a method nor a card is given; name one to train, as in avsep train iquery.mini.")
    if plan.data is None:
        raise DataError("No data folder is given; name one with --data.")
    card = None if plan.card is None else find_card(plan.card)
    if card is not None and plan.sha256 not in (None, card.sha256):
        raise DataError(
            f"The card {plan.card!r} has other weights now than the config says; name the card with --from to take it."
        )
    if card is not None and Path(str(plan.card)).is_dir():
        plan = replace(plan, card=str(card.folder.resolve()))
    held = None if card is None else str(card.manifest.get("variant", card.name))
    family, _, variant = (plan.method or str(held)).partition(".")
    known = family in registry().methods() or held is None or family != held.partition(".")[0]
    recipe = registry().method(family) if known else None  # parts that were composed are no method's
    settings: dict[str, Any]
    if recipe is None:
        if preset is not None:
            raise DataError(f"{held} is of no method, and has no preset {preset!r}; give settings with --set.")
        settings = {}
    elif held is None:
        variant, settings = choose_preset(recipe, variant or None, preset)
    else:
        variant = variant or held.partition(".")[2]
        _, settings = choose_preset(recipe, None, preset)
        settings = settings if preset else copy.deepcopy(dict(recipe.training.get(variant, {})))
    changes = assigned(sets)
    options = {name: value for name, value in training.items() if value is not None}
    settings = merged({**settings, **plan.training, **options}, changes["training"])
    config = TrainingConfig.from_mapping(settings)
    plan = replace(plan, method=f"{family}.{variant}", parts=merged(plan.parts, changes["parts"]), training=settings)
    return Task(plan, config, card)


def choose_preset(recipe: Recipe, variant: str | None, preset: str | None) -> tuple[str, dict[str, Any]]:
    """Return the variant to train and the settings of its preset.

    Raises:
        DataError: the method has no such preset.
        CompositionError: the method has no such variant.
    """
    if preset is not None and preset not in recipe.training:
        known = ", ".join(recipe.training) or "none"
        raise DataError(f"{recipe.name} has no preset {preset!r}; it has {known}.")
    if variant is None:
        variant = preset if preset in recipe.variant_names else recipe.default_variant
    recipe.parts(variant)
    return variant, copy.deepcopy(dict(recipe.training.get(preset or variant, {})))


def assigned(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read ``KEY=VALUE`` and ``KEY.KEY=VALUE`` as ``parts`` and ``training``; a value that is no JSON is a text.

    Raises:
        typer.BadParameter: there is no ``=``, or there are more than two keys.
    """
    from avsep_zoo.training.plan import SLOTS

    result: dict[str, dict[str, Any]] = {"parts": {}, "training": {}}
    for text in texts:
        key, equals, value = text.partition("=")
        outer, *inner = key.split(".")
        if not equals or not all((outer, *inner)) or len(inner) > 1:
            raise typer.BadParameter(
                f"{text!r} is no setting; give KEY=VALUE or KEY.KEY=VALUE, as in clip_norm=1.", param_hint="--set"
            )
        if outer in SLOTS and not inner:
            raise typer.BadParameter(f"{text!r} names a part; give {outer}.KEY=VALUE.", param_hint="--set")
        place = result["parts" if outer in SLOTS else "training"]
        try:
            read = json.loads(value)
        except (ValueError, RecursionError):
            read = value
        if not inner:
            place[outer] = read
        elif isinstance(place.setdefault(outer, {}), dict):
            place[outer][inner[0]] = read
        else:
            raise typer.BadParameter(f"{text!r} has a dot and {outer} is no mapping; leave it out.", param_hint="--set")
    return result


def adapter_settings(text: str) -> dict[str, Any]:
    """Read ``r=8,alpha=16``.

    Raises:
        typer.BadParameter: it is nothing of that kind.
    """
    settings: dict[str, Any] = {}
    for entry in text.split(","):
        key, equals, value = entry.partition("=")
        try:
            settings[key.strip()] = json.loads(value)
        except (ValueError, RecursionError):
            equals = ""
        if not equals:
            raise typer.BadParameter(f"{entry!r} is no setting of adapters; give r=8,alpha=16.", param_hint="--lora")
    return settings


def names(texts: Sequence[str] | None) -> tuple[str, ...] | None:
    """Names of a repeatable option, each of which may be several with commas between; None if it is not given."""
    return None if not texts else tuple(n.strip() for text in texts for n in text.split(",") if n.strip())
