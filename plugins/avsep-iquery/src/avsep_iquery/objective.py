"""iQuery's objective: masks of a mixture of solos, learned from the solos themselves (mix and separate)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from avsep_zoo.blocks.class_table import ClassTable
from avsep_zoo.blocks.co_separation import recording_masks
from avsep_zoo.blocks.mask_loss import MaskLoss, binary_mask, loudness_weight, mask_loss, ratio_mask
from avsep_zoo.blocks.mixture import MixtureRule, mix_sources
from avsep_zoo.contracts import Estimate, Objective, Spectrum
from avsep_zoo.errors import DataError

if TYPE_CHECKING:
    from avsep_zoo.model import SeparationModel

__all__ = ["IQueryObjective"]

Weighting = Literal["log", "magnitude", "none"]


class IQueryObjective(Objective):
    """Weighted distance between predicted and ideal masks on the warped frequency axis.

    It can also learn from mixtures only, which is not part of the iQuery paper: where every source is a
    recording of K cued sounds, the masks of these sounds are added up and compared with the ideal mask of their
    recording (the co-separation loss of Gao and Grauman, ICCV 2019, without its loss of consistent objects: the
    query of a class already ties the sounds of one class together).

    Args:
        mixture: ``mean`` divides every source by N before they are added (MUSIC), ``sum`` does not (AVE).
        loss: ``l1``, ``l2`` or ``bce``.
        binary: binary instead of ratio targets; needs ``bce``.
        target_limit: largest ratio target; 5 is published although a sigmoid reaches 1 only, ``bce`` needs 1.
        weighting: of each point of the spectrogram: ``log`` of 1 + mixture magnitude (published), the
            ``magnitude`` itself, or ``none``.
        recognition: share of the loss of classes recognised from frames, for encoders that recognise them.
        learning_rate: of Adam for separator and encoder head, and of AdamW for the conditioner.
        weight_decay: of AdamW.
    """

    mixtures_only = True

    def __init__(
        self,
        *,
        mixture: MixtureRule = "mean",
        loss: MaskLoss = "l1",
        binary: bool = False,
        target_limit: float = 5.0,
        weighting: Weighting = "log",
        recognition: float = 0.0,
        learning_rate: float = 1e-4,
        weight_decay: float = 1e-4,
    ) -> None:
        super().__init__()
        if binary and loss != "bce":
            raise ValueError(f"Binary targets do not go with loss={loss!r}; use bce.")
        if loss == "bce" and not binary and target_limit > 1:
            raise ValueError(f"Ratio targets up to {target_limit} do not go with loss='bce'; set target_limit to 1.")
        self.mixture, self.kind, self.binary, self.weighting = mixture, loss, binary, weighting
        self.target_limit, self.recognition = target_limit, recognition
        self.learning_rate, self.weight_decay = learning_rate, weight_decay

    def mix(self, sources: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, L) sources -> the mixture (B, L) and the sources as they are in it."""
        return mix_sources(sources, self.mixture)

    def loss(self, model: SeparationModel, batch: Mapping[str, Any], turn: str = "model") -> dict[str, Tensor]:
        mixture, sources = self.mix_batch(batch)
        front: Any = model.front_end
        spectrum = front.analyse(mixture)
        with torch.no_grad():
            magnitudes = front.stft(sources).abs()
        loss = self.mask_loss(front, spectrum, magnitudes, model.estimate(spectrum, batch["cues"]))
        if not self.recognition:
            return {"loss": loss}
        encoder: Any = model.encoder
        recognition = encoder.recognition_loss(batch["cues"])
        return {"loss": loss + self.recognition * recognition, "mask": loss, "recognition": recognition}

    def targets(self, front_end: Any, spectrum: Spectrum, magnitudes: Tensor) -> Tensor:
        """Ideal masks (B, N, F', T) of linear source magnitudes (B, N, F, T)."""
        if spectrum.gain is not None:
            magnitudes = magnitudes * spectrum.gain
        warped = front_end.warp(magnitudes)
        if self.binary:
            return binary_mask(warped, spectrum.warped)
        return ratio_mask(warped, spectrum.warped).clamp_max(self.target_limit)

    def weight(self, spectrum: Spectrum) -> Tensor | None:
        """Loss weight (B, 1, F', T)."""
        if self.weighting == "magnitude":
            return spectrum.warped
        return loudness_weight(spectrum.warped) if self.weighting == "log" else None

    def mask_loss(self, front_end: Any, spectrum: Spectrum, magnitudes: Tensor, estimate: Estimate) -> Tensor:
        """The scalar loss of an estimate (B, N K, F', T) of recordings with magnitudes (B, N, F, T); K is mostly 1.

        Raises:
            DataError: K is above 1 and the loss is ``bce``, or the number of estimates is no multiple of N.
        """
        target = self.targets(front_end, spectrum, magnitudes)
        if self.kind == "bce" and estimate.values.shape[1] != target.shape[1]:
            raise DataError("Masks that are added up are no probabilities for loss='bce'; set loss to l1 or l2.")
        masks = recording_masks(estimate.values.float(), target.shape[1])
        return mask_loss(masks, target, self.weight(spectrum), self.kind)

    def optimisers(
        self, model: SeparationModel, *, learning_rate: float | None = None
    ) -> dict[str, list[torch.optim.Optimizer]]:
        """Adam for the separator and the trained part of the encoder, AdamW for the conditioner.

        Parts without a trainable parameter are left out. Queries of which only some are trained
        (:func:`avsep_iquery.expand.add_classes`) have no weight decay, which would move the others.
        """
        rate = learning_rate or self.learning_rate
        plain = [p for part in (model.separator, model.encoder) for p in part.parameters() if p.requires_grad]
        tables = [m for m in model.conditioner.modules() if isinstance(m, ClassTable)]
        partly = [table.weight for table in tables if table.trained_rows is not None]
        rest = [p for p in model.conditioner.parameters() if p.requires_grad and all(p is not q for q in partly)]
        groups: list[dict[str, Any]] = [{"params": rest}] if rest else []
        if partly:
            groups.append({"params": partly, "weight_decay": 0.0})
        optimisers: list[torch.optim.Optimizer] = []
        if plain:
            optimisers.append(torch.optim.Adam(plain, lr=rate))
        if groups:
            optimisers.append(torch.optim.AdamW(groups, lr=rate, weight_decay=self.weight_decay))
        return {"model": optimisers}
