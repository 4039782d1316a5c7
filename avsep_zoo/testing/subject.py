"""What the conformance checks look at: a method, built small, with made-up sounds and cues for it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from avsep_zoo.compose import build_part, compose
from avsep_zoo.contracts import CueBatch, CueEncoder, Embedding, Estimate, Objective, Spectrum
from avsep_zoo.cue import Cue
from avsep_zoo.errors import AvsepError
from avsep_zoo.example_cues import example_cues, example_embedding, example_sources
from avsep_zoo.generative.contract import Draw
from avsep_zoo.generative.noise import Sampling
from avsep_zoo.model import SeparationModel
from avsep_zoo.recipe import PartConfig
from avsep_zoo.registry import registry
from avsep_zoo.testing.verdict import NotApplicable

__all__ = ["Subject", "seeded", "shaken", "subject_of", "worst"]

_STEPS = 2  # of a generative model's solver


@dataclass(frozen=True)
class Subject:
    """A method under test.

    Args:
        name: ``<method>.<variant>``.
        parts: slot -> part, as built.
        model: in eval mode with seeded random weights; checks change copies of it only.
        objective: of the recipe, or None.
        largest_mask: largest value of a mask.
        unreached: pattern of names of parameters that get no gradient -> why.
    """

    name: str
    parts: Mapping[str, PartConfig | nn.Module]
    model: SeparationModel
    objective: Objective | None = None
    largest_mask: float = 1.0
    unreached: Mapping[str, str] = field(default_factory=dict)

    @property
    def fetches(self) -> bool:
        """Whether preparing a cue may need a download; then embeddings are made up."""
        return type(self.model.encoder).fetch is not CueEncoder.fetch

    def sources(self, batch: int = 2, sources: int = 2) -> Tensor:
        """Sounds (B, N, L) of one segment; mixture b is the same however many there are."""
        front = self.model.front_end
        rows = [example_sources(front.length, rate=front.rate, sources=sources, seed=seed) for seed in range(batch)]
        return torch.cat(rows)

    def mixture(self, batch: int = 2) -> Tensor:
        """Mixtures (B, L) of two sounds each."""
        return self.sources(batch).sum(dim=1)

    def user_cues(self, row: int = 0, sources: int = 2) -> list[Cue]:
        """Cues of mixture ``row``, with all that the encoder reads; every other mixture has them the other way round.

        Raises:
            NotApplicable: preparing them may need a download.
        """
        if self.fetches:
            raise NotApplicable("The encoder fetches something when the first cue comes, so no cue is prepared here.")
        cues = example_cues(self.model.encoder, sources=sources, rate=self.model.rate, seed=1000 * row)
        return cues[::-1] if row % 2 else cues

    def prepared(self, cues: Sequence[Cue], *, encoder: CueEncoder | None = None, train: bool = False) -> CueBatch:
        """Prepare the cues of one mixture, in training as a loader does it."""
        rng = np.random.default_rng(0) if train else None
        return (encoder or self.model.encoder).prepare(cues, video=None, time=0.0, rng=rng)

    def cue_rows(self, batch: int = 2) -> Sequence[CueBatch | Embedding]:
        """The prepared cues of each mixture, (1, N); embeddings of noise where preparing may need a download."""
        if self.fetches:
            return [example_embedding(self.model.encoder, seed=row) for row in range(batch)]
        return [self.prepared(self.user_cues(row)) for row in range(batch)]

    def cues(self, batch: int = 2) -> CueBatch | Embedding:
        """The prepared cues of a batch (B, N)."""
        if self.fetches:
            return example_embedding(self.model.encoder, batch=batch)
        return CueBatch.stack([self.prepared(self.user_cues(row)) for row in range(batch)])

    def spectrum(self, batch: int = 2) -> Spectrum:
        """Analysed mixtures."""
        return self.model.front_end.analyse(self.mixture(batch))

    def estimate(
        self,
        model: SeparationModel | None = None,
        *,
        mixture: Tensor | None = None,
        cues: CueBatch | Embedding | None = None,
        draw: Draw | None = None,
    ) -> Estimate:
        """Estimate, without gradients, of two mixtures unless it is said otherwise."""
        model = self.model if model is None else model
        device = next(iter(model.state_dict().values())).device
        cues = self.cues() if cues is None else cues
        with torch.no_grad():
            spectrum = model.front_end.analyse((self.mixture() if mixture is None else mixture).to(device))
            given = cues.to(device) if isinstance(cues, CueBatch) else cues
            return model.estimate(spectrum, given, sampling=Sampling(steps=_STEPS), draw=draw)

    def training_batch(self, model: SeparationModel, batch: int = 3) -> dict[str, Any]:
        """A batch of solos as the trainer makes it, whose cues have labels; ``model`` is in train mode."""
        rows = []
        for row in range(batch):
            labels = model.classes or ("violin", "flute")
            cues = [
                replace(cue, label=cue.label or labels[n % len(labels)]) for n, cue in enumerate(self.user_cues(row))
            ]
            rows.append(self.prepared(cues, encoder=model.encoder, train=True))
        return {"sources": self.sources(batch), "cues": CueBatch.stack(rows), "skipped": []}

    def rebuilt(self, seed: int) -> SeparationModel:
        """The same model with the random weights of another seed, or of the same."""
        with seeded(seed):
            slots: dict[str, Any] = {slot: part for slot, part in self.parts.items() if slot != "objective"}
            return compose(**slots, name=self.name)


def subject_of(
    recipe: str | Mapping[str, Any],
    *,
    settings: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    largest_mask: float = 1.0,
    unreached: Mapping[str, str] = MappingProxyType({}),
) -> Subject:
    """Build a method small, with seeded random weights.

    Args:
        recipe: a registered method or ``method.variant``, of which each part gets the sizes it was registered with as
            ``small``; or a mapping slot -> part as :func:`avsep_zoo.compose` takes them, which stay as they are,
            perhaps with ``objective``.
        settings: slot -> settings on top of the small ones, for a recipe by name.
        largest_mask: largest value of a mask.
        unreached: pattern of names of parameters that get no gradient -> why.

    Raises:
        NotApplicable: an optional package is missing.
        AvsepError: the recipe is unknown or cannot be built.
    """
    parts: dict[str, Any]
    if isinstance(recipe, str):
        method, _, variant = recipe.partition(".")
        name = f"{method}.{variant or registry().method(method).default_variant}"
        parts = {slot: part.changed(settings.get(slot, {})) for slot, part in _small_parts(recipe).items()}
    else:
        name = "composed.small"
        parts = {s: part if isinstance(part, nn.Module) else PartConfig.parse(part) for s, part in recipe.items()}
    slots: dict[str, Any] = {slot: part for slot, part in parts.items() if slot != "objective"}
    objective = parts.get("objective")
    try:
        with seeded(0):
            model = compose(**slots, name=name)
            built = build_part("objective", objective) if isinstance(objective, PartConfig) else objective
    except AvsepError as error:
        if "pip install" in str(error):
            raise NotApplicable(f"An optional package is missing: {error}") from error
        raise
    if isinstance(objective, PartConfig):
        model.parts["objective"] = objective.to_dict()
    return Subject(name, parts, model, built, largest_mask, unreached)


def _small_parts(recipe: str) -> dict[str, PartConfig]:
    """The parts of a method or ``method.variant``, each with the small sizes that it was registered with.

    Numbers with a fraction are no sizes but factors, and stay those of the recipe.
    """
    method, _, variant = recipe.partition(".")
    parts = registry().method(method).parts(variant or None)
    small = {slot: registry().get(slot, part.name).small for slot, part in parts.items()}
    sizes = {s: {k: v for k, v in settings.items() if not isinstance(v, float)} for s, settings in small.items()}
    return {slot: part.changed(sizes[slot]) for slot, part in parts.items()}


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from ``seed`` in the block, without warnings, and leave PyTorch's generator as it was."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        yield


def shaken(module: nn.Module, seed: int = 7) -> None:
    """Add noise to every parameter, so that nothing is zero or the default only because training has not begun."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.is_floating_point():
                scale = 0.1 * float(parameter.std()) if parameter.numel() > 1 else 0.0
                noise = torch.randn(parameter.shape, generator=generator).to(parameter)
                parameter.add_((scale or 0.02) * noise)


def worst(found: Tensor, wanted: Tensor) -> float:
    """Largest absolute difference, in units of the largest wanted value; infinite where shapes or NaNs differ."""
    if found.shape != wanted.shape:
        return float("inf")
    scale = max(float(wanted.abs().max()), 1e-6) if wanted.numel() else 1.0
    difference = (found.float() - wanted.float()).abs().max() if wanted.numel() else torch.zeros(())
    return float(difference) / scale if bool(torch.isfinite(difference)) else float("inf")
