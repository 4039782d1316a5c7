"""Score a model on a fixed list of two-source (or more) mixtures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from avsep_zoo.compose import build_part
from avsep_zoo.contracts import Objective
from avsep_zoo.data.mix_and_separate import FixedMixtures, collate
from avsep_zoo.data.music import Clip, read_clips, read_mixtures
from avsep_zoo.errors import DataError
from avsep_zoo.evaluation.bss import bss_eval
from avsep_zoo.model import SeparationModel
from avsep_zoo.recipe import PartConfig

__all__ = ["Scores", "objective_of", "score_items", "score_list"]


@dataclass(frozen=True)
class Scores:
    """Means over the scored sources of all mixtures, in dB (BSS Eval v3).

    Args:
        sdr, sir, sar: of the estimates.
        mixture_sdr: of the mixture taken as every estimate.
        improvement: mean of SDR minus mixture SDR, with the half-width of its 95 % bootstrap interval in
            ``interval``.
        mixtures: scored mixtures; ``skipped`` ones have a silent source or estimate.
        by_class: improvement per class.
    """

    sdr: float
    sir: float
    sar: float
    mixture_sdr: float
    improvement: float
    interval: float
    mixtures: int
    skipped: int
    by_class: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return the scores as plain JSON."""
        return asdict(self)


def score_list(
    model: SeparationModel,
    data: Path,
    name: str,
    *,
    use: frozenset[str] = frozenset({"label", "frames"}),
    consistency: bool = True,
    frame_rate: float = 1.0,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Score ``model`` on the mixtures of ``<data>/<name>.csv``, one segment from the middle of each.

    Args:
        model: a loaded model.
        data: folder in the MUSIC layout.
        name: mixture list; its clips are listed in the file with ``testsep`` replaced by ``test``.
        use: modalities of the cues that are given.
        consistency: as in :meth:`~avsep_zoo.SeparationModel.separate`; off for the published inference.
        frame_rate: of the stored frames, per second.
        limit: score only the first mixtures.
        progress: called with (mixtures done, mixtures in all).

    Raises:
        DataError: a list is missing or wrong.
    """
    clips = read_clips(data, name.replace("testsep", "test", 1))
    mixtures = read_mixtures(data, name, clips)[:limit]
    items = FixedMixtures(
        mixtures,
        model.encoder.prepare,
        rate=model.front_end.rate,
        length=model.front_end.length,
        frame_rate=frame_rate,
        motion="motion" in model.encoder.reads,
        use=use,
    )
    return score_items(model, items, mixtures, consistency=consistency, progress=progress)


@torch.inference_mode()
def score_items(
    model: SeparationModel,
    items: FixedMixtures,
    mixtures: Sequence[Sequence[Clip]],
    *,
    consistency: bool = True,
    batch: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Score ``model`` on prepared items: mixed by the rule of its objective, at its own rate.

    Raises:
        DataError: the model has no objective, or an item cannot be read.
    """
    objective = objective_of(model)
    rows: list[np.ndarray] = []
    training = model.training
    model.eval()
    try:
        for items_batch in DataLoader(items, batch_size=batch, collate_fn=collate, generator=torch.Generator()):
            mixture, sources = objective.mix(items_batch["sources"])
            cues = items_batch["cues"].to(model.device)
            estimates = model.waveforms(
                {"mixture": mixture.to(model.device), "cues": cues}, consistency=consistency
            ).cpu()
            samples = estimates.shape[-1]
            both = torch.stack((estimates, mixture[:, None, :samples].expand_as(estimates)))
            scores = bss_eval(sources[..., :samples], both)  # (2, B, N) each
            rows.append(np.stack((scores.sdr[0], scores.sir[0], scores.sar[0], scores.sdr[1])))
            if progress:
                progress(sum(r.shape[1] for r in rows), len(items))
    finally:
        model.train(training)
    return _summary(np.concatenate(rows, axis=1), mixtures)


def objective_of(model: SeparationModel) -> Objective:
    """Build the objective that the model's recipe names.

    Raises:
        DataError: the model was composed without one.
    """
    if "objective" not in model.parts:
        raise DataError(f"The model {model.name} has no objective; take a method or a card, or name one in its parts.")
    objective: Objective = build_part("objective", PartConfig.parse(model.parts["objective"]))
    return objective


def _summary(scores: np.ndarray, mixtures: Sequence[Sequence[Clip]]) -> Scores:
    """Average (4, mixtures, N) scores."""
    usable = np.isfinite(scores).all(axis=(0, 2))
    kept = scores[:, usable]
    if not usable.any():
        nan = math.nan
        return Scores(nan, nan, nan, nan, nan, nan, mixtures=0, skipped=len(usable), by_class={})
    gains = (kept[0] - kept[3]).mean(axis=1)  # (mixtures,)
    rng = np.random.default_rng(0)
    resampled = gains[rng.integers(len(gains), size=(1000, len(gains)))].mean(axis=1)
    low, high = np.percentile(resampled, [2.5, 97.5])
    by_class: dict[str, list[float]] = {}
    for m in np.flatnonzero(usable).tolist():
        for n, clip in enumerate(mixtures[m]):
            by_class.setdefault(clip.label, []).append(float(scores[0, m, n] - scores[3, m, n]))
    sdr, sir, sar, mixture_sdr = (float(v) for v in kept.mean(axis=(1, 2)))
    return Scores(
        sdr, sir, sar, mixture_sdr, float(gains.mean()), float(high - low) / 2,
        int(usable.sum()), int((~usable).sum()),
        {label: float(np.mean(values)) for label, values in sorted(by_class.items())},
    )  # fmt: skip
