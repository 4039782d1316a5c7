"""Mix and separate with the published masks and optimiser.

Source: Zhao et al., The Sound of Pixels, ECCV 2018, section 3.2, "Mix-and-Separate".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from avsep_zoo.blocks.mask_loss import MaskLoss
from avsep_zoo.blocks.mask_objective import MaskObjective, Weighting

if TYPE_CHECKING:
    from avsep_zoo.model import SeparationModel

__all__ = ["SoundOfPixelsObjective"]


class SoundOfPixelsObjective(MaskObjective):
    """The core's mask objective under stochastic gradient descent with momentum, slower for the image network.

    Waveforms are added up; the masks are ``binary`` with cross-entropy, or ratios with an L1 distance
    (``binary=False, loss="l1"``). Points count by the log magnitude of the mixture.

    Args:
        binary, loss, weighting: as in :class:`~avsep_zoo.blocks.mask_objective.MaskObjective`.
        learning_rate: of separator and conditioner.
        encoder_learning_rate: of the encoder; scaled with the other one where a run sets that.
        momentum: of all.
    """

    def __init__(
        self,
        *,
        binary: bool = True,
        loss: MaskLoss = "bce",
        weighting: Weighting = "log",
        learning_rate: float = 1e-3,
        encoder_learning_rate: float = 1e-4,
        momentum: float = 0.9,
    ) -> None:
        super().__init__(mixture="sum", binary=binary, loss=loss, weighting=weighting, learning_rate=learning_rate)
        self.encoder_learning_rate, self.momentum = encoder_learning_rate, momentum

    def optimisers(
        self, model: SeparationModel, *, learning_rate: float | None = None
    ) -> dict[str, list[torch.optim.Optimizer]]:
        """SGD over everything that is trained, in one group per part (section "Model configurations")."""
        scale = (learning_rate or self.learning_rate) / self.learning_rate
        rates = {
            model.separator: self.learning_rate,
            model.conditioner: self.learning_rate,
            model.encoder: self.encoder_learning_rate,
        }
        groups = [
            {"params": trained, "lr": scale * rate}
            for part, rate in rates.items()
            if (trained := [p for p in part.parameters() if p.requires_grad])
        ]
        return {"model": [torch.optim.SGD(groups, momentum=self.momentum)] if groups else []}
