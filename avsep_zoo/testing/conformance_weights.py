"""Checks of weights: what a card saves is all there is, also in half precision, and the card is valid."""

from __future__ import annotations

import copy
from pathlib import Path

import torch

from avsep_zoo.load import load
from avsep_zoo.model import SeparationModel
from avsep_zoo.recipe import PartConfig
from avsep_zoo.testing.conformance_network import network_of
from avsep_zoo.testing.subject import Subject, seeded, shaken, worst
from avsep_zoo.testing.verdict import NotApplicable, Rule
from avsep_zoo.weights.card_check import check as card_problems
from avsep_zoo.weights.cards import Card, write_card

__all__ = ["check_card", "check_half_weights", "check_state_dict"]

_STATE = Rule(
    "parts are built again from their names and settings alone, and everything else a model needs is in its state "
    "dict: a card that is written and loaded gives the same numbers.",
    "a tensor that is a plain attribute instead of a parameter or buffer, a buffer with persistent=False that does "
    "not follow from the settings, or a setting that the constructor draws at random.",
)
_HALF = Rule(
    "weights fit float16 and the model that is loaded from them gives nearly the same, finite numbers, since small "
    "models are published in half precision.",
    "a weight or buffer above 65504 or with meaning below 6e-8, such as a table of frequencies in Hz squared, a "
    "mask of -1e9, or a counter kept as a float; compute those from the settings.",
)
_CARD = Rule(
    "the card of a model, with licences filled in, has nothing that `avsep card check` finds wrong: plain settings "
    "that YAML holds, registered parts that fit, the classes and the rate of the model.",
    "settings that are tuples, paths or objects, `encoder.classes` in another order than the setting, or a rate "
    "other than the front end's.",
)
_LICENCES = {"code": "Apache-2.0", "weights": "CC0-1.0", "training_data": [{"of": "noise", "licence": "CC0-1.0"}]}


def check_state_dict(subject: Subject, folder: Path) -> None:
    """Write a card, load it, and compare; ``folder`` is a temporary one."""
    model = _shaken(subject)
    loaded = _round_trip(subject, model, folder, _STATE, half=False)
    state, again = model.state_dict(), loaded.state_dict()
    _STATE.need(list(state) == list(again), f"The state has other entries: {sorted(state.keys() ^ again.keys())[:4]}.")
    moved = [name for name, value in state.items() if not torch.equal(value, again[name])]
    _STATE.need(not moved, f"The entries {', '.join(moved[:4])} came back changed.")
    apart = worst(subject.estimate(loaded).values, subject.estimate(model).values)
    _STATE.need(apart < 1e-5, f"The loaded model estimates {apart:.2g} of the largest value away from the saved one.")


def check_half_weights(subject: Subject, folder: Path) -> None:
    """The same with weights stored as float16."""
    model = _shaken(subject)
    loaded = _round_trip(subject, model, folder, _HALF, half=True)
    if model.driver is None:
        found, wanted = subject.estimate(loaded).values, subject.estimate(model).values
    else:  # step by step an untrained network takes rounding anywhere
        networks = [network_of(subject, one) for one in (loaded, model)]
        found, wanted = (network(*arguments).detach() for network, arguments in networks)
    _HALF.need(bool(torch.isfinite(found).all()), "Loaded from float16, the model gives numbers that are not finite.")
    apart = worst(found, wanted)
    _HALF.need(apart < 0.1, f"Loaded from float16, the model estimates {apart:.2g} of the largest value away.")


def check_card(subject: Subject, folder: Path) -> None:
    """Everything ``avsep card check`` looks at."""
    card = _written(subject, subject.model, folder, _CARD, half=False)
    with _CARD.during("Checking the card"):
        problems = card_problems(card.folder)
    _CARD.need(not problems, f"The card has {len(problems)} problems, the first: {problems[0] if problems else ''}")


def _shaken(subject: Subject) -> SeparationModel:
    model = copy.deepcopy(subject.model)
    shaken(model)
    return model


def _round_trip(subject: Subject, model: SeparationModel, folder: Path, rule: Rule, *, half: bool) -> SeparationModel:
    card = _written(subject, model, folder, rule, half=half)
    with seeded(99), rule.during("Loading the card"):
        return load(card.folder)


def _written(subject: Subject, model: SeparationModel, folder: Path, rule: Rule, *, half: bool) -> Card:
    nameless = [slot for slot, part in subject.parts.items() if not isinstance(part, PartConfig)]
    if nameless:
        raise NotApplicable(f"The {nameless[0]} was given as a module; a card needs the names of registered parts.")
    front = {"license": "cc0-1.0", "tags": ["sound-separation"]}
    text = f"# {subject.name}\n\nWritten to check that it can be written.\n"
    with rule.during("Writing the card"):
        return write_card(folder, model, half=half, manifest={"licences": _LICENCES}, front=front, text=text)
