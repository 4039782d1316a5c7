"""CLIP's view of the frames of a source, and the temporal transformer over it: the published DAVIS encoder."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from avsep_davis.encoder import FramesEncoder, Statistics
from avsep_davis.temporal import TemporalTransformer
from avsep_zoo.contracts import EncoderPlan
from avsep_zoo.errors import CompositionError, WeightsError

__all__ = ["TOWER", "ClipEncoder"]

TOWER: Mapping[str, int] = MappingProxyType(
    {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 224,
        "patch_size": 32,
        "projection_dim": 512,
    }
)
_WEIGHTS = "openai/clip-vit-base-patch32@c237dc49a33fc61debc9276459120b7eac67e7ef"  # the commit with safetensors
_OF_TEXTS = ("text_model.", "text_projection.", "logit_scale", "position_ids")
_AT_ONCE = 256  # pictures that go through the tower together


class ClipEncoder(FramesEncoder):
    """The frozen image tower of CLIP on each frame, then the temporal transformer.

    A frame's features are CLIP's projected image embedding, not normalised. The tower is frozen and always in eval
    mode; a training run starts from its published weights (:meth:`load_pretrained`), and cards hold them.

    Source: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021; Huang et
    al., ACCV 2024, section 3.2.

    Args:
        frames, frame_rate, vary: as in :class:`~avsep_davis.encoder.FramesEncoder`.
        statistics: those of pixels: ``imagenet`` as published for MUSIC, ``clip`` as for AVE.
        tower: sizes of the tower that differ from those of ViT-B/32 (:data:`TOWER`), by transformers' names.
        attention: implementation of the tower's attention.
        clip_weights: where the tower's weights come from: a folder or file in the layout of transformers, or
            ``org/name@commit`` on the Hugging Face Hub.
        heads, feedforward, encoder_layers, decoder_layers, dropout: of the temporal transformer.
    """

    def __init__(
        self,
        *,
        frames: int = 11,
        frame_rate: float = 0.5,
        statistics: Statistics = "imagenet",
        vary: bool = False,
        tower: Mapping[str, int] | None = None,
        attention: Literal["sdpa", "eager"] = "sdpa",
        clip_weights: str | None = _WEIGHTS,
        heads: int = 8,
        feedforward: int = 2048,
        encoder_layers: int = 3,
        decoder_layers: int = 1,
        dropout: float = 0.1,
    ) -> None:
        sizes = _sizes(tower)
        super().__init__(
            frames=frames, frame_rate=frame_rate, image_size=sizes["image_size"], statistics=statistics, vary=vary
        )
        plan = self.plan(tower=tower)
        self.reads, self.optional, self.gives = plan.reads, plan.optional, plan.gives
        self.clip_weights = clip_weights
        self.clip = _tower(sizes, attention)
        self.temporal = TemporalTransformer(
            sizes["projection_dim"],
            heads=heads,
            feedforward=feedforward,
            encoder_layers=encoder_layers,
            decoder_layers=decoder_layers,
            dropout=dropout,
        )

    @classmethod
    def plan(cls, *, tower: Mapping[str, int] | None = None, **_: Any) -> EncoderPlan:
        """Frames, and vectors as wide as CLIP's embeddings."""
        width = _sizes(tower)["projection_dim"]
        return EncoderPlan(frozenset({"frames"}), {"vector": width, "tokens": width})

    def train(self, mode: bool = True) -> ClipEncoder:
        """Set the mode of all but the tower."""
        super().train(mode)
        self.clip.eval()
        return self

    def image_features(self, images: Tensor) -> Tensor:
        return torch.cat([self.clip(pixel_values=part).image_embeds for part in images.split(_AT_ONCE)])

    def load_pretrained(self) -> None:
        """Load the published weights of the tower.

        Raises:
            WeightsError: none are named, they cannot be had, or they are those of another tower.
        """
        from avsep_zoo.weights.pretrained import load_into

        if self.clip_weights is None:
            raise WeightsError(
                "CLIP's frozen image tower has to start from its published weights; name a folder of them, or "
                "org/name@commit, by the encoder's setting clip_weights."
            )
        config = self.clip.config
        settings = {name: getattr(config, name) for name in ("hidden_act", "num_attention_heads", "layer_norm_eps")}
        load_into(self.clip, self.clip_weights, title="CLIP image tower", unused=_OF_TEXTS, settings=settings)


def _sizes(tower: Mapping[str, int] | None) -> dict[str, int]:
    sizes = {**TOWER, **(tower or {})}
    unknown = sorted(set(sizes) - set(TOWER))
    if unknown:
        raise ValueError(f"The tower has no size {unknown[0]!r}; it has {', '.join(TOWER)}.")
    wrong = [name for name, value in sizes.items() if not isinstance(value, int) or value < 1]
    if wrong:
        raise ValueError(f"The tower's {wrong[0]} is {sizes[wrong[0]]!r}; give a whole number of at least 1.")
    return sizes


def _tower(sizes: Mapping[str, int], attention: str) -> nn.Module:
    """The tower with random weights, frozen and in eval mode."""
    try:
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
    except ImportError as error:
        raise CompositionError("davis.clip needs transformers; install it: pip install transformers.") from error
    fixed = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "attention_dropout": 0.0}
    settings: dict[str, Any] = {**sizes, **fixed, "attn_implementation": attention}
    tower: nn.Module = CLIPVisionModelWithProjection(CLIPVisionConfig(**settings))
    return tower.requires_grad_(False).eval()
