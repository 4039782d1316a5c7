"""BiModalSep's objective: recordings of several named sounds, which texts and a judge of sounds take apart.

Source: Mahmud et al., Weakly-supervised Audio Separation via Bi-modal Semantic Similarity, ICLR 2024, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from einops import rearrange, reduce
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from avsep_bimodal_sep.losses import alignment_loss, contrastive_loss, signal_ratio, spectral_loss
from avsep_zoo.blocks.mixture import MixtureRule, mix_sources
from avsep_zoo.contracts import CueBatch, Embedding, Estimate, Objective, Spectrum
from avsep_zoo.errors import CompositionError

if TYPE_CHECKING:
    from avsep_zoo.model import SeparationModel

__all__ = ["BiModalObjective"]

_LEARNED_SCALE = 1 / 0.07


@dataclass
class Told:
    """What the texts of a batch are, and what the model makes of them.

    Args:
        recordings: estimates of the recordings (B, N, F', T'), and
        phrases: of their sounds (B, N K, F', T'), or None where they are not needed.
        embedding: of the phrases, or of the recordings where there are no phrases.
    """

    recordings: Estimate
    phrases: Estimate | None
    embedding: Embedding


class BiModalObjective(Objective):
    """Mix and separate recordings by their captions; single sounds must add up, and sound as their phrases say.

    Recordings of K sounds each are mixed. The estimate for the caption of a recording is compared with it (mix and
    separate); the estimates for the phrases of a caption, added up, as well (consistency); and a frozen judge hears
    whether each of these sounds as its phrase rather than as the other phrases of the batch (contrastive). Recordings
    of one sound among them make it semi-supervised (``--set members=2 --set solos=0.5``); with recordings of one sound
    alone (``members`` 1) the first loss is all there is.

    Args:
        mixture: ``mean`` divides recordings by their number before they are added (published), ``sum`` does not.
        in_place: divide the targets by K once more than the mixture, as the published loaders of MUSIC and VGGSound do
            by mistake in training; masks become K times too small.
        loss: ``spectral``, weighted distance of magnitudes (published), or ``signal``, the negative ratio in dB of
            waveforms to the error in them.
        most: ratio in dB that is good enough for ``signal``.
        reconstruction: weight of mix and separate and of consistency.
        consistency: further weight of consistency; with 0 and ``contrastive`` 0 phrases are not separated at all.
        contrastive: weight of the judge's opinion.
        scale: factor of the cosines that the judge compares; CLAP's is that of its file.
        soft: phrases that mean the same are no wrong answers
            (:func:`~avsep_bimodal_sep.losses.contrastive_loss`).
        judge: settings of CLAP's :class:`~avsep_bimodal_sep.clap_audio.ClapSound`, whose space is that of the
            encoder's vectors; None is the encoder's own ear, which this loss does not train.
        alignment: weight of a loss that teaches the encoder's own ear and texts to agree, from recordings of one sound
            of a known class (not part of the paper, whose judge is trained already).
        together: run the network once for all texts of a batch, with batch statistics of all; otherwise once for each
            text of a mixture, as published.
        learning_rate: of Adam.
        weight_decay: of Adam, added to the gradient.
    """

    mixtures_only = True
    captioned = True

    def __init__(
        self,
        *,
        mixture: MixtureRule = "mean",
        in_place: bool = False,
        loss: Literal["spectral", "signal"] = "spectral",
        most: float = 30.0,
        reconstruction: float = 5.0,
        consistency: float = 1.0,
        contrastive: float = 0.5,
        scale: float = _LEARNED_SCALE,
        soft: bool = False,
        judge: Mapping[str, Any] | None = None,
        alignment: float = 0.0,
        together: bool = False,
        learning_rate: float = 1e-4,
        weight_decay: float = 1e-4,
    ) -> None:
        super().__init__()
        if mixture not in ("mean", "sum"):
            raise ValueError(f"The mixture is {mixture!r}; give mean or sum.")
        if loss not in ("spectral", "signal"):
            raise ValueError(f"The loss is {loss!r}; give spectral or signal.")
        if min(reconstruction, consistency, contrastive, alignment, weight_decay) < 0 or min(scale, learning_rate) <= 0:
            raise ValueError("A weight is below 0, or the scale or learning rate is not above it; give one that is.")
        self.mixture, self.in_place, self.kind, self.most = mixture, in_place, loss, most
        self.reconstruction, self.consistency, self.contrastive = reconstruction, consistency, contrastive
        self.scale, self.soft, self.alignment, self.together = scale, soft, alignment, together
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.judge: nn.Module | None = None
        if judge is not None and contrastive:
            from avsep_bimodal_sep.clap_audio import ClapSound

            self.judge = ClapSound(**judge)

    def mix(self, sources: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, L) recordings -> the mixture (B, L) and the recordings as they are in it."""
        return mix_sources(sources, self.mixture)

    def loss(self, model: SeparationModel, batch: Mapping[str, Any], turn: str = "model") -> dict[str, Tensor]:
        mixture, recordings = self.mix_batch(batch)
        sounds = batch["cues"].shape[1] // recordings.shape[1]
        if self.in_place:
            recordings = recordings / sounds
        spectrum = model.front_end.analyse(mixture)
        told = self.separate(model, spectrum, batch, sounds)
        shares = batch.get("shares")
        if shares is None:
            shares = recordings.new_ones(batch["cues"].shape)
        values = self.losses(model, spectrum, told, recordings, shares)
        if self.alignment and sounds == 1 and (label := batch["cues"].get("label")) is not None:
            heard = self._ear(model).hear(rearrange(recordings, "b n l -> (b n) l"))
            assert told.embedding.vector is not None
            texts = rearrange(told.embedding.vector, "b n d -> (b n) d")
            texts = F.normalize(texts.float(), dim=-1)
            values["alignment"] = alignment_loss(heard, texts, label.flatten().to(texts.device), scale=_LEARNED_SCALE)
            values["loss"] = values["loss"] + self.alignment * values["alignment"]
        return values

    def separate(self, model: SeparationModel, spectrum: Spectrum, batch: Mapping[str, Any], sounds: int) -> Told:
        """Separate what the texts of a batch ask for: recordings, and where they hold several, sounds."""
        if sounds == 1:
            embedding = model.encode(batch["cues"])
            return Told(self._estimate(model, spectrum, embedding), None, embedding)
        captions = model.encode(batch["captions"])
        if not (self.consistency or self.contrastive):
            return Told(self._estimate(model, spectrum, captions), None, captions)
        phrases = model.encode(batch["cues"])
        if not self.together:
            return Told(self._estimate(model, spectrum, captions), self._estimate(model, spectrum, phrases), phrases)
        both = self._estimate(model, spectrum, _joined(captions, phrases))
        count = captions.sources
        return Told(Estimate(both.values[:, :count]), Estimate(both.values[:, count:]), phrases)

    def losses(
        self, model: SeparationModel, spectrum: Spectrum, told: Told, recordings: Tensor, shares: Tensor
    ) -> dict[str, Tensor]:
        """The losses of estimates.

        Args:
            model: whose front end the estimates are of.
            spectrum: of the mixtures.
            told: the estimates.
            recordings: (B, N, L) as they are in the mixture.
            shares: (B, N K) weights of the phrases of a recording.
        """
        whole = self.distances(model, spectrum, told.recordings.values, recordings, spectrum.warped)
        values = {"separation": whole.sum() if self.kind == "spectral" else whole.mean()}
        total = self.reconstruction * values["separation"]
        if told.phrases is not None:
            count = recordings.shape[1]
            shares = shares.to(told.phrases.values)[..., None, None]
            added = reduce(told.phrases.values * shares, "b (n k) f t -> b n f t", "sum", n=count)
            apart = self.distances(model, spectrum, added, recordings, None)
            values["consistency"] = apart.sum() if self.kind == "spectral" else apart.mean()
            total = total + self.reconstruction * self.consistency * values["consistency"]
            if self.contrastive:
                values["contrastive"] = self.judged(model, spectrum, told, count)
                total = total + self.contrastive * values["contrastive"]
        return {"loss": total, **values}

    def distances(
        self, model: SeparationModel, spectrum: Spectrum, masks: Tensor, recordings: Tensor, weighed_by: Tensor | None
    ) -> Tensor:
        """Distances (N,) of masks (B, N, F', T') and recordings (B, N, L), the lower the better.

        Args:
            model: whose front end the masks are of.
            spectrum: of the mixtures.
            masks: of the estimates.
            recordings: (B, N, L).
            weighed_by: magnitudes (B, 1, F', T') that weigh the spectral loss; None is those of each recording.
        """
        front: Any = model.front_end
        if self.kind == "signal":
            waveforms = self.waveforms(model, spectrum, masks, recordings.shape[-1])
            return -signal_ratio(waveforms, recordings, most=self.most).mean(dim=0)
        with torch.no_grad():
            magnitudes = front.stft(recordings).abs()
            targets = front.warp(magnitudes if spectrum.gain is None else magnitudes * spectrum.gain)
        estimates = masks.float() * spectrum.warped
        each = range(targets.shape[1])
        weights = [targets[:, n : n + 1] if weighed_by is None else weighed_by for n in each]
        return torch.stack([spectral_loss(estimates[:, n : n + 1], targets[:, n : n + 1], weights[n]) for n in each])

    def judged(self, model: SeparationModel, spectrum: Spectrum, told: Told, recordings: int) -> Tensor:
        """The sum over recordings of the contrastive loss among their phrases, of all mixtures of the batch."""
        assert told.phrases is not None and told.embedding.vector is not None
        waveforms = self.waveforms(model, spectrum, told.phrases.values, None)
        heard = self._heard(model, rearrange(waveforms, "b s l -> (b s) l"))
        texts = F.normalize(told.embedding.vector.detach().float(), dim=-1)
        heard = rearrange(heard, "(b n k) d -> n (k b) d", b=len(waveforms), n=recordings)
        texts = rearrange(texts, "b (n k) d -> n (k b) d", n=recordings)
        each = [contrastive_loss(h, t, scale=self.scale, soft=self.soft) for h, t in zip(heard, texts, strict=True)]
        return torch.stack(each).sum()

    def waveforms(self, model: SeparationModel, spectrum: Spectrum, masks: Tensor, length: int | None) -> Tensor:
        """(B, N, F', T') masks -> waveforms (B, N, L), not clipped."""
        front: Any = model.front_end
        complex_spectrum = front.linear_magnitude(Estimate(masks.float()), spectrum) * spectrum.phase
        waveforms: Tensor = front.istft(complex_spectrum, length)
        return waveforms

    def optimisers(
        self, model: SeparationModel, *, learning_rate: float | None = None
    ) -> dict[str, list[torch.optim.Optimizer]]:
        """Adam for all that is trainable.

        Raises:
            CompositionError: the model is generative, or has no judge and no ear of its own.
        """
        if model.driver is not None:
            raise CompositionError(
                f"The objective bimodal_sep.bimodal needs estimates of one pass and {model.name} is generative; take the "
                "objective generative."
            )
        if self.alignment or (self.contrastive and self.judge is None):
            self._ear(model)
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        rate = learning_rate or self.learning_rate
        if not parameters:
            return {"model": []}
        return {"model": [torch.optim.Adam(parameters, lr=rate, weight_decay=self.weight_decay)]}

    def _estimate(self, model: SeparationModel, spectrum: Spectrum, embedding: Embedding) -> Estimate:
        """Estimates (B, N, F', T') for an embedding, in one run of the network or in one for each of N."""
        if self.together:
            return model.estimate(spectrum, embedding)
        each = [model.estimate(spectrum, _one(embedding, n)) for n in range(embedding.sources)]
        return Estimate(torch.cat([estimate.values for estimate in each], dim=1))

    def _heard(self, model: SeparationModel, waveforms: Tensor) -> Tensor:
        """Vectors (M, D) of length 1 of sounds (M, L), by a judge whose weights do not move."""
        if self.judge is not None:
            heard: Tensor = self.judge(waveforms)
            return heard
        ear = self._ear(model).ear
        training = ear.training
        still = {name: tensor.detach() for name, tensor in (*ear.named_parameters(), *ear.named_buffers())}
        ear.eval()
        try:
            return functional_call(ear, still, (waveforms,))
        finally:
            ear.train(training)

    def _ear(self, model: SeparationModel) -> Any:
        if not hasattr(model.encoder, "hear"):
            raise CompositionError(
                f"The objective bimodal_sep.bimodal needs a judge of sounds and the encoder of {model.name} has no ear; "
                "set judge of the objective, or its contrastive and alignment to 0."
            )
        return model.encoder


def _joined(first: Embedding, second: Embedding) -> Embedding:
    """Two embeddings of the same mixtures in a row; tokens are padded to the longer ones."""
    views: dict[str, Tensor] = {}
    for name in ("vector", "tokens", "tokens_bias"):
        pair = [getattr(first, name), getattr(second, name)]
        if pair[0] is None or pair[1] is None:
            continue
        if name != "vector":
            longest = max(view.shape[2] for view in pair)
            fill = -torch.inf if name == "tokens_bias" else 0.0
            pair = [_padded(view, longest, fill) for view in pair]
        views[name] = torch.cat(pair, dim=1)
    return Embedding(**views)


def _padded(view: Tensor, length: int, fill: float) -> Tensor:
    """(B, N, K, ...) -> (B, N, length, ...)."""
    missing = length - view.shape[2]
    return (
        view
        if not missing
        else torch.cat((view, view.new_full((*view.shape[:2], missing, *view.shape[3:]), fill)), dim=2)
    )


def _one(embedding: Embedding, number: int) -> Embedding:
    """The embedding of one source of every mixture."""
    names = ("vector", "tokens", "tokens_bias", "map", "index")
    views = {name: view[:, number : number + 1] for name in names if (view := getattr(embedding, name)) is not None}
    return Embedding(**views)
