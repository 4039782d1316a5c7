"""Published inference: a window every 0.05 s, the average of their estimates, at full level."""

from __future__ import annotations

from torch import Tensor

from avsep_zoo.contracts import CueBatch, Embedding
from avsep_zoo.model import SeparationModel
from avsep_zoo.sliding import slide

__all__ = ["separate_sliding"]


def separate_sliding(
    model: SeparationModel,
    mixture: Tensor,
    cues: CueBatch | Embedding,
    *,
    hop: int | None = None,
    batch: int = 8,
    factor: float | None = None,
) -> Tensor:
    """Separate a recording as published: :func:`avsep_zoo.sliding.slide`, and the level it had before it was mixed.

    Source: inference of Chatterjee et al., Visual Scene Graphs for Audio Source Separation, ICCV 2021.

    Args:
        model: is in evaluation mode meanwhile.
        mixture: (L,) at the model's rate, the mean of its sources.
        cues: of the one mixture, (1, N), or their embedding.
        hop: samples from one window to the next; None is the published 0.05 s.
        batch: most windows that go through the network at once.
        factor: what averages are multiplied with; None is N, their number.

    Returns:
        Estimates (N, L) in [-1, 1].

    Raises:
        ValueError: the mixture is not one waveform, or ``hop`` or ``batch`` is below 1.
    """
    hop = int(0.05 * model.rate) if hop is None else hop
    estimates = slide(model, mixture, cues, hop=hop, batch=batch)
    return (estimates * (len(estimates) if factor is None else factor)).clamp(-1.0, 1.0)
