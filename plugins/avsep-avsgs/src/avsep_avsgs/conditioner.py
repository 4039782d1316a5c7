"""One embedding per sound out of one per recording: scene graphs, and the recurrent network that unrolls them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from avsep_avsgs.graph import Activation, GraphNet, complete_graphs
from avsep_zoo.blocks.tiled_concat import TiledConcat
from avsep_zoo.contracts import Bound, Conditioner, ConditionerPlan, Embedding, Site

__all__ = ["SceneGraph", "SourceUnroll", "Unrolled", "orthogonality_loss"]


@dataclass
class _Sounds(Embedding):
    """Recordings that are unrolled already, to one sound each: their vectors."""


class Unrolled(Bound):
    """A conditioner bound to the sounds of recordings.

    Args:
        inner: acts at the sites.
        unrolled: embeddings (B, N, S, D) of the S sounds of each of N recordings.
        pooled: embeddings (B, N, D') of the recordings; of digested ones, those of the sounds.
    """

    def __init__(self, inner: Bound, unrolled: Tensor, pooled: Tensor) -> None:
        self.inner, self.unrolled, self.pooled = inner, unrolled, pooled
        self.sources = inner.sources

    def __call__(self, site: str, features: Tensor) -> Tensor:
        return self.inner(site, features)


class SourceUnroll(Conditioner):
    """A recurrent network (GRU) reads the vector of a recording again and again; each time it gives the next sound's.

    The sounds' vectors are concatenated to every point of the bottleneck. Any encoder that gives a vector can feed it.
    :meth:`bind` unrolls one sound per recording, as a cue of one sound asks for; training on recordings of several
    sounds unrolls more.

    Source: Chatterjee et al., Visual Scene Graphs for Audio Source Separation, ICCV 2021, section 3.2.

    Args:
        width: of a sound's vector.
    """

    wants = frozenset({"vector"})
    acts_at = frozenset({"bottleneck"})

    def __init__(self, *, views: Mapping[str, int], sites: Mapping[str, Site], width: int = 512) -> None:
        super().__init__()
        self._build(views["vector"], sites, width)

    @classmethod
    def plan(
        cls, *, views: Mapping[str, int], sites: Mapping[str, Site], width: int = 512, **_: Any
    ) -> ConditionerPlan:
        """The bottleneck leaves with the channels of a sound's vector on top of its own."""
        widths = TiledConcat.plan(views={"vector": width}, sites=sites).widths
        return ConditionerPlan(cls.wants, cls.acts_at, widths)

    def _build(self, pooled: int, sites: Mapping[str, Site], width: int) -> None:
        self.rnn = nn.GRU(pooled, width, batch_first=True)
        self.tiled = TiledConcat(views={"vector": width}, sites=sites)

    def widths(self) -> Mapping[str, int]:
        return self.tiled.widths()

    def pool(self, embedding: Embedding) -> Tensor:
        """One vector (B, N, D) per recording."""
        if embedding.vector is None:
            raise ValueError("The unrolling needs an embedding with a vector.")
        return embedding.vector

    def unroll(self, pooled: Tensor, steps: int) -> Tensor:
        """(B, N, D) -> (B, N, S, width): the recurrent network's outputs at the same input, from a state of zeros."""
        batch, recordings = pooled.shape[:2]
        inputs = rearrange(pooled, "b n d -> (b n) 1 d").expand(-1, steps, -1)
        outputs, _ = self.rnn(inputs.contiguous())
        return rearrange(outputs, "(b n) s d -> b n s d", b=batch, n=recordings)

    def digest(self, embedding: Embedding) -> Embedding:
        """Pool and unroll, one sound per recording."""
        return _Sounds(vector=rearrange(self.unroll(self.pool(embedding), 1), "b n 1 d -> b n d"))

    def bind(self, embedding: Embedding, unroll: int = 1) -> Unrolled:
        """Bind to the cues of a batch; with ``unroll`` S sounds per recording, those of recording n from n S on."""
        if isinstance(embedding, _Sounds) and embedding.vector is not None:
            vector = embedding.vector
            return Unrolled(self.tiled.bind(embedding), rearrange(vector, "b n d -> b n 1 d"), vector)
        pooled = self.pool(embedding)
        unrolled = self.unroll(pooled, unroll)
        sounds = Embedding(vector=rearrange(unrolled, "b n s d -> b (n s) d"))
        return Unrolled(self.tiled.bind(sounds), unrolled, pooled)


class SceneGraph(SourceUnroll):
    """The nodes of each recording form a complete graph, which a :class:`GraphNet` turns into the vector to unroll.

    Nodes are the tokens of the embedding, those at which ``tokens_bias`` is not -inf; a recording without any has a
    vector of zeros.

    Source: Chatterjee et al., Visual Scene Graphs for Audio Source Separation, ICCV 2021, section 3.2.

    Args:
        width: of a sound's vector.
        hidden, heads, kind, activation: of the :class:`~avsep_avsgs.graph.GraphNet`.
    """

    wants = frozenset({"tokens"})

    def __init__(
        self,
        *,
        views: Mapping[str, int],
        sites: Mapping[str, Site],
        width: int = 512,
        hidden: int = 256,
        heads: int = 4,
        kind: int = 3,
        activation: Activation = "relu",
    ) -> None:
        Conditioner.__init__(self)
        self.graph = GraphNet(views["tokens"], hidden=hidden, heads=heads, kind=kind, activation=activation)
        self._build(self.graph.width, sites, width)

    def pool(self, embedding: Embedding) -> Tensor:
        tokens, bias = embedding.tokens, embedding.tokens_bias
        if tokens is None:
            raise ValueError("The scene graph needs an embedding with tokens, one per node.")
        batch = tokens.shape[0]
        nodes = rearrange(tokens, "b n k d -> (b n) k d")
        present = torch.ones(nodes.shape[:2], dtype=torch.bool, device=nodes.device)
        if bias is not None:
            present = ~torch.isinf(rearrange(bias, "b n k -> (b n) k"))
        edges, graph = complete_graphs(present)
        with torch.autocast(nodes.device.type, enabled=False):
            pooled = self.graph(nodes[present].to(next(self.graph.parameters()).dtype), edges, graph, nodes.shape[0])
        return rearrange(pooled, "(b n) d -> b n d", b=batch)


def orthogonality_loss(unrolled: Tensor) -> Tensor:
    """How far the embeddings (V, S, D) of the sounds of a recording are from being orthogonal.

    For each step the mean cosine with the steps before it, over all recordings, squared; so positive and negative
    cosines cancel, as published.

    Source: Chatterjee et al., ICCV 2021, section 3.4.
    """
    directions = unrolled / (unrolled.norm(dim=-1, keepdim=True) + 1e-10)
    loss = unrolled.new_zeros(())
    for step in range(1, unrolled.shape[1]):
        cosines = (directions[:, :step] * directions[:, step : step + 1]).sum(dim=-1)
        loss = loss + cosines.mean() ** 2
    return loss
