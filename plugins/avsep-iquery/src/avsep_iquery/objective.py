"""iQuery's objective: masks of a mixture of solos, learned from the solos themselves (mix and separate)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from avsep_zoo.blocks.class_table import decayed_groups
from avsep_zoo.blocks.mask_objective import MaskObjective

if TYPE_CHECKING:
    from avsep_zoo.model import SeparationModel

__all__ = ["IQueryObjective"]


class IQueryObjective(MaskObjective):
    """The core's mask objective with the published optimisers; its defaults are the published settings.

    It can also learn from mixtures only, which is not part of the iQuery paper (the co-separation loss of Gao and
    Grauman, ICCV 2019, without its loss of consistent objects: the query of a class already ties the sounds of one
    class together).

    Args:
        learning_rate: of Adam for separator and encoder head, and of AdamW for the conditioner.
        weight_decay: of AdamW.
    """

    def optimisers(
        self, model: SeparationModel, *, learning_rate: float | None = None
    ) -> dict[str, list[torch.optim.Optimizer]]:
        """Adam for the separator and the trained part of the encoder, AdamW for the conditioner.

        Parts without a trainable parameter are left out. Queries of which only some are trained
        (:func:`avsep_iquery.expand.add_classes`) have no weight decay, which would move the others.
        """
        rate = learning_rate or self.learning_rate
        plain = [p for part in (model.separator, model.encoder) for p in part.parameters() if p.requires_grad]
        groups = decayed_groups(model.conditioner)
        optimisers: list[torch.optim.Optimizer] = []
        if plain:
            optimisers.append(torch.optim.Adam(plain, lr=rate))
        if groups:
            optimisers.append(torch.optim.AdamW(groups, lr=rate, weight_decay=self.weight_decay))
        return {"model": optimisers}
