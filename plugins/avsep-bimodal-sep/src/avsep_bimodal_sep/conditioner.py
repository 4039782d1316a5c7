"""The cue in the deep levels of a U-Net, and a mask out of its features.

Source: Mahmud et al., ICLR 2024, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from avsep_bimodal_sep.layers import Concatenation, ConditionLayer, condition_layers
from avsep_zoo.contracts import Bound, Conditioner, ConditionerPlan, Embedding, Site, expand_sources

__all__ = ["TextAttention"]


class TextAttention(Conditioner):
    """At every bottleneck site the points of the features attend to themselves and to the tokens of a cue.

    Cues without tokens are one token, their vector. At the head, where there is one, the vector weighs the mask
    features: sigmoid(fc(vector)) * scale, summed over the features, plus an offset, are the logits of the mask.

    Args:
        layer: ``sca``, self and cross attention (published), or ``ca``, ``sa``, ``cat``, ``sca_cat``, ``identity``
            (:func:`~avsep_bimodal_sep.layers.condition_layers`).
        blocks: how often each site has them.
        heads: of attention; they divide the channels of the sites.
    """

    wants = frozenset({"vector"})
    acts_at = frozenset({"bottleneck"})

    def __init__(
        self,
        *,
        views: Mapping[str, int],
        sites: Mapping[str, Site],
        layer: ConditionLayer = "sca",
        blocks: int = 1,
        heads: int = 8,
    ) -> None:
        super().__init__()
        if blocks < 1:
            raise ValueError(f"There are {blocks} blocks of layers per site; give at least 1, or the layer identity.")
        self.layer, self.blocks = layer, blocks
        self._widths = dict(self.plan(views=views, sites=sites).widths)
        vector, tokens = views["vector"], views.get("tokens", views["vector"])
        self.layers = nn.ModuleDict()
        for name, site in sites.items():
            if site.kind == "bottleneck":
                made = [
                    condition_layers(layer, site.channels, heads=heads, tokens=tokens, vector=vector)
                    for _ in range(blocks)
                ]
                self.layers[name] = nn.ModuleList(one for block in made for one in block)
        self.heads = nn.ModuleDict(
            {name: _Head(vector, site.channels) for name, site in sites.items() if site.kind == "head"}
        )

    @classmethod
    def plan(cls, *, views: Mapping[str, int], sites: Mapping[str, Site], **_: Any) -> ConditionerPlan:
        """Bottlenecks keep their channels; a head leaves with one, the logits of the mask."""
        widths = {name: s.channels for name, s in sites.items() if s.kind == "bottleneck"}
        heads = {name: 1 for name, s in sites.items() if s.kind == "head"}
        return ConditionerPlan(cls.wants, cls.acts_at | ({"head"} if heads else set()), {**widths, **heads})

    def widths(self) -> Mapping[str, int]:
        return self._widths

    def bind(self, embedding: Embedding) -> Bound:
        return _BoundAttention(self, embedding)


class _BoundAttention(Bound):
    def __init__(self, conditioner: TextAttention, embedding: Embedding) -> None:
        if embedding.vector is None:
            raise ValueError("The attention to texts needs an embedding with a vector.")
        self.conditioner, self.sources, self.batch = conditioner, embedding.sources, len(embedding.vector)
        self.vector = rearrange(embedding.vector, "b n d -> (b n) d")
        self.tokens, self.bias = self.vector[:, None], None
        if embedding.tokens is not None:
            self.tokens = rearrange(embedding.tokens, "b n k d -> (b n) k d")
            if embedding.tokens_bias is not None:
                self.bias = rearrange(embedding.tokens_bias, "b n k -> (b n) k")

    def __call__(self, site: str, features: Tensor) -> Tensor:
        if site in self.conditioner.heads:
            return self.conditioner.heads[site](expand_sources(features, self.batch, self.sources), self.vector)
        layers: dict[str, Any] = dict(self.conditioner.layers.items())
        for layer in layers.get(site, ()):
            features = expand_sources(features, self.batch, self.sources)
            if isinstance(layer, Concatenation):
                features = layer(features, self.vector)
            else:
                points = layer(rearrange(features, "m c h w -> m (h w) c"), self.tokens, self.bias)
                features = rearrange(points, "m (h w) c -> m c h w", h=features.shape[2])
        return features


class _Head(nn.Module):
    """Logits of a mask: the sum of mask features, weighted by what a vector says of each."""

    def __init__(self, vector: int, channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(vector, channels)
        nn.init.normal_(self.fc.weight, std=1e-4)
        self.scale, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(1))

    def forward(self, features: Tensor, vector: Tensor) -> Tensor:
        """(M, C, F, T) features, (M, D) vectors -> (M, 1, F, T)."""
        return self.weigh(features, torch.sigmoid(self.fc(vector)))

    def weigh(self, features: Tensor, weights: Tensor) -> Tensor:
        """(M, C, F, T) features, (M, C) weights -> (M, 1, F, T)."""
        weights = (weights * self.scale).to(features.dtype)
        return torch.einsum("mc,mcft->mft", weights, features)[:, None] + self.bias
