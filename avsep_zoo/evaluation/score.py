"""Scores of separated mixtures, and the validation score of a model in training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from einops import reduce
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from avsep_zoo.compose import build_part
from avsep_zoo.contracts import Objective
from avsep_zoo.data.collate import collate
from avsep_zoo.errors import DataError
from avsep_zoo.evaluation.bss import bss_eval, si_sdr
from avsep_zoo.model import SeparationModel
from avsep_zoo.recipe import PartConfig

__all__ = ["SCORES", "batch_means", "objective_of", "score_batch", "validate"]

SCORES = ("sdr", "sir", "sar", "si_sdr", "mixture_sdr", "mixture_si_sdr")
DECIMALS = 6  # of a score: as much as agrees with mir_eval

Scored = dict[str, list[float]] | str  # per score one number per source, or why there is none


def score_batch(
    sources: Tensor,
    estimates: Tensor,
    mixtures: Tensor,
    *,
    silence: float = 0.0,
    silent_estimate: Literal["drop", "zero"] = "drop",
) -> list[Scored]:
    """Score B mixtures of N sources: BSS Eval v3 without permutation search, and SI-SDR, in dB.

    Args:
        sources: (B, N, L), the truth.
        estimates: (B, N, L).
        mixtures: (B, L), scored as every estimate for ``mixture_sdr`` and ``mixture_si_sdr``.
        silence: a mixture with a source whose absolute samples add up to at most this has no score.
        silent_estimate: ``drop`` is the same for estimates; with ``zero`` such a mixture has SDR, SIR, SAR of 0 dB.

    Returns:
        Per mixture the lists named in :data:`SCORES`, or one sentence on why it has no score. A number may be
        infinite.
    """
    truth, guess, mixed = (signal.detach().cpu().double().numpy() for signal in (sources, estimates, mixtures))
    why = [_unusable(truth[b], guess[b], silence, silent_estimate) for b in range(len(truth))]
    kept = [b for b, reason in enumerate(why) if reason is None]
    blind = np.broadcast_to(mixed[:, None], truth.shape)
    both = np.stack((guess, blind))[:, kept]  # (2, kept, N, L)
    scores = iter(np.moveaxis(_scores(truth[kept], both), 2, 0)) if kept else iter(())  # each (metrics, 2, N)
    scored: list[Scored] = []
    for b, reason in enumerate(why):
        if reason is not None:
            scored.append(reason)
            continue
        found = next(scores)
        if _silent(guess[b], silence).any():
            found[:, 0] = 0.0
        if np.isnan(found).any():
            scored.append("its signals are too faint or too short for a score")
            continue
        names = dict(zip(SCORES[:4], found[:, 0], strict=True)) | dict(zip(SCORES[4:], found[[0, 3], 1], strict=True))
        scored.append({name: [round(float(v), DECIMALS) for v in values] for name, values in names.items()})
    return scored


def _scores(truth: NDArray[Any], sets: NDArray[Any]) -> NDArray[np.float64]:
    """SDR, SIR, SAR, SI-SDR (4, 2, B, N) of sources (B, N, L) and two sets of estimates (2, B, N, L)."""
    return np.stack((*bss_eval(truth, sets)[:3], si_sdr(truth, sets)))


def _silent(signals: NDArray[Any], threshold: float) -> NDArray[np.bool_]:
    return np.abs(signals).sum(axis=-1) <= threshold


def _unusable(truth: NDArray[Any], guess: NDArray[Any], silence: float, silent_estimate: str) -> str | None:
    if not np.isfinite(guess).all():
        return "an estimate is not finite"
    if _silent(truth, silence).any():
        return f"source {1 + int(_silent(truth, silence).argmax())} is silent"
    if silent_estimate == "drop" and _silent(guess, silence).any():
        return f"estimate {1 + int(_silent(guess, silence).argmax())} is silent"
    return None


def batch_means(
    rows: Sequence[Mapping[str, Sequence[float]] | None], batch: int, *, drop_last: bool = False
) -> dict[str, float]:
    """Return SDR, SIR, SAR and mixture SDR as they were published: the unweighted mean over batches.

    A batch is the mean over its scored mixtures; a smaller one weighs the same, one without any counts 0.

    Args:
        rows: per mixture of the list, in its order, its scores, or None where it was dropped.
        batch: mixtures per batch.
        drop_last: leave an incomplete last batch out.

    Raises:
        ValueError: there is no batch.
    """
    batches = [rows[start : start + batch] for start in range(0, len(rows), batch)]
    if drop_last and len(batches[-1]) < batch:
        batches.pop()
    if not batches:
        raise ValueError(f"{len(rows)} mixtures make no batch of {batch}.")
    means: dict[str, float] = {}
    for name in ("sdr", "sir", "sar", "mixture_sdr"):
        scored = [[np.mean(row[name]) for row in rows if row is not None] for rows in batches]
        means[name] = float(np.mean([np.mean(values) if values else 0.0 for values in scored]))
    return means


@torch.inference_mode()
def validate(model: SeparationModel, objective: Objective, items: Dataset[dict[str, Any]], *, batch: int = 8) -> float:
    """Return the mean SDR in dB of ``model`` on prepared mixtures, mixed by the rule of its objective.

    Where there are several cues per source, their estimates are added up: a recording is scored as a whole. Mode and
    random state of the model are left as they are.

    Args:
        model: the model.
        objective: tells how sources are mixed.
        items: :class:`~avsep_zoo.data.fixed_mixtures.FixedMixtures` at the model's rate and length.
        batch: mixtures per batch.

    Returns:
        The mean over sources and mixtures, nan if none of them can be scored.

    Raises:
        AvsepError: an item cannot be read.
    """
    values: list[float] = []
    training = model.training
    model.eval()
    try:
        for loaded in DataLoader(items, batch_size=batch, collate_fn=collate, generator=torch.Generator()):
            mixture, sources = objective.mix(loaded["sources"])
            cues = loaded["cues"].to(model.device)
            estimates = model.waveforms({"mixture": mixture.to(model.device), "cues": cues}, consistency=True).cpu()
            estimates = reduce(estimates, "b (n k) l -> b n l", "sum", n=sources.shape[1])
            sdr = bss_eval(sources[..., : estimates.shape[-1]], estimates).sdr  # (B, N)
            values += [float(mean) for mean in sdr.mean(axis=-1) if math.isfinite(mean)]
    finally:
        model.train(training)
    return float(np.mean(values)) if values else math.nan


def objective_of(model: SeparationModel) -> Objective:
    """Build the objective that the model's recipe names.

    Raises:
        DataError: the model was composed without one.
    """
    if "objective" not in model.parts:
        raise DataError(f"The model {model.name} has no objective; take a method or a card, or name one in its parts.")
    objective: Objective = build_part("objective", PartConfig.parse(model.parts["objective"]))
    return objective
