"""From a name to a model: ``load("iquery")``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from avsep_zoo.errors import WeightsError
from avsep_zoo.recipe import PartConfig, Recipe
from avsep_zoo.registry import registry
from avsep_zoo.weights.cards import Card, card_folder, read_card
from avsep_zoo.weights.download import read_weights, remote_card
from avsep_zoo.weights.licences import remind

if TYPE_CHECKING:
    import torch

    from avsep_zoo.model import SeparationModel

__all__ = ["HUB", "find_card", "from_card", "is_place", "load", "methods"]

HUB = "hf://"
"""What the address of a card on the Hugging Face Hub begins with."""


def methods() -> dict[str, Recipe]:
    """Return every method of every plugin by name; imports no torch."""
    return registry().methods()


def load(
    name_or_path: str | Path,
    *,
    weights: str | Path | None = "default",
    device: str | torch.device | None = None,
) -> SeparationModel:
    """Load a method with its weights.

    The weights come from beside their card, from the cache, or from a pinned commit on the Hugging Face Hub
    (:func:`~avsep_zoo.weights.download.weights_file`); their content is always compared with the hash in the card.

    Args:
        name_or_path: a method (``"iquery"``), a variant (``"iquery.mini"``), the folder of a weights card, or
            ``"hf://org/name@commit"``, a card on the Hub.
        weights: ``"default"`` for the weights published for that name; the name, folder or ``hf://`` address of another
            card of the method; or None for an untrained model of the named variant.
        device: where to put the model; None is the CPU.

    Returns:
        A model in eval mode, with strictly loaded weights, or an untrained one only for ``weights=None``.

    Raises:
        CompositionError: there is no such method or variant.
        WeightsError: there are no weights for it, they cannot be fetched, or they are damaged.
    """
    card = None
    if is_place(name_or_path):
        card = find_card(name_or_path)
        if weights not in ("default", None):
            raise WeightsError(f"Two cards are given, {card.name} and {str(weights)!r}; give one of them.")
    elif weights is not None:
        card = _find_card(str(name_or_path), str(weights))
    if card is None:
        model = _untrained(str(name_or_path))
    elif weights is None:
        model = _composed(card)
    else:
        model = from_card(card)
        remind(card)
    return model.to(device) if device is not None else model


def find_card(name_or_path: str | Path) -> Card:
    """Return the card whose weights :func:`load` takes for a method, a variant, a folder or an ``hf://`` address.

    Raises:
        CompositionError: there is no such method or variant.
        WeightsError: there is no card of it, it cannot be fetched, or it cannot be read.
    """
    if not is_place(name_or_path):
        return _find_card(str(name_or_path), "default")
    if str(name_or_path).startswith(HUB):
        return remote_card(str(name_or_path).removeprefix(HUB))
    return read_card(Path(name_or_path))


def is_place(name_or_path: str | Path) -> bool:
    """Whether a name says where a card is: an ``hf://`` address, or a folder that no method is called after."""
    if not isinstance(name_or_path, str) or "/" in name_or_path or os.sep in name_or_path:
        return True
    return name_or_path.partition(".")[0] not in methods() and Path(name_or_path).is_dir()


def _find_card(name: str, weights: str) -> Card:
    method, _, variant = name.partition(".")
    recipe = registry().method(method)
    wanted: str | None = weights
    if weights == "default":
        wanted = name if variant else recipe.weights
        if variant and (wanted is None or card_folder(wanted) is None):
            recipe.parts(variant)  # an unknown variant is a better error than missing weights
    folder = card_folder(wanted) if wanted else None
    if folder is not None:
        card = read_card(folder)
    elif weights != "default" and (weights.startswith(HUB) or Path(weights, "README.md").is_file()):
        card = find_card(weights if weights.startswith(HUB) else Path(weights))
    else:
        have = f"; there are weights for {recipe.weights}" if recipe.weights and recipe.weights != wanted else ""
        raise WeightsError(
            f"There are no weights {wanted or name!r} here{have}; give the folder of a card, hf://org/name@commit, or "
            "weights=None for an untrained model."
        )
    if card.name.partition(".")[0] != method:
        raise WeightsError(f"The card {card.name} is not one of {method}; load it by its own name or folder.")
    return card


def _composed(card: Card) -> SeparationModel:
    from avsep_zoo.compose import compose_recipe

    return compose_recipe({s: PartConfig.parse(part) for s, part in card.manifest["parts"].items()}, card.name)


def from_card(card: Card) -> SeparationModel:
    """Build the model of a card and load its weights into it.

    Raises:
        WeightsError: they cannot be had, are damaged, or do not fit the parts of the card.
    """
    tensors = read_weights(card)
    model = _composed(card)
    wanted = model.state_dict()
    misfits = sorted(wanted.keys() ^ tensors.keys()) or [k for k in wanted if wanted[k].shape != tensors[k].shape]
    if misfits:
        raise WeightsError(
            f"The weights of {card.name} do not fit its parts: {len(misfits)} entries are missing, unknown "
            f"or of another shape, the first is {misfits[0]!r}; the card was made by another version or is "
            "damaged."
        )
    model.load_state_dict(tensors, strict=True)
    return model


def _untrained(name: str) -> SeparationModel:
    from avsep_zoo.compose import compose_recipe

    method, _, variant = name.partition(".")
    recipe = registry().method(method)
    return compose_recipe(recipe.parts(variant or None), f"{method}.{variant or recipe.default_variant}")
