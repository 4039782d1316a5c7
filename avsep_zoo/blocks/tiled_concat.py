"""The plainest conditioner: a vector per source, the same at every point of the bottleneck."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from avsep_zoo.contracts import Bound, Conditioner, ConditionerPlan, Embedding, Site, expand_sources

__all__ = ["TiledConcat"]


class TiledConcat(Conditioner):
    """Concatenate the vector of a source to the channels of every point, in front of them.

    It has no parameter: (B or B N, C, H, W) features and (B, N, D) vectors give (B N, D + C, H, W).

    Source: the visual conditioning of Gao and Grauman, Co-Separating Sounds of Visual Objects, ICCV 2019, section 3.2.
    """

    wants = frozenset({"vector"})
    acts_at = frozenset({"bottleneck"})

    def __init__(self, *, views: Mapping[str, int], sites: Mapping[str, Site]) -> None:
        super().__init__()
        self._widths = dict(self.plan(views=views, sites=sites).widths)

    @classmethod
    def plan(cls, *, views: Mapping[str, int], sites: Mapping[str, Site], **_: Any) -> ConditionerPlan:
        """The bottleneck leaves with the channels of the vector on top of its own."""
        widths = {name: views["vector"] + s.channels for name, s in sites.items() if s.kind == "bottleneck"}
        return ConditionerPlan(cls.wants, cls.acts_at, widths)

    def widths(self) -> Mapping[str, int]:
        return self._widths

    def bind(self, embedding: Embedding) -> Bound:
        return _BoundVector(embedding, frozenset(self._widths))


class _BoundVector(Bound):
    def __init__(self, embedding: Embedding, sites: frozenset[str]) -> None:
        if embedding.vector is None:
            raise ValueError("The tiled concatenation needs an embedding with a vector.")
        self.sources, self._sites, self._vector = embedding.sources, sites, embedding.vector

    def __call__(self, site: str, features: Tensor) -> Tensor:
        if site not in self._sites:
            return features
        vector = rearrange(self._vector, "b n d -> (b n) d 1 1").to(features.dtype)
        features = expand_sources(features, len(self._vector), self.sources)
        return torch.cat((vector.expand(-1, -1, *features.shape[2:]), features), dim=1)
