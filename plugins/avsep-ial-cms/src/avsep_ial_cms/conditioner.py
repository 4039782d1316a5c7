"""Cross-modal attention: what is heard of an object tells where it is seen, what is seen of it which sound is its own.

Source: Independency Adversarial Learning for Cross-Modal Sound Separation, AAAI 2024, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional as F

from avsep_zoo.contracts import Bound, Conditioner, ConditionerPlan, Embedding, Site, expand_sources

__all__ = ["CrossModal", "CrossModalAttention"]


class CrossModalAttention(Conditioner):
    """Visual-guided feature separation and spatial and channel attention at the bottleneck, AdaIN in the decoder.

    At the bottleneck the features of the mixture become those of each object, told apart by the largest values of its
    map. Their mean, in the space of the map, is compared with every place of the map; the cosines go through a sigmoid
    of learned slope and offset (adaptive binarisation), and the map is added up with these weights. The vector that
    comes out gates the channels of the features. The bottleneck leaves with the vector in front of the gated features;
    both together, pooled, set scale and offset of every decoder level whose features are normalised per channel.

    Args:
        width: channels of an object's features at the bottleneck.
        hidden: channels between the two layers that separate them.
        spatial: attend to places; otherwise the vector is the largest values of the map, and there is no localisation.
        channel: gate the channels.
        equalised: scale the vectors that tell objects apart to a root mean square of 1, so that they weigh as much as
            the features they meet (not part of the paper, where the numbers are about 0.05 and 0.002).
    """

    wants = frozenset({"map"})
    acts_at = frozenset({"bottleneck", "decoder"})

    def __init__(
        self,
        *,
        views: Mapping[str, int],
        sites: Mapping[str, Site],
        width: int = 512,
        hidden: int = 1024,
        spatial: bool = True,
        channel: bool = True,
        equalised: bool = False,
    ) -> None:
        super().__init__()
        seen, heard = views["map"], _bottleneck(sites).channels
        self._widths = dict(self.plan(views=views, sites=sites, width=width, hidden=hidden).widths)
        self.spatial, self.channel, self.equalised = spatial, channel, equalised
        self.separate = nn.Sequential(
            nn.Conv2d(heard + seen, hidden, 1), nn.LeakyReLU(0.2), nn.BatchNorm2d(hidden),
            nn.Conv2d(hidden, width, 1), nn.LeakyReLU(0.2), nn.BatchNorm2d(width),
        )  # fmt: skip
        self.common = nn.Sequential(
            nn.Conv2d(width, width, 1), nn.LeakyReLU(0.2), nn.BatchNorm2d(width), nn.Conv2d(width, seen, 1)
        )
        self.slope, self.offset = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.tensor(-0.2))
        self.gate: nn.Sequential | None = None
        if channel:
            self.gate = nn.Sequential(
                nn.Linear(seen, width), nn.LeakyReLU(0.2), nn.BatchNorm1d(width), nn.Linear(width, width)
            )
        levels = {name: site.channels for name, site in sites.items() if site.kind == "decoder"}
        self.style_scale = nn.ModuleDict({name: nn.Linear(seen + width, c) for name, c in levels.items()})
        self.style_offset = nn.ModuleDict({name: nn.Linear(seen + width, c) for name, c in levels.items()})

    @classmethod
    def plan(
        cls, *, views: Mapping[str, int], sites: Mapping[str, Site], width: int = 512, hidden: int = 1024, **_: Any
    ) -> ConditionerPlan:
        """The bottleneck leaves with the map's and the object's channels, decoder levels with their own."""
        if min(width, hidden) < 1:
            raise ValueError(f"The attention has width {width} and hidden {hidden}; give numbers from 1.")
        _bottleneck(sites)
        widths = {name: site.channels for name, site in sites.items() if site.kind == "decoder"}
        widths |= {name: views["map"] + width for name, site in sites.items() if site.kind == "bottleneck"}
        return ConditionerPlan(cls.wants, cls.acts_at, widths)

    def widths(self) -> Mapping[str, int]:
        return self._widths

    def bind(self, embedding: Embedding) -> CrossModal:
        if embedding.map is None:
            raise ValueError("The cross-modal attention needs an embedding with a map.")
        return CrossModal(self, embedding.map)


class CrossModal(Bound):
    """The attention bound to the maps (B, N, D, h, w) of a batch; the attributes are there once it met the bottleneck.

    Attributes:
        separated: features of the objects (B N, S, H, W), before the channels are gated.
        heard: unit vectors (B, N, D) of what is heard of each object, in the space of the map.
        cosines: of each place with that (B, N, h, w); None without spatial attention.
        localisation: weight of each place, 0 to 1 (B, N, h, w); None without spatial attention.
        seen: the vector of each object (B, N, D).
        gates: of the channels, 0 to 1 (B, N, S); None without them.
        context: ``seen`` and the mean of the gated features (B N, D + S).
    """

    separated: Tensor
    heard: Tensor
    seen: Tensor
    context: Tensor

    def __init__(self, attention: CrossModalAttention, maps: Tensor) -> None:
        self.attention, self.maps = attention, maps
        self.batch, self.sources = maps.shape[:2]
        self.cosines: Tensor | None = None
        self.gates: Tensor | None = None

    def __call__(self, site: str, features: Tensor) -> Tensor:
        if site in self.attention.style_scale:
            return self._style(site, features)
        return self._attend(features) if site in self.attention.widths() else features

    def _attend(self, features: Tensor) -> Tensor:
        """At the bottleneck: (B or B N, C, H, W) -> (B N, D + S, H, W)."""
        attention, maps = self.attention, rearrange(self.maps, "b n d h w -> (b n) d h w")
        features = expand_sources(features, self.batch, self.sources)
        peaks = maps.amax(dim=(2, 3))
        peaks = _equalised(peaks) if attention.equalised else peaks
        peaks = repeat(peaks, "m d -> m d h w", h=features.shape[2], w=features.shape[3])
        separated = attention.separate(torch.cat((features, peaks.to(features.dtype)), dim=1))
        common = F.normalize(attention.common(separated).float(), dim=1, eps=1e-12)
        heard = F.normalize(common.mean(dim=(2, 3)), dim=1, eps=1e-12)
        seen = self._look(maps, heard)
        gated = separated
        if attention.gate is not None:
            agreement = seen * common.mean(dim=(2, 3))  # the mean of products with a vector that is the same everywhere
            gates = torch.sigmoid(attention.gate(agreement.to(separated.dtype)))
            gated = separated * gates[:, :, None, None].to(separated.dtype) + separated
            self.gates = self._grouped(gates)
        self.separated, self.heard, self.seen = separated, self._grouped(heard), self._grouped(seen)
        self.context = torch.cat((seen.to(gated.dtype), gated.mean(dim=(2, 3))), dim=1)
        tiled = repeat(seen.to(gated.dtype), "m d -> m d h w", h=gated.shape[2], w=gated.shape[3])
        return torch.cat((tiled, gated), dim=1)

    def _look(self, maps: Tensor, heard: Tensor) -> Tensor:
        """The vectors (B N, D) of what is seen where it is heard."""
        attention = self.attention
        if not attention.spatial:
            peaks = maps.amax(dim=(2, 3))
            return _equalised(peaks) if attention.equalised else peaks
        cosines = F.cosine_similarity(maps, heard[:, :, None, None], dim=1, eps=1e-8)
        weights = torch.sigmoid(attention.slope * cosines + attention.offset)
        self.cosines, self.localisation = self._grouped(cosines), self._grouped(weights)
        seen = torch.einsum("mhw,mdhw->md", weights, maps)
        if attention.equalised:
            return _equalised(seen)
        return F.normalize(seen, p=1.0, dim=1, eps=1e-12)  # by the sum of its absolute values, as published

    def _style(self, site: str, features: Tensor) -> Tensor:
        """Adaptive instance normalisation of (B N, C, H, W), always by the statistics of the features themselves."""
        features = expand_sources(features, self.batch, self.sources)
        scale = self.attention.style_scale[site](self.context)[:, :, None, None]
        offset = self.attention.style_offset[site](self.context)[:, :, None, None]
        variance, mean = torch.var_mean(features, dim=(2, 3), correction=0, keepdim=True)
        scale = scale * torch.rsqrt(variance + 1e-5)
        return features * scale.to(features.dtype) + (offset - mean * scale).to(features.dtype)

    def _grouped(self, values: Tensor) -> Tensor:
        return rearrange(values, "(b n) ... -> b n ...", n=self.sources)


def _bottleneck(sites: Mapping[str, Site]) -> Site:
    found = [site for site in sites.values() if site.kind == "bottleneck"]
    if len(found) != 1:
        raise ValueError(f"It needs one bottleneck and the separator has {len(found)}.")
    return found[0]


def _equalised(vectors: Tensor) -> Tensor:
    """Vectors (N, D) at a root mean square of 1."""
    return F.normalize(vectors, dim=1) * vectors.shape[1] ** 0.5
