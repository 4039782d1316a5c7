"""One contender under one protocol: mixtures are cut, mixed, separated and scored, a batch at a time."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from avsep_zoo.blocks.mixture import mix_sources
from avsep_zoo.compose import build_part
from avsep_zoo.contracts import CueBatch, Objective
from avsep_zoo.cue import Cue
from avsep_zoo.data.clip import Clip
from avsep_zoo.data.fixed_mixtures import FixedMixtures
from avsep_zoo.data.segment import seconds
from avsep_zoo.errors import AvsepError
from avsep_zoo.evaluation.contender import Contender, Setting
from avsep_zoo.evaluation.oracle import baseline
from avsep_zoo.evaluation.protocols import Protocol
from avsep_zoo.evaluation.score import Scored, score_batch
from avsep_zoo.generative.noise import Sampling
from avsep_zoo.load import load
from avsep_zoo.model import SeparationModel
from avsep_zoo.recipe import PartConfig
from avsep_zoo.sliding import slide

__all__ = ["BATCH", "Scorer", "Separated"]

BATCH = 8  # mixtures, and windows of a long one, that go through the network at once

Mixture = Sequence[Clip]


@dataclass(frozen=True)
class Separated:
    """One mixture taken apart: ``mixture`` (L,), ``sources`` and ``estimates`` (N, L), float32 at ``rate`` Hz."""

    mixture: Tensor
    sources: Tensor
    estimates: Tensor
    rate: int


class Scorer:
    """Scores mixtures with one contender under one protocol.

    Args:
        contender: a card's weights are loaded once, when they are first needed.
        protocol: what is cut, mixed, reconstructed and dropped.
        setting: the rate and length that it leaves to the model.
        use: modalities of the cues that are given.
        consistency: whether stems share the mixture out.
        sampling: of a generative model; None is its own.
        device: of the model.
    """

    def __init__(
        self,
        contender: Contender,
        protocol: Protocol,
        setting: Setting,
        *,
        use: frozenset[str],
        consistency: bool,
        sampling: Sampling | None = None,
        device: str = "cpu",
    ) -> None:
        self.contender, self.protocol, self.setting = contender, protocol, setting
        self.use, self.consistency, self.sampling, self.device = use, consistency, sampling, device
        self._model: SeparationModel | None = None
        self._objective: Objective | None = None

    @property
    def model(self) -> SeparationModel:
        """The loaded model.

        Raises:
            WeightsError: its weights are not those that its card describes.
        """
        if self._model is None:
            assert self.contender.card is not None
            self._model = load(self.contender.card.folder, device=self.device)
        return self._model

    def score(self, mixtures: Sequence[Mixture], wanted: Collection[int], *, seed: int = 0) -> list[tuple[int, Scored]]:
        """Score the ``wanted`` ones of a batch of mixtures, by position.

        All of the batch goes through the network, as what a model says of a mixture may depend on its batch. What
        models draw by PyTorch's generator they draw from ``seed``; generative ones see the same noise in every mixture.
        """
        scored: list[tuple[int, Scored]] = []
        for position, found in enumerate(self.separate(mixtures, seed=seed)):
            if position not in wanted:
                continue
            if isinstance(found, Separated):
                [score] = score_batch(
                    found.sources[None],
                    found.estimates[None],
                    found.mixture[None],
                    silence=self.protocol.silence,
                    silent_estimate=self.protocol.silent_estimate,
                )
                scored.append((position, score))
            else:
                scored.append((position, found))
        return scored

    @torch.inference_mode()
    def separate(self, mixtures: Sequence[Mixture], *, seed: int = 0) -> list[Separated | str]:
        """Separate a batch of mixtures; one that cannot be is a sentence on why."""
        found: list[Separated | str] = [""] * len(mixtures)
        read: dict[int, tuple[Tensor, list[Cue]]] = {}
        items = self._items(mixtures)
        for position in range(len(mixtures)):
            try:
                item = items[position]
            except AvsepError as error:
                found[position] = _sentence(error)
                continue
            if item["skipped"]:  # silent and black instead, as published
                found[position] = item["skipped"][0].why
            else:
                read[position] = (item["sources"], item["cues"])
        if not read:
            return found
        sources = torch.stack([waveforms for waveforms, _ in read.values()])  # (B, N, L)
        mixture, mixed = self._mix(sources)
        truth = sources if self.protocol.full_level else mixed
        ends = [self._end(mixtures[position]) for position in read]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            estimates = self._estimates(mixture, truth, [cues for _, cues in read.values()], ends)
        for k, (position, estimate) in enumerate(zip(read, estimates, strict=True)):
            if isinstance(estimate, str):
                found[position] = estimate
                continue
            if self.protocol.restore:
                estimate = (estimate * len(estimate)).clamp(-1.0, 1.0)
            end = min(self.setting.scored, estimate.shape[-1], ends[k])
            found[position] = Separated(mixture[k, :end], truth[k, :, :end], estimate[:, :end], self.setting.rate)
        return found

    def _items(self, mixtures: Sequence[Mixture]) -> FixedMixtures:
        """Sources, and cues as they stand in the data."""
        encoder: Any = self.model.encoder if self.contender.card else None
        offset = self.protocol.offset
        if offset:
            mixtures = [[replace(clip, start=clip.start + offset) for clip in clips] for clips in mixtures]
        return FixedMixtures(
            mixtures,
            None,
            rate=self.setting.rate,
            length=self.setting.length,
            reads=encoder.reads if encoder else frozenset(),
            use=self.use,
            placement=self.protocol.placement,
            pictures=getattr(encoder, "frames", 3),
            stride=self.protocol.frame_stride,
            protocol=self.protocol.loader,
            assume_rate=self.protocol.assume_rate,
            repeat=self.protocol.repeat,
        )

    def _end(self, clips: Mixture) -> int:
        """Samples of a mixture before its shortest source ends, where the protocol cuts it there."""
        if not self.protocol.shortest:
            return self.setting.length
        spans = [min(seconds(clip.audio) - clip.start, clip.duration or math.inf) for clip in clips]
        return max(1, int(min(spans) * self.setting.rate))

    def _mix(self, sources: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, L) -> the mixture (B, L) and the sources as they are in it."""
        rule = self.setting.mixture
        if isinstance(rule, Mapping):
            if self._objective is None:
                self._objective = build_part("objective", PartConfig.parse(rule))
            return self._objective.mix(sources)
        return mix_sources(sources, "mean" if rule == "mean" else "sum")

    def _estimates(
        self, mixture: Tensor, truth: Tensor, cues: Sequence[list[Cue]], ends: Sequence[int]
    ) -> list[Tensor | str]:
        """Estimates (N, L') of each of the mixtures (B, L), or why there are none."""
        if self.contender.card is None:
            return list(baseline(self.contender.name, mixture, truth, self.setting.rate))
        front: Any = self.model.front_end
        if front.rate == self.setting.rate and front.length == self.setting.length:
            return self._segments(mixture, cues)
        windows = front.rate == self.setting.rate and front.length == self.protocol.window
        shortest = front.length if windows else 1
        found: list[Tensor | str] = []
        for waveform, wanted, end in zip(mixture, cues, ends, strict=True):
            part = waveform[: max(shortest, end)]
            try:
                found.append(self._windows(part, wanted) if windows else self._whole(part, wanted))
            except AvsepError as error:
                found.append(_sentence(error))
        return found

    def _segments(self, mixture: Tensor, cues: Sequence[list[Cue]]) -> list[Tensor | str]:
        """Mixtures of the model's own length, all at once: the way it is trained."""
        found: list[Tensor | str] = [""] * len(cues)
        prepared: dict[int, CueBatch] = {}
        for k, wanted in enumerate(cues):
            try:
                prepared[k] = self._prepare(wanted)
            except AvsepError as error:
                found[k] = _sentence(error)
        if prepared:
            batch = {
                "mixture": mixture[list(prepared)].to(self.model.device),
                "cues": CueBatch.stack(list(prepared.values())).to(self.model.device),
            }
            estimates = self.model.waveforms(batch, consistency=self.consistency, sampling=self.sampling).cpu()
            for k, estimate in zip(prepared, estimates, strict=True):
                found[k] = estimate
        return found

    def _windows(self, waveform: Tensor, cues: list[Cue]) -> Tensor:
        """The published sliding window."""
        how: Any = {"hop": self.protocol.hop or 1, "consistency": self.consistency, "sampling": self.sampling}
        return slide(self.model, waveform, self._prepare(cues).to(self.model.device), batch=BATCH, **how).cpu()

    def _whole(self, waveform: Tensor, cues: list[Cue]) -> Tensor:
        """A mixture of any rate and length, the way a user separates it."""
        how = self.sampling or Sampling()
        result = self.model.separate(
            waveform,
            cues,
            rate=self.setting.rate,
            consistency=self.consistency,
            batch=BATCH,
            seed=how.seed,
            steps=how.steps,
            solver=how.solver,
        )
        return torch.stack([torch.from_numpy(stem.waveform[0].copy()) for stem in result.stems])

    def _prepare(self, cues: list[Cue]) -> CueBatch:
        return self.model.encoder.prepare(cues, video=None, time=self.setting.length / self.setting.rate / 2)


def _sentence(error: AvsepError) -> str:
    return " ".join(str(error).split())
