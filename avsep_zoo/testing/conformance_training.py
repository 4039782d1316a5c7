"""Checks of training: a gradient for every parameter, and mixed precision."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from avsep_zoo.contracts import Objective
from avsep_zoo.model import SeparationModel
from avsep_zoo.testing.subject import Subject, seeded, shaken
from avsep_zoo.testing.verdict import NotApplicable, Rule

__all__ = ["check_gradients", "check_mixed_precision"]

_GRADIENT = Rule(
    "every parameter that is not frozen is in an optimiser of the objective, and the loss of that optimiser's turn "
    "gives it a gradient that is finite and not zero everywhere; what is meant to get none has requires_grad False,"
    " or is named in `unreached` of your test class, with the reason. Others are saved, averaged and published "
    "untrained.",
    "a .detach(), .data, torch.no_grad() or argmax on the way, a layer that is built and not called, a list of "
    "modules that are not in a ModuleList, or optimisers that leave a part out.",
)
_PRECISION = Rule(
    "estimates, losses and gradients stay finite under torch.autocast with bfloat16, which presets of the trainer "
    "ask for.",
    "matrix products of tensors of two types (cast one with .to(other.dtype)), .half() by hand, complex numbers or "
    "an eigenvalue inside the network, or logarithms and divisions with an epsilon below the precision; wrap those "
    "in torch.autocast(device, enabled=False).",
)


def check_gradients(subject: Subject) -> None:
    """A gradient for every parameter that is not frozen, one backward pass per turn."""
    model, objective = _training(subject)
    shaken(model)
    shaken(objective)
    both = nn.ModuleDict({"model": model, "objective": objective})
    names = {id(parameter): name.removeprefix("model.") for name, parameter in both.named_parameters()}
    wanted = {names[id(p)] for p in model.parameters() if p.requires_grad}
    with _GRADIENT.during("Making the optimisers"):
        turns = objective.optimisers(model)
    groups = {
        turn: [p for one in several for g in one.param_groups for p in g["params"]] for turn, several in turns.items()
    }
    taken = {names.get(id(p), "a tensor of no module") for parameters in groups.values() for p in parameters}
    left = _undeclared(wanted - taken, subject.unreached)
    _GRADIENT.need(not left, f"No optimiser has {_listed(left)}.")
    reached: set[str] = set()
    for turn, parameters in groups.items():
        _train_only(both, parameters)
        with seeded(0), _GRADIENT.during(f"The loss of the turn {turn!r} and its gradient"):
            losses = objective.loss(model, subject.training_batch(model), turn)
            losses["loss"].backward()
        value = float(losses["loss"].detach())
        _GRADIENT.need(math.isfinite(value), f"The loss of the turn {turn!r} is {value}.")
        wild = [names[id(p)] for p in parameters if p.grad is not None and not bool(torch.isfinite(p.grad).all())]
        _GRADIENT.need(not wild, f"In the turn {turn!r} the gradient is not finite in {_listed(wild)}.")
        reached |= {names[id(p)] for p in parameters if p.grad is not None and bool((p.grad != 0).any())}
    dry = _undeclared(taken - reached, subject.unreached)
    _GRADIENT.need(not dry, f"No gradient, or zeros, came to {_listed(dry)}.")


def check_mixed_precision(subject: Subject) -> None:
    """bfloat16 autocast: estimates, losses and gradients."""
    with torch.autocast("cpu", torch.bfloat16), _PRECISION.during("Estimating in bfloat16"):
        values = subject.estimate().values
    _finite("The estimate", values)
    if subject.objective is None or subject.fetches:
        return
    model, objective = _training(subject)
    for turn in objective.turns(0):
        with seeded(0), _PRECISION.during(f"The loss of the turn {turn!r} in bfloat16"):
            batch = subject.training_batch(model)
            with torch.autocast("cpu", torch.bfloat16):
                loss = objective.loss(model, batch, turn)["loss"]
            loss.backward()
        _finite(f"The loss of the turn {turn!r}", loss.detach())
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            _finite(f"The gradient of {name}", parameter.grad)


def _training(subject: Subject) -> tuple[SeparationModel, Objective]:
    if subject.objective is None:
        raise NotApplicable("There is no objective: name one in the recipe to check how it trains.")
    if subject.fetches:
        raise NotApplicable("The encoder fetches something when the first cue comes, so nothing is trained here.")
    model, objective = copy.deepcopy((subject.model, subject.objective))
    return model.train(), objective.train()


def _train_only(both: nn.Module, parameters: list[nn.Parameter]) -> None:
    """As the trainer does it: gradients for the parameters of one turn alone."""
    for parameter in both.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None
    for parameter in parameters:
        parameter.requires_grad_(True)


def _undeclared(names: set[str], declared: Mapping[str, str]) -> list[str]:
    return sorted(name for name in names if not any(fnmatchcase(name, pattern) for pattern in declared))


def _finite(what: str, value: Tensor) -> None:
    _PRECISION.need(bool(torch.isfinite(value).all()), f"{what} in bfloat16 is not finite.")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more
