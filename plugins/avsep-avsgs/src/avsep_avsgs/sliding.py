"""Published inference: the whole recording through overlapping windows, whose estimates are averaged."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from avsep_avsgs.conditioner import SourceUnroll
from avsep_zoo.contracts import Bound, Conditioner, CueBatch, Embedding
from avsep_zoo.model import SeparationModel

__all__ = ["separate_sliding", "window_starts"]


def window_starts(samples: int, length: int, hop: int) -> list[int]:
    """First samples of the windows: every ``hop`` samples as long as a window ends before the recording does, and the
    recording's last ``length`` samples.

    Source: inference of Chatterjee et al., Visual Scene Graphs for Audio Source Separation, ICCV 2021, as published.
    """
    last = max(0, samples - length)
    return [*range(0, last, hop), last]


@torch.inference_mode()
def separate_sliding(
    model: SeparationModel,
    mixture: Tensor,
    cues: CueBatch | Embedding,
    *,
    hop: int | None = None,
    batch: int = 8,
    factor: float | None = None,
) -> Tensor:
    """Separate a recording as published: many overlapping windows, the average of their estimates, at full level.

    Cues are embedded once. Windows go through the network in batches, all sources of a mixture together; besides the
    result, memory does not grow with the length. A recording shorter than a window gets zeros behind it.

    Args:
        model: one that gives masks.
        mixture: (L,) at the model's rate.
        cues: of the one mixture, (1, N), or their embedding.
        hop: samples from one window to the next; None is the published 0.05 s.
        batch: most windows that go through the network at once.
        factor: what averages are multiplied with, as a mixture is the mean of its sources; None is N, their number.

    Returns:
        Estimates (N, L) in [-1, 1].

    Raises:
        ValueError: the mixture is not one waveform, or ``hop`` or ``batch`` is below 1.
    """
    front: Any = model.front_end
    hop = int(0.05 * front.rate) if hop is None else hop
    if mixture.ndim != 1 or hop < 1 or batch < 1:
        raise ValueError(
            f"The mixture has the shape {tuple(mixture.shape)}, hop is {hop} and batch {batch}; give one waveform (L,) "
            "and numbers from 1."
        )
    training = model.training
    model.eval()
    try:
        heard = mixture.to(model.device, front.window.dtype)
        heard = F.pad(heard, (0, max(0, front.length - len(heard))))
        starts = window_starts(len(heard), front.length, hop)
        total, count = None, heard.new_zeros(len(heard))
        clip = _Clip(model.conditioner, model.encode(cues))
        batches = -(-len(starts) // batch)
        for number in range(batches):
            places = starts[number::batches]  # none has many fewer than another
            windows = torch.stack([heard[start : start + front.length] for start in places])
            complex_spectrum = front.stft(windows)[:, None]
            spectrum = front.from_magnitude(complex_spectrum.abs())
            estimate = model.separator(spectrum, clip.windows(len(places)))
            if total is None:
                total = heard.new_zeros(estimate.values.shape[1], len(heard))
            for start, mask, mixed in zip(places, front.mask(estimate, spectrum), complex_spectrum, strict=True):
                end = start + front.length
                total[:, start:end] += front.istft(mask * mixed, length=front.length).clamp_(-1.0, 1.0)
                count[start:end] += 1
        assert total is not None
        factor = float(len(total)) if factor is None else factor
        return total.div_(count).mul_(factor).clamp_(-1.0, 1.0)[:, : len(mixture)]
    finally:
        model.train(training)


class _Clip:
    """A conditioner bound to the cues of a recording, for any number of its windows."""

    def __init__(self, conditioner: Conditioner, embedding: Embedding) -> None:
        self.conditioner, self.embedding = conditioner, embedding
        if isinstance(conditioner, SourceUnroll):
            unrolled = conditioner.bind(embedding).unrolled
            self.conditioner, self.embedding = conditioner.tiled, Embedding(vector=unrolled.flatten(1, 2))

    def windows(self, number: int) -> Bound:
        return self.conditioner.bind(self.embedding.repeat(number))
