"""The synthesiser: what is seen weighs the components of what is heard.

Source: Zhao et al., The Sound of Pixels, ECCV 2018, section 3.1, "Audio synthesizer network".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from avsep_zoo.blocks.mask_product import mask_product
from avsep_zoo.contracts import Bound, Conditioner, ConditionerPlan, Embedding, Site

__all__ = ["Synthesiser"]


class Synthesiser(Conditioner):
    """Mask logits ``sum_k scale_k v_k c_k + bias`` of a source with the vector v, at the head with its K components c.

    The vector is that of the frames, in (0, 1), after temporal and spatial pooling, as in training (section 3.2). A
    vector that has not K channels, which no published model has, goes through a linear layer and a sigmoid first.
    """

    wants = frozenset({"vector"})
    acts_at = frozenset({"head"})

    def __init__(self, *, views: Mapping[str, int], sites: Mapping[str, Site]) -> None:
        super().__init__()
        self.head = next(name for name, site in sites.items() if site.kind == "head")
        seen, components = views["vector"], sites[self.head].channels
        self.project = None if seen == components else nn.Sequential(nn.Linear(seen, components), nn.Sigmoid())
        self.scale = nn.Parameter(torch.ones(components))
        self.bias = nn.Parameter(torch.zeros(1))

    @classmethod
    def plan(cls, *, views: Mapping[str, int], sites: Mapping[str, Site], **_: Any) -> ConditionerPlan:
        """The head leaves with one channel: the mask logits."""
        return ConditionerPlan(cls.wants, cls.acts_at, {n: 1 for n, site in sites.items() if site.kind == "head"})

    def widths(self) -> Mapping[str, int]:
        return {self.head: 1}

    def bind(self, embedding: Embedding) -> Bound:
        return _BoundSynthesiser(self, embedding)


class _BoundSynthesiser(Bound):
    def __init__(self, synthesiser: Synthesiser, embedding: Embedding) -> None:
        if embedding.vector is None:
            raise ValueError("The synthesiser needs an embedding with a vector.")
        vector = embedding.vector if synthesiser.project is None else synthesiser.project(embedding.vector)
        self.sources, self._head = embedding.sources, synthesiser.head
        self._weights, self._bias = vector * synthesiser.scale, synthesiser.bias  # (B, N, K) and (1,)

    def __call__(self, site: str, features: Tensor) -> Tensor:
        if site != self._head:
            return features
        return mask_product(features, self._weights) + self._bias.to(features)
