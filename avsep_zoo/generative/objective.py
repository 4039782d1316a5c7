"""The training objective of generative models: the driver's errors on the sources of a mixture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from einops import rearrange, repeat
from torch import Tensor

from avsep_zoo.blocks.mask_loss import loudness_weight
from avsep_zoo.blocks.mixture import MixtureRule, mix_sources
from avsep_zoo.blocks.recognition import recognition_loss
from avsep_zoo.contracts import CueBatch, Embedding, Objective, Spectrum
from avsep_zoo.errors import CompositionError

if TYPE_CHECKING:
    from avsep_zoo.generative.contract import Driver
    from avsep_zoo.model import SeparationModel

__all__ = ["GenerativeObjective"]


class GenerativeObjective(Objective):
    """Errors of the model's driver, averaged over mixtures and points and added up over sources.

    Source: Huang et al., High-Quality Visually-Guided Sound Separation from Diverse Categories, ACCV 2024, whose
    settings are the defaults.

    Args:
        mixture: ``mean`` divides every source by N before they are added, ``sum`` does not.
        scale: factor of the loss, which matters to the clipping of gradients only.
        weighting: of each point: ``none``; ``audible``, 1 where ``log(1 + magnitude)`` of the mixture is above 1e-3 and
            0 elsewhere; or ``log`` of 1 + magnitude itself.
        recognition: share of the loss of classes recognised from frames, for encoders that recognise them.
        learning_rate, weight_decay: of AdamW.

    Raises:
        ValueError: a setting is out of its range.
    """

    def __init__(
        self,
        *,
        mixture: MixtureRule = "mean",
        scale: float = 1000.0,
        weighting: Literal["none", "audible", "log"] = "none",
        recognition: float = 0.0,
        learning_rate: float = 1e-4,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__()
        for name, value, choices in (
            ("mixture", mixture, ("mean", "sum")),
            ("weighting", weighting, ("none", "audible", "log")),
        ):
            if value not in choices:
                raise ValueError(f"{name} is {value!r}; choose one of {', '.join(choices)}.")
        for name, number in {"scale": scale, "learning_rate": learning_rate}.items():
            if not number > 0:
                raise ValueError(f"{name} is {number}; give a number above 0.")
        for name, number in {"recognition": recognition, "weight_decay": weight_decay}.items():
            if not number >= 0:
                raise ValueError(f"{name} is {number}; give a number from 0 on.")
        self.mixture, self.scale, self.weighting, self.recognition = mixture, scale, weighting, recognition
        self.learning_rate, self.weight_decay = learning_rate, weight_decay

    def mix(self, sources: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, L) sources -> the mixture (B, L) and the sources as they are in it."""
        return mix_sources(sources, self.mixture)

    def loss(self, model: SeparationModel, batch: Mapping[str, Any], turn: str = "model") -> dict[str, Tensor]:
        """See :meth:`~avsep_zoo.contracts.Objective.loss`.

        Noise and times are drawn by PyTorch's own generators, which the trainer seeds for each step.

        Raises:
            CompositionError: the model has no driver, or ``recognition`` is set and its encoder recognises nothing.
        """
        front: Any = model.front_end
        driver = self._driver(model)
        mixture, sources = self.mix_batch(batch)
        if driver.full_level:
            sources = batch["sources"]
        spectrum = front.analyse(mixture)
        with torch.no_grad():
            clean = front.features(front.stft(sources).abs(), spectrum.gain)  # (B, N, F', T)
        time = driver.draw_time(clean.shape[0] * clean.shape[1]).to(clean.device)
        loss = self.generative_loss(model, spectrum, clean, batch["cues"], torch.randn_like(clean), time)
        if not self.recognition:
            return {"loss": loss}
        recognition = recognition_loss(model.encoder, batch["cues"], self.recognition)
        return {"loss": loss + self.recognition * recognition, "errors": loss, "recognition": recognition}

    def generative_loss(
        self,
        model: SeparationModel,
        spectrum: Spectrum,
        clean: Tensor,
        cues: CueBatch | Embedding,
        noise: Tensor,
        time: Tensor,
    ) -> Tensor:
        """The scalar loss.

        Args:
            model: with a driver.
            spectrum: of the mixtures.
            clean: features (B, N, F', T') of the sources.
            cues: of the sources, or what they are embedded as.
            noise: standard normal, like ``clean``.
            time: (B N,), as the driver draws it.
        """
        separator: Any = model.separator
        sources = clean.shape[1]
        network = separator.bind(spectrum, model.conditioner.bind(model.encode(cues)))
        clean, noise = (rearrange(x, "b n f t -> (b n) 1 f t") for x in (clean, noise))
        errors = self._driver(model).errors(network, clean, noise, time).float()
        if self.weighting != "none":
            errors = errors * repeat(self.weight(spectrum), "b 1 f t -> (b n) 1 f t", n=sources)
        return self.scale * sources * errors.mean()

    def weight(self, spectrum: Spectrum) -> Tensor:
        """Weight (B, 1, F', T') of each point, other than 1."""
        if self.weighting == "audible":
            return (torch.log1p(spectrum.warped) > 1e-3).float()
        return loudness_weight(spectrum.warped)

    def optimisers(
        self, model: SeparationModel, *, learning_rate: float | None = None
    ) -> dict[str, list[torch.optim.Optimizer]]:
        """AdamW over everything that is trained."""
        trained = [p for p in model.parameters() if p.requires_grad]
        rate = learning_rate or self.learning_rate
        return {"model": [torch.optim.AdamW(trained, lr=rate, weight_decay=self.weight_decay)] if trained else []}

    @staticmethod
    def _driver(model: SeparationModel) -> Driver:
        if model.driver is None:
            raise CompositionError(
                f"{model.name} has no driver and the generative objective needs one; compose it with one, e.g. 'flow'."
            )
        return model.driver
