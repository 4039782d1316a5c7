"""A class label becomes the row of a learned table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from avsep_zoo.blocks.class_table import ClassTable
from avsep_zoo.class_names import class_position, labelled_class
from avsep_zoo.contracts import CueBatch, CueEncoder, Embedding, EncoderPlan
from avsep_zoo.errors import CueError

if TYPE_CHECKING:
    import numpy as np

    from avsep_zoo.cue import Cue
    from avsep_zoo.media import VideoSource

__all__ = ["ClassEncoder"]


class ClassEncoder(CueEncoder):
    """A learned ``vector`` (B, N, D) per class, drawn from a standard normal distribution; it reads nothing else.

    Args:
        classes: class names; the position of a class is its row.
        width: D.
    """

    per_clip = True

    def __init__(self, *, classes: Sequence[str], width: int = 32) -> None:
        super().__init__()
        plan = self.plan(width=width)
        self.reads, self.optional, self.gives = plan.reads, plan.optional, plan.gives
        self.classes = tuple(classes)
        self.table = ClassTable(len(self.classes), width)

    @classmethod
    def plan(cls, *, width: int = 32, **_: Any) -> EncoderPlan:
        """The label alone."""
        return EncoderPlan(frozenset({"label"}), {"vector": width})

    def forward(self, cues: CueBatch) -> Embedding:
        """Encode positions (B, N) of classes."""
        label = cues.get("label")
        if label is None:
            raise CueError(f"This model needs a label of every source; it knows {', '.join(self.classes)}.")
        return Embedding(vector=self.table(label))

    def prepare(
        self,
        cues: Sequence[Cue],
        *,
        video: VideoSource | None,
        time: float,
        rng: np.random.Generator | None = None,
    ) -> CueBatch:
        return CueBatch({"label": torch.tensor([[labelled_class(cue, self.classes) for cue in cues]])})

    def label_index(self, label: str) -> int:
        """Return the position of a class name in ``classes``, or raise CueError; case and spelling as in cues."""
        return class_position(label, self.classes)
