"""FiLM: the vector of a source scales and shifts each channel of the features.

Source: Perez et al., FiLM: Visual Reasoning with a General Conditioning Layer, AAAI 2018, equation 2; in a U-Net:
Meseguer-Brocal and Peeters, Conditioned-U-Net, ISMIR 2019, whose complex layer has a pair per channel like this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from einops import rearrange
from torch import Tensor, nn

from avsep_zoo.contracts import Bound, Conditioner, ConditionerPlan, Embedding, Site, expand_sources

__all__ = ["Film"]


class Film(Conditioner):
    """Features become ``(1 + scale) features + shift``, per channel, at the bottleneck and the decoder levels.

    A layer with ReLU reads the vector of the source; a linear layer for each site makes scale and shift of it. What
    comes before the bottleneck runs once per mixture.

    Args:
        views: widths of the embedding's views; ``vector`` is needed.
        sites: sites of the separator.
        hidden: width of the first layer.
    """

    wants = frozenset({"vector"})
    acts_at = frozenset({"bottleneck", "decoder"})

    def __init__(self, *, views: Mapping[str, int], sites: Mapping[str, Site], hidden: int = 128) -> None:
        super().__init__()
        self._widths = dict(self.plan(views=views, sites=sites).widths)
        self.read = nn.Sequential(nn.Linear(views["vector"], hidden), nn.ReLU())
        self.sites = nn.ModuleDict({name: nn.Linear(hidden, 2 * width) for name, width in self._widths.items()})

    @classmethod
    def plan(cls, *, views: Mapping[str, int], sites: Mapping[str, Site], **_: Any) -> ConditionerPlan:
        """All sites keep their channels."""
        widths = {name: site.channels for name, site in sites.items() if site.kind in cls.acts_at}
        return ConditionerPlan(cls.wants, cls.acts_at, widths)

    def widths(self) -> Mapping[str, int]:
        return self._widths

    def bind(self, embedding: Embedding) -> Bound:
        return _BoundFilm(self, embedding)


class _BoundFilm(Bound):
    def __init__(self, film: Film, embedding: Embedding) -> None:
        if embedding.vector is None:
            raise ValueError("FiLM needs an embedding with a vector.")
        self.sources, self._batch, self._sites = embedding.sources, len(embedding.vector), film.sites
        self._read: Tensor = film.read(rearrange(embedding.vector, "b n d -> (b n) d"))

    def __call__(self, site: str, features: Tensor) -> Tensor:
        if site not in self._sites:
            return features
        pair = rearrange(self._sites[site](self._read), "s (p c) -> p s c 1 1", p=2).to(features.dtype)
        return expand_sources(features, self._batch, self.sources) * (1 + pair[0]) + pair[1]
