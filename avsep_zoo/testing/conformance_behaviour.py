"""Checks of what must not matter: other mixtures, the order of cues, random numbers; and of cues left out."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avsep_zoo.contracts import CueBatch, Embedding
from avsep_zoo.cue import Cue
from avsep_zoo.errors import CueError
from avsep_zoo.generative.contract import Draw
from avsep_zoo.testing.subject import Subject, seeded, worst
from avsep_zoo.testing.verdict import NotApplicable, Rule

__all__ = [
    "check_batch_independence",
    "check_determinism",
    "check_inputs_kept",
    "check_missing_cues",
    "check_source_order",
]

_CLOSE = 1e-3  # of the largest value: other batch sizes take other kernels

_BATCH = Rule(
    "in eval mode the estimate of a mixture does not depend on which others are in the batch, since a recording is "
    "separated in batches of segments whose size is the user's choice.",
    "a statistic that is taken over the batch axis, a batch norm that stays in training mode, or axes (B N) that "
    "are split as (N B).",
)
_ORDER = Rule(
    "sources are estimated in the order of their cues: exchanged cues give the same estimates, exchanged.",
    "axes (B N) that are split as (N B), a weight per place in the list instead of per cue, or prepared cues that "
    "are sorted.",
)
_SAME = Rule(
    "in eval mode the same mixture and cues give the same estimate; a generative model draws from the noise it is "
    "handed alone, never from PyTorch's global generator. Under one seed two builds have the same weights and two "
    "losses are the same, since runs are resumed and published with their seed.",
    "dropout or noise that is active in eval mode, or weights and losses drawn from numpy, `random` or the time.",
)
_KEPT = Rule(
    "no stage writes into what it is given, neither tensors nor cues: the same spectrum, embedding and batch are "
    "used again by other stages, other turns and other models.",
    "an operation in place (+=, *=, clamp_, masked_fill_, .data) on an argument, or on a view of one.",
)
_MISSING = Rule(
    "a cue that lacks what the encoder `reads` is refused with a CueError that names the modality, and one that "
    "lacks an `optional` modality is used; what a batch lacks for some sources comes as zeros and is marked in "
    "CueBatch.present.",
    "a cue that is read as if it were whole (an AttributeError or TypeError of None), `optional` that promises too "
    "much, or a forward pass that takes the zeros of an absent modality for a cue.",
)


def check_batch_independence(subject: Subject) -> None:
    """A mixture alone and in a batch of others."""
    mixture, rows = subject.mixture(3), subject.cue_rows(3)
    with _BATCH.during("Estimating three mixtures at once"):
        together = subject.estimate(mixture=mixture, cues=_stacked(rows)).values
    for number, row in enumerate(rows):
        with _BATCH.during("Estimating one mixture"):
            alone = subject.estimate(mixture=mixture[number : number + 1], cues=row).values
        apart = worst(together[number : number + 1], alone)
        _BATCH.need(
            apart < _CLOSE, f"Mixture {number} of 3 is {apart:.2g} of the largest value away from itself alone."
        )


def check_source_order(subject: Subject) -> None:
    """Exchanged cues."""
    mixture = subject.mixture(1)
    forward: CueBatch | Embedding
    if subject.fetches:
        forward = subject.cue_rows(1)[0]
        backward: CueBatch | Embedding = _views(forward, lambda value: value.flip(1))
    else:
        cues = subject.user_cues(0)
        forward, backward = subject.prepared(cues), subject.prepared(cues[::-1])
    with _ORDER.during("Estimating exchanged sources"):
        first = subject.estimate(mixture=mixture, cues=forward, draw=_noise(subject))
        second = subject.estimate(mixture=mixture, cues=backward, draw=_noise(subject, exchanged=True))
    apart = worst(second.values.flip(1), first.values)
    _ORDER.need(apart < _CLOSE, f"Exchanged cues give estimates that are {apart:.2g} of the largest value away.")


def check_determinism(subject: Subject) -> None:
    """The same again: estimates whatever was drawn before, weights and losses under one seed."""
    estimates = []
    for seed in (1, 2):
        with seeded(seed), _SAME.during("Estimating twice"):
            estimates.append(subject.estimate().values)
    apart = worst(estimates[1], estimates[0])
    _SAME.need(apart < 1e-6, f"Two estimates of the same are {apart:.2g} of the largest value apart.")
    with _SAME.during("Building the model twice"):
        weights = [subject.rebuilt(3).state_dict() for _ in range(2)]
    differing = [name for name, value in weights[0].items() if not torch.equal(value, weights[1][name])]
    _SAME.need(not differing, f"Built twice under one seed, the entries {', '.join(differing[:3])} differ.")
    if subject.objective is None or subject.fetches:
        return
    losses = []
    for _ in range(2):
        with seeded(4), _SAME.during("The loss"):
            model, objective = copy.deepcopy((subject.model, subject.objective))
            model.train(), objective.train()
            turn = objective.turns(0)[0]
            losses.append(float(objective.loss(model, subject.training_batch(model), turn)["loss"].detach()))
    apart = abs(losses[0] - losses[1]) / max(abs(losses[0]), 1e-6)
    _SAME.need(apart < 1e-5, f"Two losses under one seed are {losses[0]} and {losses[1]}.")


def check_inputs_kept(subject: Subject) -> None:
    """Everything a stage is given is the same afterwards."""
    model, mixture = subject.model, subject.mixture()
    if not subject.fetches:
        for row in range(2):
            given = subject.user_cues(row)
            _keeps("CueEncoder.prepare", given, lambda given=given: subject.prepared(given))
    cues = subject.cues()
    with torch.no_grad():
        spectrum = _keeps("FrontEnd.analyse", mixture, lambda: model.front_end.analyse(mixture))
        embedding = _keeps("CueEncoder.forward", cues, lambda: model.encode(cues))
        digest = _keeps("Conditioner.digest", embedding, lambda: model.conditioner.digest(embedding))
        estimate = _keeps("The separator", (spectrum, embedding, digest), lambda: model.estimate(spectrum, embedding))
        answer = (estimate, spectrum)
        _keeps("FrontEnd.synthesise", answer, lambda: model.front_end.synthesise(estimate, spectrum))
        _keeps("FrontEnd.mask", answer, lambda: model.front_end.mask(estimate, spectrum))
    if subject.objective is not None and not subject.fetches:
        trained, objective = copy.deepcopy((model, subject.objective))
        trained.train(), objective.train()
        batch = subject.training_batch(trained)
        for turn in objective.turns(0):
            with seeded(0):
                _keeps("Objective.loss", batch, lambda turn=turn: objective.loss(trained, batch, turn))


def check_missing_cues(subject: Subject) -> None:
    """Each modality left out: used without it, or refused by its name."""
    encoder = subject.model.encoder
    for modality in sorted(encoder.reads):
        cues = [_without(cue, modality) for cue in subject.user_cues(0)]
        optional = modality in encoder.optional
        try:
            with _MISSING.during(f"Preparing cues without {modality}"):
                prepared = _prepare(subject, cues)
        except _Refused as refusal:
            _MISSING.need(not optional, f"Cues without {modality}, which is optional, were refused: {refusal}")
            _MISSING.need(modality in str(refusal), f"Cues without {modality} were refused by {str(refusal)!r}")
            continue
        _MISSING.need(optional, f"Cues without {modality} were taken, and it is not optional.")
        _check_partly(subject, modality, prepared)


def _check_partly(subject: Subject, modality: str, lacking: CueBatch) -> None:
    """A batch of one mixture with a modality and one without, against each of them alone."""
    mixture, whole = subject.mixture(2), subject.prepared(subject.user_cues(0))
    with _MISSING.during(f"Estimating a batch that lacks {modality} in one mixture"):
        together = subject.estimate(mixture=mixture, cues=CueBatch.stack([whole, lacking])).values
        rows = [
            subject.estimate(mixture=mixture[n : n + 1], cues=cues).values for n, cues in enumerate((whole, lacking))
        ]
    _MISSING.need(bool(torch.isfinite(together).all()), f"Without {modality} the estimate is not finite.")
    apart = worst(together, torch.cat(rows))
    _MISSING.need(apart < _CLOSE, f"In a batch where one mixture lacks {modality}, estimates move by {apart:.2g}.")


class _Refused(AssertionError):
    """A CueError, on its way out of the rule."""


def _prepare(subject: Subject, cues: list[Cue]) -> CueBatch:
    try:
        return subject.prepared(cues)
    except CueError as error:
        raise _Refused(str(error)) from error


def _without(cue: Cue, modality: str) -> Cue:
    changes: dict[str, Any] = {modality: None}
    if modality == "audio":
        changes["audio_rate"] = None
    if modality == "box":
        changes["boxes"] = None
        if cue.modalities == {"box"}:
            raise NotApplicable("The encoder reads nothing but boxes, and a cue without anything cannot be made.")
    return replace(cue, **changes)


def _stacked(rows: Sequence[CueBatch | Embedding]) -> CueBatch | Embedding:
    batches = [row for row in rows if isinstance(row, CueBatch)]
    if batches:
        return CueBatch.stack(batches)
    views = [{f.name: getattr(row, f.name) for f in fields(row)} for row in rows]
    joined = {name: torch.cat([view[name] for view in views]) for name, value in views[0].items() if value is not None}
    return Embedding(**joined)


def _views(embedding: Any, change: Any) -> Embedding:
    views = {f.name: getattr(embedding, f.name) for f in fields(embedding)}
    return Embedding(**{name: change(value) for name, value in views.items() if value is not None})


def _noise(subject: Subject, *, exchanged: bool = False) -> Draw | None:
    """Noise of two sources of one mixture; ``exchanged``, each has that of the other."""
    if subject.model.driver is None:
        return None
    shape = subject.spectrum(1).features.shape[1:]

    def draw(number: int) -> Tensor:
        generator = torch.Generator().manual_seed(number)
        noise = torch.randn(2, *shape, generator=generator)
        if subject.model.driver is not None and subject.model.driver.shared_noise:
            noise = noise[:1].expand(2, -1, -1, -1)
        return noise.flip(0) if exchanged else noise

    return draw


def _keeps(stage: str, given: Any, run: Any) -> Any:
    """Run a stage and compare what it was given with what it was before."""
    before = {name: _copied(value) for name, value in _leaves(given, "")}
    with _KEPT.during(stage):
        result = run()
    after = dict(_leaves(given, ""))
    changed = [name for name, value in before.items() if not _equal(value, after.get(name))]
    changed += [name for name in after if name not in before]
    _KEPT.need(not changed, f"{stage} changed {', '.join(name.lstrip('.') or 'its argument' for name in changed)}.")
    return result


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _leaves(entry, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for number, entry in enumerate(value):
            yield from _leaves(entry, f"{name}.{number}")
    elif hasattr(value, "__dataclass_fields__"):
        for one in fields(value):
            yield from _leaves(getattr(value, one.name), f"{name}.{one.name}")
    else:
        yield name, value


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else copy.copy(value)


def _equal(before: Any, after: Any) -> bool:
    if isinstance(before, Tensor) and isinstance(after, Tensor):
        return before.shape == after.shape and bool(torch.equal(before.nan_to_num(), after.nan_to_num()))
    if isinstance(before, np.ndarray):
        return bool(np.array_equal(before, after))
    return bool(before == after)
