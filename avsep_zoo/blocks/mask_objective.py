"""Mix and separate: sounds are mixed, and the masks that get them back are learned from the sounds themselves.

Source: Zhao et al., The Sound of Pixels, ECCV 2018, section 3.2, "Mix-and-Separate".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from avsep_zoo.blocks.class_table import decayed_groups
from avsep_zoo.blocks.co_separation import recording_masks
from avsep_zoo.blocks.mask_loss import MaskLoss, binary_mask, loudness_weight, mask_loss, ratio_mask
from avsep_zoo.blocks.mixture import MixtureRule, mix_sources
from avsep_zoo.blocks.recognition import recognition_loss
from avsep_zoo.contracts import Estimate, Objective, Spectrum
from avsep_zoo.errors import DataError

if TYPE_CHECKING:
    from avsep_zoo.model import SeparationModel

__all__ = ["MaskObjective", "Weighting"]

Weighting = Literal["log", "magnitude", "none"]


class MaskObjective(Objective):
    """Weighted distance between predicted and ideal masks on the warped frequency axis.

    It can also learn from mixtures only: where every source is a recording of K cued sounds, the masks of these
    sounds are added up and compared with the ideal mask of their recording
    (:func:`~avsep_zoo.blocks.co_separation.recording_masks`).

    Args:
        mixture: ``mean`` divides every source by N before they are added (MUSIC), ``sum`` does not (AVE).
        loss: ``l1``, ``l2`` or ``bce``.
        binary: binary instead of ratio targets; needs ``bce``.
        target_limit: largest ratio target; 5 is published although a sigmoid reaches 1 only, ``bce`` needs 1.
        weighting: of each point of the spectrogram: ``log`` of 1 + mixture magnitude (published), the
            ``magnitude`` itself, or ``none``.
        recognition: share of the loss of classes recognised from frames, for encoders that recognise them.
        learning_rate, weight_decay: of AdamW.
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
        recognition = recognition_loss(model.encoder, batch["cues"], self.recognition)
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
        """AdamW over everything that is trained; the rows of a table that stay as they are have no weight decay."""
        groups, rate = decayed_groups(model), learning_rate or self.learning_rate
        return {"model": [torch.optim.AdamW(groups, lr=rate, weight_decay=self.weight_decay)] if groups else []}
