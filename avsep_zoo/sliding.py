"""The sliding window of published evaluations: many overlapping windows of a recording, whose estimates are averaged.

What a user separates goes through :mod:`avsep_zoo.inference`, which cross-fades a few segments instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from avsep_zoo.contracts import CueBatch, Embedding
from avsep_zoo.generative.noise import Sampling
from avsep_zoo.model import SeparationModel

__all__ = ["slide", "window_starts"]


def window_starts(samples: int, length: int, hop: int) -> list[int]:
    """First samples of the windows of a recording: every ``hop`` samples as long as a window ends before the recording
    does, and the recording's last ``length`` samples.

    Source: inference of Chatterjee et al., Visual Scene Graphs for Audio Source Separation, ICCV 2021, and of
    Independency Adversarial Learning for Cross-Modal Sound Separation, AAAI 2024, as published.
    """
    last = max(0, samples - length)
    return [*range(0, last, hop), last]


@torch.inference_mode()
def slide(
    model: SeparationModel,
    mixture: Tensor,
    cues: CueBatch | Embedding,
    *,
    hop: int,
    batch: int = 8,
    consistency: bool = False,
    sampling: Sampling | None = None,
) -> Tensor:
    """Separate a recording by windows of the model's length and average what they say of each sample.

    Cues are embedded and digested once. Windows go through the network in batches, all sources of a mixture together;
    besides the result, memory does not grow with the length. A recording shorter than a window gets zeros behind it.

    Args:
        model: is in evaluation mode meanwhile.
        mixture: (L,) at the model's rate.
        cues: of the one mixture, (1, N), or their embedding.
        hop: samples from one window to the next.
        batch: most windows that go through the network at once.
        consistency, sampling: as in :meth:`~avsep_zoo.SeparationModel.waveforms`.

    Returns:
        Estimates (N, L).

    Raises:
        ValueError: the mixture is not one waveform, or ``hop`` or ``batch`` is below 1.
    """
    if mixture.ndim != 1 or hop < 1 or batch < 1:
        raise ValueError(
            f"The mixture has the shape {tuple(mixture.shape)}, hop is {hop} and batch {batch}; give one waveform (L,) "
            "and numbers from 1."
        )
    training = model.training
    model.eval()
    try:
        length = model.front_end.length
        heard = F.pad(mixture.to(model.device), (0, max(0, length - len(mixture))))
        starts = window_starts(len(heard), length, hop)
        embedding = model.conditioner.digest(model.encode(cues))
        total, count = heard.new_zeros(embedding.sources, len(heard)), heard.new_zeros(len(heard))
        batches = -(-len(starts) // batch)
        for number in range(batches):
            places = starts[number::batches]  # none has many fewer than another
            windows = {
                "mixture": torch.stack([heard[start : start + length] for start in places]),
                "cues": embedding.repeat(len(places)),
            }
            sampled = _sampling_at(model, places, sampling)
            estimates = model.waveforms(windows, consistency=consistency, sampling=sampled, length=length)
            for start, estimate in zip(places, estimates, strict=True):
                total[:, start : start + length] += estimate
                count[start : start + length] += 1
        return total.div_(count)[:, : len(mixture)]
    finally:
        model.train(training)


def _sampling_at(model: SeparationModel, starts: Sequence[int], sampling: Sampling | None) -> Sampling | None:
    """The noise of windows that begin at samples ``starts``: nearly the same where they overlap."""
    if model.driver is None:
        return None
    front: Any = model.front_end
    columns = [round(start / front.rate / front.column_seconds()) for start in starts]
    return replace(sampling or Sampling(), starts=columns)
