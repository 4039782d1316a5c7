"""Does a model that was put together from foreign files separate at all?"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from avsep_zoo.contracts import CueBatch, CueEncoder, Embedding
from avsep_zoo.errors import WeightsError
from avsep_zoo.example_cues import example_cue_batch, example_embedding, example_sources
from avsep_zoo.generative.noise import Sampling
from avsep_zoo.model import SeparationModel

__all__ = ["SelfCheck", "self_check"]

_STEPS = 2  # of a generative model's solver


@dataclass(frozen=True)
class SelfCheck:
    """What two sources of a made-up mixture came out as.

    Args:
        low, high: of the estimates, masks or features as the front end gives them.
        apart: mean absolute difference between the two estimates.
        cues: what they were asked for by.
    """

    low: float
    high: float
    apart: float
    cues: str


@torch.no_grad()
def self_check(model: SeparationModel) -> SelfCheck:
    """Separate two sources out of tones and noise, asked for by made-up cues of every kind that the model reads.

    Raises:
        WeightsError: what comes out is not finite or is the same everywhere.
    """
    mixture = example_sources(model.front_end.length, rate=model.rate).sum(1)
    cues, told = _cues(model)
    spectrum = model.front_end.analyse(mixture)
    estimate = model.estimate(spectrum, cues, sampling=Sampling(steps=_STEPS))
    values = estimate.values
    wave = model.front_end.synthesise(estimate, spectrum)
    if not (torch.isfinite(values).all() and torch.isfinite(wave).all()):
        raise WeightsError(
            f"{model.name} with these weights gives numbers that are not finite; take files that were saved whole, at "
            "another step of the run."
        )
    if float(values.std()) == 0.0:
        raise WeightsError(
            f"{model.name} with these weights gives {float(values.mean()):.3g} everywhere; take files of one training "
            "run that belong together."
        )
    apart = float((values[:, 0] - values[:, 1]).abs().mean())
    return SelfCheck(float(values.min()), float(values.max()), apart, told)


def _cues(model: SeparationModel) -> tuple[CueBatch | Embedding, str]:
    """Cues of every kind that the encoder reads; an embedding where a cue would need a download."""
    named = ", ".join(sorted(model.encoder.reads | model.encoder.optional))
    if type(model.encoder).fetch is CueEncoder.fetch:
        return example_cue_batch(model.encoder, rate=model.rate), named
    return example_embedding(model.encoder), f"made-up embeddings of {named}"
