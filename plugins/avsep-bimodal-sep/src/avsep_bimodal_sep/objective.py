"""BiModalSep's objective: recordings of several named sounds, which texts and a judge of sounds take apart.

Source: Mahmud et al., Weakly-supervised Audio Separation via Bi-modal Semantic Similarity, ICLR 2024, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from einops import rearrange, reduce
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from avsep_bimodal_sep.losses import alignment_loss, contrastive_loss, signal_ratio, spectral_loss
from avsep_zoo.blocks.mixture import MixtureRule, mix_sources
from avsep_zoo.contracts import Embedding, Estimate, Objective, Spectrum
from avsep_zoo.errors import CompositionError

if TYPE_CHECKING:
    from avsep_bimodal_sep.clap_audio import ClapSound
    from avsep_zoo.model import SeparationModel

__all__ = ["BiModalObjective", "Told"]

_LEARNED_SCALE = 1 / 0.07


@dataclass
class Told:
    """What the texts of a batch are, and what the model makes of them.

    Args:
        captions: the texts of the recordings, (B, N).
        recordings: masks of the recordings (B, N, F', T').
        phrases: the texts of their sounds, (B, N K), or None where they are not needed.
        sounds: masks of their sounds (B, N K, F', T'), or None.
    """

    captions: Embedding
    recordings: Tensor
    phrases: Embedding | None = None
    sounds: Tensor | None = None


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
        loss: ``l1``, distance of magnitudes (published), ``l2``, or ``signal``, the negative ratio in dB of waveforms
            to the error in them.
        weighting: of the points of ``l1`` and ``l2``: ``log`` of 1 + magnitude (published) or ``none``.
        most: ratio in dB that is good enough for ``signal``.
        reconstruction: weight of mix and separate and of consistency.
        consistency: further weight of consistency; with 0 and ``contrastive`` 0 phrases are not separated at all.
        contrastive: weight of the judge's opinion.
        scale: factor of the cosines that the judge compares; None is the judge's own: CLAP's comes with its weights,
            and an ear has 1 / 0.07.
        soft: phrases that mean the same are no wrong answers
            (:func:`~avsep_bimodal_sep.losses.contrastive_loss`).
        judge: settings of CLAP's :class:`~avsep_bimodal_sep.clap_audio.ClapSound`, whose space is that of the
            encoder's vectors; None is the encoder's own ear, which this loss does not train.
        alignment: weight of a loss that teaches the encoder's own ear and texts to agree, from those recordings that
            are of one sound of a known class (not part of the paper, whose judge is trained already).
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
        loss: Literal["l1", "l2", "signal"] = "l1",
        weighting: Literal["log", "none"] = "log",
        most: float = 30.0,
        reconstruction: float = 5.0,
        consistency: float = 1.0,
        contrastive: float = 0.5,
        scale: float | None = None,
        soft: bool = False,
        judge: Mapping[str, Any] | None = None,
        alignment: float = 0.0,
        together: bool = False,
        learning_rate: float = 1e-4,
        weight_decay: float = 1e-4,
    ) -> None:
        super().__init__()
        _check_choice("mixture", mixture, ("mean", "sum"))
        _check_choice("loss", loss, ("l1", "l2", "signal"))
        _check_choice("weighting", weighting, ("log", "none"))
        at_least_0 = {"reconstruction": reconstruction, "consistency": consistency, "contrastive": contrastive}
        at_least_0 |= {"alignment": alignment, "weight_decay": weight_decay}
        above_0 = {"most": most, "learning_rate": learning_rate, "scale": 1.0 if scale is None else scale}
        for name, value in {**at_least_0, **above_0}.items():
            if not 0 <= value < math.inf or (value == 0 and name in above_0):
                wanted = "above 0" if name in above_0 else "of at least 0"
                raise ValueError(f"The setting {name} is {value}; give a number {wanted}.")
        self.mixture, self.in_place, self.kind, self.weighting, self.most = mixture, in_place, loss, weighting, most
        self.weights = {
            "separation": reconstruction,
            "consistency": reconstruction * consistency,
            "contrastive": contrastive,
            "alignment": alignment,
        }
        self.scale, self.soft, self.together = scale, soft, together
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.judge: ClapSound | None = None
        if judge is not None and contrastive:
            from avsep_bimodal_sep.clap_audio import ClapSound

            self.judge = ClapSound(**judge)
            self.judge.requires_grad_(False)

    def load_pretrained(self) -> None:
        """Load the published weights of CLAP's sound tower, where it is the judge.

        Raises:
            WeightsError: none are named, they cannot be had, or they are those of another tower.
        """
        if self.judge is not None:
            self.judge.load_pretrained()

    def mix(self, sources: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, L) recordings -> the mixture (B, L) and the recordings as they are in it."""
        return mix_sources(sources, self.mixture)

    def loss(self, model: SeparationModel, batch: Mapping[str, Any], turn: str = "model") -> dict[str, Tensor]:
        mixture, recordings = self.mix_batch(batch)
        if self.in_place:
            recordings = recordings / (batch["cues"].shape[1] // recordings.shape[1])
        spectrum = model.front_end.analyse(mixture)
        told = self.separate(model, spectrum, batch)
        values = self.reconstructions(model, spectrum, told, recordings, batch.get("shares"))
        if told.sounds is not None and self.weights["contrastive"]:
            values["contrastive"] = self.doubts(*self.heard(model, spectrum, told, recordings)).sum()
        label = batch["cues"].get("label")
        if self.weights["alignment"] and label is not None:
            values["alignment"] = self.disagreement(model, told.captions, recordings, label.to(recordings.device))
        return {"loss": self.total(values), **values}

    def separate(self, model: SeparationModel, spectrum: Spectrum, batch: Mapping[str, Any]) -> Told:
        """Separate what the texts of a batch ask for: recordings, and where they have captions, their sounds."""
        captions = model.encode(batch["captions"] if "captions" in batch else batch["cues"])
        if "captions" not in batch or not (self.weights["consistency"] or self.weights["contrastive"]):
            return Told(captions, self._masks(model, spectrum, captions))
        phrases = model.encode(batch["cues"])
        if self.together:
            masks = self._masks(model, spectrum, _joined(captions, phrases))
            return Told(captions, masks[:, : captions.sources], phrases, masks[:, captions.sources :])
        masks = self._masks(model, spectrum, captions)
        return Told(captions, masks, phrases, self._masks(model, spectrum, phrases))

    def reconstructions(
        self, model: SeparationModel, spectrum: Spectrum, told: Told, recordings: Tensor, shares: Tensor | None = None
    ) -> dict[str, Tensor]:
        """How far estimates are from their recordings: ``separation``, and ``consistency`` where sounds are separated.

        Args:
            model: whose front end the estimates are of.
            spectrum: of the mixtures.
            told: the estimates.
            recordings: (B, N, L) as they are in the mixture.
            shares: (B, N K) weights of the phrases of a recording; None is 1 each.
        """
        front: Any = model.front_end
        estimates = {"separation": told.recordings}
        if told.sounds is not None:
            estimates["consistency"] = summed(told.sounds, shares, recordings.shape[1])
        if self.kind == "signal":
            waves = {n: self.waveforms(model, spectrum, m, recordings.shape[-1]) for n, m in estimates.items()}
            return {name: -signal_ratio(wave, recordings, most=self.most).mean() for name, wave in waves.items()}
        with torch.no_grad():
            magnitudes = front.stft(recordings).abs()
            targets = front.warp(magnitudes if spectrum.gain is None else magnitudes * spectrum.gain)
        weighed_by = {"separation": spectrum.warped, "consistency": targets}
        made = {name: masks.float() * spectrum.warped for name, masks in estimates.items()}
        return {name: self.distances(made[name], targets, weighed_by[name]).sum() for name in made}

    def total(self, values: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum of losses by name."""
        return torch.stack([self.weights[name] * value for name, value in values.items()]).sum()

    def distances(self, estimates: Tensor, targets: Tensor, weighed_by: Tensor) -> Tensor:
        """Distances (N,) of magnitudes (B, N, F', T'), weighed by magnitudes (B, 1 or N, F', T') if at all."""
        weights = weighed_by if self.weighting == "log" else None
        return spectral_loss(estimates, targets, weights, distance="l2" if self.kind == "l2" else "l1")

    def doubts(self, heard: Tensor, texts: Tensor) -> Tensor:
        """Contrastive losses (N,) of recordings, of vectors (N, M, D) of their sounds and of phrases."""
        own = _LEARNED_SCALE if self.judge is None else self.judge.scale
        scale = own if self.scale is None else self.scale
        each = [contrastive_loss(h, t, scale=scale, soft=self.soft) for h, t in zip(heard, texts, strict=True)]
        return torch.stack(each)

    def heard(
        self, model: SeparationModel, spectrum: Spectrum, told: Told, recordings: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What the judge hears, and the phrases that ask for it: vectors (N, K B, D) of length 1 each.

        Rows are those of phrase 1 in all mixtures, then of phrase 2, as published. Texts get no gradient.
        """
        assert told.sounds is not None and told.phrases is not None
        waves = self.waveforms(model, spectrum, told.sounds, recordings.shape[-1])
        vectors = self._judged(model, rearrange(waves, "b s l -> (b s) l"))
        texts = F.normalize(_vector(told.phrases).detach().float(), dim=-1)
        batch, count = recordings.shape[:2]
        vectors = rearrange(vectors, "(b n k) d -> n (k b) d", b=batch, n=count)
        return vectors, rearrange(texts, "b (n k) d -> n (k b) d", n=count)

    def disagreement(self, model: SeparationModel, captions: Embedding, recordings: Tensor, label: Tensor) -> Tensor:
        """The alignment loss of those recordings (B, N, L) of which all cues (B, N K) name one known class."""
        each = rearrange(label, "b (n k) -> (b n) k", n=recordings.shape[1])
        alone = (each == each[:, :1]).all(dim=1) & (each[:, 0] >= 0)
        if int(alone.sum()) < 2:
            return torch.zeros((), device=recordings.device)
        heard = self._ear(model).hear(recordings.flatten(0, 1)[alone])
        texts = F.normalize(_vector(captions).flatten(0, 1)[alone].float(), dim=-1)
        return alignment_loss(heard, texts, each[alone, 0], scale=_LEARNED_SCALE)

    def waveforms(self, model: SeparationModel, spectrum: Spectrum, masks: Tensor, length: int) -> Tensor:
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
            CompositionError: the model is generative, or there is no judge for its sounds, or one of another rate or
                space.
        """
        self._check(model)
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        rate = learning_rate or self.learning_rate
        if not parameters:
            return {"model": []}
        return {"model": [torch.optim.Adam(parameters, lr=rate, weight_decay=self.weight_decay)]}

    def _masks(self, model: SeparationModel, spectrum: Spectrum, embedding: Embedding) -> Tensor:
        """Masks (B, N, F', T') for an embedding, from one run of the network or from one for each of N."""
        front: Any = model.front_end
        several = [embedding] if self.together else [_one(embedding, n) for n in range(embedding.sources)]
        masks = [front.warped_mask(model.estimate(spectrum, one), spectrum) for one in several]
        return torch.cat(masks, dim=1)

    def _judged(self, model: SeparationModel, waveforms: Tensor) -> Tensor:
        """Vectors (M, D) of length 1 of sounds (M, L), by a judge whose weights do not move."""
        if self.judge is not None:
            return self.judge(waveforms)
        ear = self._ear(model).ear
        training = ear.training
        still = {name: tensor.detach() for name, tensor in (*ear.named_parameters(), *ear.named_buffers())}
        ear.eval()
        try:
            return functional_call(ear, still, (waveforms,))
        finally:
            ear.train(training)

    def _check(self, model: SeparationModel) -> None:
        """Refuse models whose estimates cannot be compared or heard."""
        if model.driver is not None:
            raise CompositionError(
                f"The objective bimodal_sep.bimodal needs estimates of one pass and {model.name} is generative; take "
                "the objective generative."
            )
        if self.judge is None:
            if self.weights["contrastive"] or self.weights["alignment"]:
                self._check_rate(model, self._ear(model).ear.rate, "ear of the encoder", "encoder.rate")
            return
        self._check_rate(model, self.judge.rate, "judge", "rate in objective.judge")
        tower: Any = self.judge.clap
        width, own = model.encoder.gives.get("vector"), tower.config.projection_dim
        if width != own:
            gives = "no vectors" if width is None else f"vectors of {width} numbers"
            raise CompositionError(
                f"The judge of the objective bimodal_sep.bimodal gives vectors of {own} numbers and the encoder of "
                f"{model.name} {gives}; take the encoder bimodal_sep.clap_text, or set objective.contrastive to 0."
            )

    def _check_rate(self, model: SeparationModel, rate: int, who: str, setting: str) -> None:
        if rate != model.rate:
            raise CompositionError(
                f"The {who} hears at {rate} Hz and {model.name} works at {model.rate} Hz; set {setting} to "
                f"{model.rate}."
            )

    def _ear(self, model: SeparationModel) -> Any:
        if not hasattr(model.encoder, "hear"):
            raise CompositionError(
                f"The objective bimodal_sep.bimodal needs a judge of sounds and the encoder of {model.name} has no "
                "ear; set objective.judge, or objective.contrastive and objective.alignment to 0."
            )
        return model.encoder


def summed(masks: Tensor, shares: Tensor | None, recordings: int) -> Tensor:
    """Masks (B, N K, F', T') of sounds, added up to those of their recordings (B, N, F', T') by weights (B, N K)."""
    weighted = masks if shares is None else masks * shares.to(masks)[..., None, None]
    return reduce(weighted, "b (n k) f t -> b n f t", "sum", n=recordings)


def _vector(embedding: Embedding) -> Tensor:
    assert embedding.vector is not None
    return embedding.vector


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"The {name} is {value!r}; give {' or '.join(known)}.")


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
    more = view.new_full((*view.shape[:2], missing, *view.shape[3:]), fill)
    return torch.cat((view, more), dim=2) if missing else view


def _one(embedding: Embedding, number: int) -> Embedding:
    """The embedding of one source of every mixture."""
    names = ("vector", "tokens", "tokens_bias", "map", "index")
    views = {name: view[:, number : number + 1] for name in names if (view := getattr(embedding, name)) is not None}
    return Embedding(**views)
