"""Does a model that was put together from foreign files separate at all?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avsep_zoo.contracts import CueBatch, CueEncoder, Embedding
from avsep_zoo.cue import Cue
from avsep_zoo.data.detections import Detections, Sounding
from avsep_zoo.errors import WeightsError
from avsep_zoo.generative.noise import Sampling
from avsep_zoo.model import SeparationModel

__all__ = ["SelfCheck", "self_check"]

_SOURCES = 2
_BOX = (12.0, 10.0, 84.0, 90.0)
_PICTURE = (100, 96)
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
    generator = torch.Generator().manual_seed(0)
    time = torch.arange(model.front_end.length) / model.rate
    tones = sum(torch.sin(2 * torch.pi * 220 * k * time) / k for k in range(1, 9))
    mixture = (0.1 * tones + 0.02 * torch.randn(len(time), generator=generator))[None]
    cues, told = _cues(model, generator)
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


def _cues(model: SeparationModel, generator: torch.Generator) -> tuple[CueBatch | Embedding, str]:
    """Cues of every kind that the encoder reads; their embedding is made up where a cue needs a download."""
    reads = model.encoder.reads | model.encoder.optional
    named = ", ".join(sorted(reads))
    if type(model.encoder).fetch is CueEncoder.fetch:
        cues = [_cue(model, number, reads) for number in range(_SOURCES)]
        return model.encoder.prepare(cues, video=None, time=0.0), named
    gives = model.encoder.gives
    sizes: dict[str, tuple[int, ...]] = {"vector": (), "tokens": (4,), "map": (7, 7)}
    views: dict[str, Tensor] = {}
    for view in sorted(sizes.keys() & gives.keys()):
        more = sizes[view]
        shape = (*more, gives[view]) if view == "tokens" else (gives[view], *more)
        views[view] = torch.randn(1, _SOURCES, *shape, generator=generator)
    if "index" in gives:
        views["index"] = torch.arange(_SOURCES)[None]
    return Embedding(**views), f"made-up embeddings of {named}"


def _cue(model: SeparationModel, number: int, reads: frozenset[str]) -> Cue:
    rng = np.random.default_rng(number)
    names = model.classes or ("violin", "flute")
    label = names[number % len(names)]
    given: dict[str, Any] = {
        "label": label,
        "text": label,
        "frames": rng.integers(0, 256, (8, *_PICTURE, 3), dtype=np.uint8),
        "motion": rng.standard_normal((getattr(model.encoder, "motion", 0) or 1, 6)).astype(np.float32),
        "audio": 0.1 * rng.standard_normal(model.rate).astype(np.float32),
        "audio_rate": model.rate,
        "detections": _detections(getattr(model.encoder, "features", None), rng),
    }
    taken = reads | ({"audio_rate"} if "audio" in reads else set())
    return Cue(box=_BOX, name=f"source {number + 1}", **{name: given[name] for name in given if name in taken})


def _detections(features: object, rng: np.random.Generator) -> Detections:
    """Three objects in one frame, the first of which sounds."""
    width = features if isinstance(features, int) else 0
    boxes = np.array([_BOX, (2.0, 4.0, 30.0, 40.0), (50.0, 20.0, 95.0, 60.0)])
    return Detections(
        frames=np.zeros(3, np.int64),
        classes=np.array([1, 2, 3]),
        scores=np.array([0.9, 0.8, 0.7]),
        boxes=boxes,
        features=rng.random((3, width)).astype(np.float32) if width else None,
        sounding=(Sounding(0),),
    )
