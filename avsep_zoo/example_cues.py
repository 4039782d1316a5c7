"""Made-up cues of every kind that an encoder reads: to try a model without any data."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from avsep_zoo.contracts import CueBatch, CueEncoder, Embedding
from avsep_zoo.cue import Cue
from avsep_zoo.data.detections import Detections, Sounding

__all__ = ["example_cue_batch", "example_cues", "example_embedding", "example_sources"]

_BOX = (12.0, 10.0, 84.0, 90.0)
_PICTURE = (100, 96)  # rows and columns
_NAMES = ("violin", "flute")  # where an encoder has no classes


def example_cues(encoder: CueEncoder, *, sources: int = 2, rate: int = 11025, seed: int = 0) -> list[Cue]:
    """Cues with all modalities that ``encoder`` reads, one per source; the same for the same arguments.

    Args:
        encoder: any; its ``classes`` give labels and texts where it has some.
        sources: N.
        rate: of examples of a sound, in Hz.
        seed: of all random content.
    """
    return [_cue(encoder, number, rate, seed) for number in range(sources)]


def example_cue_batch(
    encoder: CueEncoder, *, batch: int = 1, sources: int = 2, rate: int = 11025, seed: int = 0
) -> CueBatch:
    """The cues of ``batch`` mixtures as the encoder prepares them, (B, N); arguments as :func:`example_cues`.

    Raises:
        AvsepError: the encoder refuses them, or has to fetch something and cannot.
    """
    rows = [example_cues(encoder, sources=sources, rate=rate, seed=seed + 1000 * row) for row in range(batch)]
    return CueBatch.stack([encoder.prepare(cues, video=None, time=0.0) for cues in rows])


def example_embedding(encoder: CueEncoder, *, batch: int = 1, sources: int = 2, seed: int = 0) -> Embedding:
    """An embedding with the views that ``encoder`` gives, made of noise: for one that would have to fetch something."""
    generator = torch.Generator().manual_seed(seed)
    gives = encoder.gives
    views: dict[str, Tensor] = {}
    if "vector" in gives:
        views["vector"] = torch.randn(batch, sources, gives["vector"], generator=generator)
    if "tokens" in gives:
        views["tokens"] = torch.randn(batch, sources, 4, gives["tokens"], generator=generator)
    if "map" in gives:
        views["map"] = torch.randn(batch, sources, gives["map"], 7, 7, generator=generator)
    if "index" in gives:
        views["index"] = (torch.arange(sources) % gives["index"]).expand(batch, sources)
    return Embedding(**views)


def example_sources(length: int, *, rate: int, batch: int = 1, sources: int = 2, seed: int = 0) -> Tensor:
    """Sounds (B, N, L) in [-1, 1]: harmonic tones of different pitch, each with some noise of its own."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(length) / rate
    pitch = 110.0 * (1 + torch.rand(batch, sources, 1, generator=generator) + 2 * torch.arange(sources)[None, :, None])
    partials = torch.arange(1, 7)[:, None, None, None]
    tones = (torch.sin(2 * torch.pi * partials * pitch * time) / partials).sum(0)
    return 0.1 * tones + 0.02 * torch.randn(batch, sources, length, generator=generator)


def _cue(encoder: CueEncoder, number: int, rate: int, seed: int) -> Cue:
    rng = np.random.default_rng((seed, number))
    reads = encoder.reads | encoder.optional
    names = tuple(getattr(encoder, "classes", ())) or _NAMES
    label = names[number % len(names)]
    made: dict[str, Any] = {
        "label": label,
        "text": label,
        "frames": rng.integers(0, 256, (8, *_PICTURE, 3), dtype=np.uint8),
        "motion": rng.standard_normal((getattr(encoder, "motion", 0) or 1, 6)).astype(np.float32),
        "audio": 0.1 * rng.standard_normal(rate).astype(np.float32),
        "audio_rate": rate,
        "detections": _detections(getattr(encoder, "features", None), rng),
    }
    taken = reads | ({"audio_rate"} if "audio" in reads else set())
    return Cue(box=_BOX, name=f"source {number + 1}", **{name: made[name] for name in made if name in taken})


def _detections(features: object, rng: np.random.Generator) -> Detections:
    """Three objects in one frame, the first of which sounds."""
    width = features if isinstance(features, int) else 0
    return Detections(
        frames=np.zeros(3, np.int64),
        classes=np.array([1, 2, 3]),
        scores=np.array([0.9, 0.8, 0.7]),
        boxes=np.array([_BOX, (2.0, 4.0, 30.0, 40.0), (50.0, 20.0, 95.0, 60.0)]),
        features=rng.random((3, width)).astype(np.float32) if width else None,
        sounding=(Sounding(0),),
    )
