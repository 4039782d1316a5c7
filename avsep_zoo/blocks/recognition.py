"""Classes recognised from what a cue shows: a loss beside that of the sounds, which teaches what pictures show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional as F

from avsep_zoo.errors import CompositionError

if TYPE_CHECKING:
    from avsep_zoo.contracts import CueBatch, CueEncoder

__all__ = ["class_loss", "recognition_loss"]


def class_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy of logits (B, N, classes) and classes (B, N), over those from 0 on; 0 where there are none."""
    loss = F.cross_entropy(logits.float().flatten(0, 1), target.flatten(), ignore_index=-1, reduction="sum")
    return loss / (target >= 0).sum().clamp_min(1)


def recognition_loss(encoder: CueEncoder, cues: CueBatch, share: float) -> Tensor:
    """The loss of classes that an encoder recognises from cues, which an objective counts with ``share``.

    Raises:
        CompositionError: the encoder has no method ``recognition_loss``.
    """
    recognise = getattr(encoder, "recognition_loss", None)
    if recognise is None:
        raise CompositionError(
            f"recognition is {share} and the encoder {type(encoder).__name__} recognises no classes; set recognition "
            "to 0."
        )
    loss: Tensor = recognise(cues)
    return loss
