"""AVSGS' objective: masks of recordings of several sounds, learned from the recordings (co-separation)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional as F

from avsep_avsgs.classifier import SpectrogramClassifier
from avsep_avsgs.conditioner import SceneGraph, SourceUnroll, orthogonality_loss
from avsep_avsgs.scene_encoder import MISSING, UNNAMED
from avsep_zoo.blocks.mask_loss import MaskLoss, loudness_weight, ratio_mask
from avsep_zoo.blocks.mixture import MixtureRule, mix_sources
from avsep_zoo.contracts import Bound, Embedding, Objective, Spectrum
from avsep_zoo.errors import CompositionError

if TYPE_CHECKING:
    from avsep_zoo.model import SeparationModel

__all__ = ["CoSeparationObjective", "class_losses", "co_separation_loss", "swapped_labels"]

_FLOOR = 1e-10


class CoSeparationObjective(Objective):
    """The masks of the sounds of each recording have to add up to its own mask in a mixture of recordings.

    Which sound is whose follows from their classes: a classifier, which is trained together with the model and is no
    part of it, has to recognise the object in what is separated for it. The embeddings of the sounds of a recording are
    driven apart by their cosines.

    Source: Chatterjee et al., Visual Scene Graphs for Audio Source Separation, ICCV 2021, section 3.4; co-separation:
    Gao and Grauman, ICCV 2019.

    Args:
        whole: learn from whole recordings, of any number of sounds; otherwise from those of one sound alone.
        mixture: ``mean`` divides the sum of the N recordings by N (published), ``sum`` does not.
        loss: ``l1``, ``l2`` or ``bce`` between the sum of masks, which may exceed 1, and the ratio of magnitudes.
        target_limit: largest ratio; that of recordings that are not divided by N, as published.
        classes: number of classes, without the background; 0 for losses that do not go by classes.
        class_weight: share of the classifier's loss; 0 builds no classifier.
        classifier_width, classifier_pooling: of the :class:`~avsep_avsgs.classifier.SpectrogramClassifier`.
        orthogonality: share of :func:`~avsep_avsgs.conditioner.orthogonality_loss`.
        recognition: share of losses that recognise the classes in the nodes and in the embeddings of sounds themselves
            (not part of the paper).
        recognised: width of a node and of a sound's embedding, for ``recognition``.
        learning_rate: of Adam.
        graph_learning_rate: of the graph network; None is ``learning_rate``.
        weight_decay: L2 penalty of Adam.
    """

    def __init__(
        self,
        *,
        whole: bool = True,
        mixture: MixtureRule = "mean",
        loss: MaskLoss = "l1",
        target_limit: float = 5.0,
        classes: int = 0,
        class_weight: float = 0.05,
        classifier_width: int = 64,
        classifier_pooling: Literal["max", "average"] = "max",
        orthogonality: float = 1.0,
        recognition: float = 0.0,
        recognised: Sequence[int] = (512, 512),
        learning_rate: float = 1e-4,
        graph_learning_rate: float | None = None,
        weight_decay: float = 1e-4,
    ) -> None:
        super().__init__()
        self.whole_recordings = whole
        if mixture not in ("mean", "sum") or loss not in ("l1", "l2", "bce"):
            raise ValueError(f"The mixture is {mixture!r} and the loss {loss!r}; give mean or sum, and l1, l2 or bce.")
        if classes < 1 and (class_weight or recognition):
            raise ValueError(
                "The losses of classes need their number; set classes, or class_weight and recognition to 0."
            )
        if len(recognised) != 2:
            raise ValueError(f"recognised is {list(recognised)}; give the widths of a node and of a sound.")
        if loss == "bce" and target_limit > 1:
            raise ValueError(f"The loss bce needs targets up to 1 and target_limit is {target_limit}; set it to 1.")
        self.classes = classes
        self.mixture, self.kind, self.target_limit = mixture, loss, target_limit
        self.class_weight, self.orthogonality, self.recognition = class_weight, orthogonality, recognition
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.graph_learning_rate = graph_learning_rate
        self.classifier: SpectrogramClassifier | None = None
        if class_weight:
            self.classifier = SpectrogramClassifier(
                classes=classes + 1, width=classifier_width, pooling=classifier_pooling
            )
        self.recognisers: nn.ModuleList | None = None  # of nodes, of sounds
        if recognition:
            self.recognisers = nn.ModuleList(nn.Linear(width, classes + 1) for width in recognised)

    def mix(self, sources: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, L) sources -> the mixture (B, L) and the sources as they are in it."""
        return mix_sources(sources, self.mixture)

    def loss(self, model: SeparationModel, batch: Mapping[str, Any], turn: str = "model") -> dict[str, Tensor]:
        mixture, _ = self.mix_batch(batch)
        front: Any = model.front_end
        spectrum = front.analyse(mixture)
        with torch.no_grad():
            magnitudes = front.stft(batch["sources"]).abs()
        embedding = model.encode(batch["cues"])
        sounds = batch["cues"].get("objects")
        bound: Bound
        if isinstance(model.conditioner, SourceUnroll) and sounds is not None:
            bound = model.conditioner.bind(embedding, unroll=sounds.shape[-1])
        else:
            bound = model.conditioner.bind(embedding)
        masks = model.separator(spectrum, bound).values.float()
        unrolled = getattr(bound, "unrolled", None)
        if sounds is None:
            sounds = torch.full((len(masks), masks.shape[1], 1), UNNAMED, device=masks.device)
        elif unrolled is None:  # one mask per recording, and a class where it has one sound
            alone = (sounds[..., 1:] == MISSING).all(dim=-1, keepdim=True)
            sounds = torch.where(alone, sounds[..., :1], UNNAMED)
        values = self.losses(
            front, spectrum, magnitudes, masks, sounds.to(masks.device), None if unrolled is None else unrolled.float()
        )
        named = batch["cues"].get("node_classes")
        if self.recognisers is not None and named is not None and embedding.tokens is not None:
            values["node_recognition"] = self._node_loss(embedding, named.to(masks.device))
            values["loss"] = values["loss"] + self.recognition * values["node_recognition"]
        return values

    def _node_loss(self, embedding: Embedding, named: Tensor) -> Tensor:
        """Cross-entropy of the classes that are recognised in the nodes (B, N, K) whose class is known."""
        assert self.recognisers is not None and embedding.tokens is not None
        if embedding.tokens_bias is not None:
            named = torch.where(torch.isinf(embedding.tokens_bias), MISSING, named)
        losses = class_losses(self.recognisers[0](embedding.tokens).float().flatten(0, 1), named.flatten(0, 1))
        return losses.sum() / (named >= 0).sum().clamp_min(1)

    def losses(
        self,
        front_end: Any,
        spectrum: Spectrum,
        magnitudes: Tensor,
        masks: Tensor,
        sounds: Tensor,
        unrolled: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """All losses of estimated masks.

        Args:
            front_end: of the model.
            spectrum: of the mixtures.
            magnitudes: linear ones of the recordings (B, N, F, T), not divided by N.
            masks: of the S sounds of each recording (B, N S, F', T).
            sounds: int64 (B, N, S): class of each sound from 1, 0 for the background, -1 where there is none, -2 where
                its class is unknown.
            unrolled: embeddings of the sounds (B, N, S, D).
        """
        target = self.targets(front_end, spectrum, magnitudes)
        weight = repeat(loudness_weight(spectrum.warped), "b 1 f t -> (b n) f t", n=target.shape[1])
        videos = rearrange(sounds, "b n s -> (b n) s")
        separate = rearrange(masks, "b (n s) f t -> (b n) s f t", n=target.shape[1])
        there = (videos != MISSING).to(masks.dtype)
        values = {"co_separation": co_separation_loss(separate, target.flatten(0, 1), weight, there, self.kind)}
        total = values["co_separation"]
        if self.classifier is not None:
            mixture = repeat(spectrum.warped, "b 1 f t -> (b n) 1 f t", n=target.shape[1])
            logits = self.classifier(rearrange(torch.log(separate * mixture + _FLOOR), "v s f t -> (v s) 1 f t"))
            values["class"] = self._class_loss(logits, videos)
            total = total + self.class_weight * values["class"]
        if self.recognisers is not None and unrolled is not None:
            logits = self.recognisers[1](rearrange(unrolled, "b n s d -> (b n s) d"))
            values["recognition"] = self._class_loss(logits, videos)
            total = total + self.recognition * values["recognition"]
        if unrolled is not None and self.orthogonality and unrolled.shape[2] > 1:
            values["orthogonality"] = orthogonality_loss(rearrange(unrolled, "b n s d -> (b n) s d"))
            total = total + self.orthogonality * values["orthogonality"]
        return {"loss": total, **values}

    def targets(self, front_end: Any, spectrum: Spectrum, magnitudes: Tensor) -> Tensor:
        """Ideal masks (B, N, F', T) of linear magnitudes (B, N, F, T)."""
        with torch.no_grad():
            if spectrum.gain is not None:
                magnitudes = magnitudes * spectrum.gain
            return ratio_mask(front_end.warp(magnitudes), spectrum.warped).clamp_max(self.target_limit)

    def _class_loss(self, logits: Tensor, videos: Tensor) -> Tensor:
        """Mean over all sounds, also those that are missing, as published."""
        logits = rearrange(logits.float(), "(v s) c -> v s c", s=videos.shape[1])
        labels = swapped_labels(logits, videos) if self.training else videos
        return class_losses(logits, labels).mean()

    def optimisers(
        self, model: SeparationModel, *, learning_rate: float | None = None
    ) -> dict[str, list[torch.optim.Optimizer]]:
        """Adam for the model and the classifier, with a rate of its own for the graph network.

        Raises:
            CompositionError: the model has another number of classes, or nodes or sounds of another width.
        """
        self._check_model(model)
        rate = learning_rate or self.learning_rate
        conditioner = model.conditioner
        graph = list(conditioner.graph.parameters()) if isinstance(conditioner, SceneGraph) else []
        rest = [p for p in (*model.parameters(), *self.parameters()) if all(p is not q for q in graph)]
        graph_rate = rate if self.graph_learning_rate is None or learning_rate else self.graph_learning_rate
        groups = [
            {"params": [p for p in parameters if p.requires_grad], "lr": its_rate}
            for parameters, its_rate in ((rest, rate), (graph, graph_rate))
        ]
        groups = [group for group in groups if group["params"]]
        optimiser = [torch.optim.Adam(groups, lr=rate, weight_decay=self.weight_decay)] if groups else []
        return {"model": list(optimiser)}

    def _check_model(self, model: SeparationModel) -> None:
        by_class = self.classifier is not None or self.recognisers is not None
        if by_class and len(model.classes) not in (0, self.classes):
            raise CompositionError(
                f"The objective has {self.classes} classes and {model.name} has {len(model.classes)}; set classes of "
                f"the objective to {len(model.classes)}."
            )
        conditioner = model.conditioner
        if self.recognisers is None or not isinstance(conditioner, SourceUnroll):
            return
        wanted = [recogniser.in_features for recogniser in self.recognisers]
        given = [model.encoder.gives.get("tokens", wanted[0]), conditioner.rnn.hidden_size]
        if given != wanted:
            raise CompositionError(
                f"The objective recognises nodes and sounds of {wanted} numbers and {model.name} has {given}; set "
                f"recognised of the objective to {given}."
            )


def co_separation_loss(masks: Tensor, target: Tensor, weight: Tensor, there: Tensor, kind: MaskLoss = "l1") -> Tensor:
    """Weighted mean distance between the sum of the masks of each recording and its own mask.

    Args:
        masks: (V, S, F, T).
        target: (V, F, T).
        weight: (V, F, T), of each point.
        there: (V, S): 1 for the sounds that count.
        kind: ``l1``, ``l2`` or ``bce``, which takes sums above 1 for 1 and targets in [0, 1].
    """
    total = (masks * there[:, :, None, None]).sum(dim=1)
    if kind == "bce":
        return F.binary_cross_entropy(total.clamp(0.0, 1.0), target, weight=weight)
    distance = (total - target) ** 2 if kind == "l2" else (total - target).abs()
    return (weight * distance).mean()


def class_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy (V, S) of logits (V, S, C) with labels (V, S); 0 where a label is negative."""
    losses = F.cross_entropy(rearrange(logits, "v s c -> v c s"), labels.clamp_min(0), reduction="none")
    return losses * (labels >= 0)


@torch.no_grad()
def swapped_labels(logits: Tensor, labels: Tensor) -> Tensor:
    """Labels (V, S) with those of the first two objects exchanged where that suits the logits (V, S, C) better.

    Only for recordings without a missing or unnamed sound, as published: in which order sounds are unrolled is free.
    The background always comes last.
    """
    if labels.shape[1] < 2:
        return labels
    swapped = labels.clone()
    swapped[:, 0], swapped[:, 1] = labels[:, 1], labels[:, 0]
    better = class_losses(logits, swapped).sum(dim=1) < class_losses(logits, labels).sum(dim=1)
    better &= (labels >= 0).all(dim=1) & (labels[:, :2] > 0).all(dim=1)
    return torch.where(better[:, None], swapped, labels)
