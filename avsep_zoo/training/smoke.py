"""A few steps on one made-up batch: whether a model learns at all, before there is any data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from avsep_zoo.compose import build_part
from avsep_zoo.contracts import CueBatch, CueEncoder, Embedding, Objective
from avsep_zoo.errors import CompositionError
from avsep_zoo.example_cues import example_cue_batch, example_embedding, example_sources
from avsep_zoo.model import SeparationModel
from avsep_zoo.recipe import PartConfig
from avsep_zoo.registry import registry

__all__ = ["example_views", "fitting_objective", "smoke_train"]

_GENERIC = {True: "generative", False: "masks"}  # by whether there is a driver


def smoke_train(model: SeparationModel, objective: Objective, *, steps: int = 20, seed: int = 0) -> list[float]:
    """Take ``steps`` steps on the same batch with the same noise, and return the loss of each; the model is changed.

    Two mixtures of two made-up sounds; of an encoder that would have to fetch something, made-up embeddings.

    Args:
        model: on the CPU; in eval mode afterwards.
        objective: with its own learning rates.
        steps: of which each has all its turns.
        seed: of cues, sounds, and all that is drawn in a step.

    Raises:
        CompositionError: the objective refuses the model, there is nothing to train, or a loss is not finite.
    """
    optimisers = objective.optimisers(model)
    if not any(optimisers.values()):
        raise CompositionError(f"All of {model.name} is frozen; set frozen: false in a part, so that it can learn.")
    model.train()
    objective.train()
    losses: list[float] = []
    with torch.random.fork_rng(devices=[]), _example_batch(model, seed) as batch:
        for step in range(steps):
            for turn in objective.turns(step):
                torch.manual_seed(seed)
                for optimiser in (o for several in optimisers.values() for o in several):
                    optimiser.zero_grad()
                loss = objective.loss(model, batch, turn)["loss"]
                value = float(loss.detach())
                if not math.isfinite(value):
                    raise CompositionError(
                        f"The loss of {model.name} is {value} in step {step + 1}; lower the objective's learning_rate."
                    )
                loss.backward()
                for optimiser in optimisers[turn]:
                    optimiser.step()
                if turn == "model":
                    losses.append(value)
    model.eval()
    return losses


def fitting_objective(
    model: SeparationModel, settings: Mapping[str, Any], *, small: bool = False
) -> tuple[PartConfig, Objective]:
    """An objective that takes the model: that of the separator's own method, or else masks, or a driver's errors.

    Args:
        model: composed from registered parts.
        settings: of the objective, with its ``name`` if it has to be that one.
        small: start from its small settings.

    Raises:
        CompositionError: the objective is unknown, or it does not take the model.
    """
    generic = _GENERIC[model.driver is not None]
    name = settings.get("name")
    names = [str(name)] if name else [] if model.driver is not None else _own(str(model.parts["separator"]["name"]))
    for candidate in dict.fromkeys([*names, *([] if name else [generic])]):
        start = registry().get("objective", candidate).small if small else {}
        part = PartConfig(candidate, {**start, **{key: value for key, value in settings.items() if key != "name"}})
        try:
            objective: Objective = build_part("objective", part)
            objective.optimisers(model)
        except CompositionError:
            if candidate != generic and not settings:
                continue
            raise
        return part, objective
    raise CompositionError(f"There is no objective for {model.name}; name one.")


def example_views(encoder: CueEncoder, *, rate: int, batch: int = 1, seed: int = 0) -> CueBatch | Embedding:
    """Made-up cues of two sources, or what they become where the encoder would have to fetch something."""
    if type(encoder).fetch is CueEncoder.fetch:
        return example_cue_batch(encoder, batch=batch, rate=rate, seed=seed)
    return example_embedding(encoder, batch=batch, seed=seed)


def _own(separator: str) -> list[str]:
    """Objectives of the methods that the plugin of a separator has for it."""
    plugin = registry().get("separator", separator).plugin
    methods = [entry.target for entry in registry().list("method") if entry.plugin == plugin]
    return [recipe.objective.name for recipe in methods if recipe.separator.name == separator]


@contextmanager
def _example_batch(model: SeparationModel, seed: int) -> Iterator[dict[str, Any]]:
    front, encoder = model.front_end, model.encoder
    cues = example_views(encoder, rate=front.rate, batch=2, seed=seed)
    sources = example_sources(front.length, rate=front.rate, batch=2, seed=seed)
    if isinstance(cues, CueBatch):
        yield {"sources": sources, "cues": cues}
        return
    views = {name: view for name, view in vars(cues).items() if view is not None}
    given: Any = encoder
    given.forward = lambda _: Embedding(**views)
    try:
        yield {"sources": sources, "cues": CueBatch(views)}
    finally:
        del given.forward
