"""iQuery's conditioner: learned class queries read the audio and become mask embeddings.

Source: Chen et al., iQuery: Instruments as Queries for Audio-Visual Sound Separation, CVPR 2023, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional as F

from avsep_zoo.blocks.class_table import ClassTable
from avsep_zoo.blocks.mask_product import mask_product
from avsep_zoo.contracts import Bound, Conditioner, ConditionerPlan, Embedding, Site

__all__ = ["QueryConditioner", "QueryStates"]


@dataclass
class QueryStates:
    """What the query transformer computed.

    Args:
        memory: (B or B N, C, h, w) encoded audio.
        layers: (layers, B N, R, C) normalised output of each decoder layer, a row per query.
    """

    memory: Tensor
    layers: Tensor


class QueryConditioner(Conditioner):
    """Query transformer: reads the ``latent`` site, gives masks at the ``head`` site.

    One learned query per class plus spare ones. The query of the wanted class receives the projected cue
    vector as content; all queries attend to each other, to the audio and, in the first layer, to motion tokens
    where the encoder gives them. The answer of the wanted query becomes a mask embedding whose dot product
    with the mask features is the mask. A source without a class index uses the last of these queries.

    Queries that were ``added`` later form groups behind the Q original ones. A group attends to itself and to
    the groups before it, and never to a later one: whatever an added query learns, the answers of the queries
    before it keep every bit.

    Args:
        views: widths of the embedding's views; ``vector`` is needed, ``tokens`` adds the motion layer.
        sites: sites of the separator.
        queries: number of original queries Q.
        heads: attention heads.
        feedforward: width of the feed-forward blocks.
        encoder_layers: number of layers over the audio map.
        decoder_layers: number of decoder layers, the motion layer included.
        dropout: dropout of attention and feed-forward blocks.
        added: sizes of the groups of queries that were added later, in the order of the expansions.
    """

    wants = frozenset({"vector"})
    acts_at = frozenset({"latent", "head"})

    def __init__(
        self,
        *,
        views: Mapping[str, int],
        sites: Mapping[str, Site],
        queries: int = 12,
        heads: int = 8,
        feedforward: int = 1024,
        encoder_layers: int = 1,
        decoder_layers: int = 4,
        dropout: float = 0.0,
        added: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self._sites = {kind: next(name for name, site in sites.items() if site.kind == kind) for kind in self.acts_at}
        hidden, mask_features = (sites[self._sites[kind]].channels for kind in ("latent", "head"))
        if hidden % heads or hidden % 4:
            raise ValueError(
                f"The latent has {hidden} channels; choose heads ({heads}) that divide it, and a multiple of 4."
            )
        rows, counted = queries + sum(added), views.get("index", 0)
        if min(added, default=1) < 1 or counted > rows or (added and counted != rows):
            raise ValueError(
                f"There are {queries} queries and groups {list(added)} of added ones for the {counted} rows the "
                "encoder counts; give both parts the same groups, and a query for each class and spare query."
            )
        self.queries, self.added = queries, tuple(added)
        self.query_embed = ClassTable(rows, hidden)
        self.object_projection = nn.Linear(views["vector"], hidden)
        self.motion_projection = nn.Linear(views["tokens"], hidden) if "tokens" in views else None
        self.encoder_layers = nn.ModuleList(
            _EncoderLayer(hidden, heads, feedforward, dropout) for _ in range(encoder_layers)
        )
        first: nn.Module = (_MotionLayer if "tokens" in views else _DecoderLayer)(hidden, heads, feedforward, dropout)
        rest = (_DecoderLayer(hidden, heads, feedforward, dropout) for _ in range(decoder_layers - 1))
        self.decoder_layers = nn.ModuleList([first, *rest])
        self.decoder_norm = nn.LayerNorm(hidden)
        self.mask_embed = nn.Sequential(
            nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, mask_features)
        )
        self._initialise()

    def _initialise(self) -> None:
        transformer = [self.encoder_layers, self.decoder_layers]
        for parameter in (p for module in transformer for p in module.parameters() if p.dim() > 1):
            nn.init.xavier_uniform_(parameter)

    @classmethod
    def plan(cls, *, views: Mapping[str, int], sites: Mapping[str, Site], **config: Any) -> ConditionerPlan:
        """The head leaves with one channel: the mask logits."""
        heads = {name: 1 for name, site in sites.items() if site.kind == "head"}
        return ConditionerPlan(cls.wants, cls.acts_at, heads)

    def widths(self) -> Mapping[str, int]:
        return {self._sites["head"]: 1}

    def bind(self, embedding: Embedding) -> Bound:
        return _BoundQueries(self, embedding)

    def read(self, latent: Tensor, embedding: Embedding) -> QueryStates:
        """Run the transformer.

        Args:
            latent: (B, C, h, w), one per mixture, or (B N, C, h, w), one per source.
            embedding: views with leading axes (B, N).
        """
        if embedding.vector is None:
            raise ValueError("The query conditioner needs an embedding with a vector.")
        batch, sources = embedding.vector.shape[:2]
        positions = _positions_2d(latent)  # (h w, C)
        memory = rearrange(latent, "b c h w -> b (h w) c")
        for encoder_layer in self.encoder_layers:
            memory = encoder_layer(memory, positions)
        each = 1 if len(memory) == batch * sources else sources
        keys = repeat(memory + positions, "b s c -> (b n) s c", n=each)
        values = repeat(memory, "b s c -> (b n) s c", n=each)

        cue = self.object_projection(rearrange(embedding.vector, "b n d -> (b n) d"))
        groups = self._contents(cue.to(latent), self.wanted(embedding))  # first the original queries
        places = self.query_embed.rows().split([len(x[0]) for x in groups])  # (q, C), the positional part of queries
        states = []
        for layer in self.decoder_layers:
            if isinstance(layer, _MotionLayer):
                motion = self._motion(embedding)
                groups = [layer(x, queries, *motion) for x, queries in zip(groups, places, strict=True)]
            else:
                earlier = [(x + queries, x) for x, queries in zip(groups, places, strict=True)]
                groups = [
                    layer(x, queries, keys, values, earlier[:n])
                    for n, (x, queries) in enumerate(zip(groups, places, strict=True))
                ]
            states.append(torch.cat([self.decoder_norm(x) for x in groups], dim=1))
        return QueryStates(rearrange(memory, "b (h w) c -> b c h w", h=latent.shape[2]), torch.stack(states))

    def wanted(self, embedding: Embedding) -> Tensor:
        """Row (B N,) of the query each source asks for; the last original one where no class is known."""
        last = self.queries - 1
        if embedding.index is None:
            shape = embedding.vector.shape[:2]  # type: ignore[union-attr]
            return torch.full((shape[0] * shape[1],), last, device=self.query_embed.weight.device)
        index = embedding.index.reshape(-1)
        return torch.where(index < 0, last, index)

    def _contents(self, cue: Tensor, index: Tensor) -> list[Tensor]:
        """Content (B N, q, C) of each group of queries: the cue (B N, C) at its row ``index``, zeros elsewhere."""
        first, contents = 0, []
        for count in (self.queries, *self.added):
            row = index - first
            inside = (row >= 0) & (row < count)
            content = cue.new_zeros(len(cue), count, cue.shape[1])
            place = (torch.arange(len(cue), device=cue.device), row.clamp(0, count - 1))
            contents.append(content.index_put(place, torch.where(inside[:, None], cue, 0.0)))
            first += count
        return contents

    def _motion(self, embedding: Embedding) -> tuple[Tensor, Tensor, Tensor | None]:
        if embedding.tokens is None or self.motion_projection is None:
            raise ValueError("The motion layer needs an embedding with tokens.")
        tokens = self.motion_projection(rearrange(embedding.tokens, "b n s d -> (b n) s d"))
        bias = embedding.tokens_bias
        return tokens + _positions_1d(tokens), tokens, None if bias is None else rearrange(bias, "b n s -> (b n) s")


class _BoundQueries(Bound):
    def __init__(self, conditioner: QueryConditioner, embedding: Embedding) -> None:
        self.sources = embedding.sources
        self._conditioner, self._embedding = conditioner, embedding
        self._mask_embedding: Tensor | None = None

    def __call__(self, site: str, features: Tensor) -> Tensor:
        sites = self._conditioner._sites
        if site == sites["latent"]:
            states = self._conditioner.read(features, self._embedding).layers[-1]  # (B N, Q, C)
            wanted = states[torch.arange(len(states), device=states.device), self._conditioner.wanted(self._embedding)]
            self._mask_embedding = self._conditioner.mask_embed(wanted)  # (B N, K)
            return features
        if site == sites["head"]:
            if self._mask_embedding is None:
                raise ValueError("The separator reached its head without passing its latent site.")
            weights = rearrange(self._mask_embedding, "(b n) k -> b n k", n=self.sources)
            return mask_product(features, weights)
        return features


class _Attention(nn.MultiheadAttention):
    """Multi-head attention, batch first, with a float bias (B, K) added to the scores of each key.

    The inputs are laid out sequence first in memory: for other layouts PyTorch chooses the kernel by whether the
    weights are trainable, and freezing them would move the last bit of the output.
    """

    def __init__(self, hidden: int, heads: int, dropout: float) -> None:
        super().__init__(hidden, heads, dropout=dropout)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
        query, key, value = (x.transpose(0, 1).contiguous() for x in (query, key, value))
        return self(query, key, value, key_padding_mask=bias, need_weights=False)[0].transpose(0, 1)


class _FeedForward(nn.Module):
    def __init__(self, hidden: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(hidden, feedforward), nn.Linear(feedforward, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.linear2(self.dropout(F.relu(self.linear1(x)))))


class _EncoderLayer(nn.Module):
    """Post-norm self-attention over the audio map; positions go to queries and keys only."""

    def __init__(self, hidden: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = _Attention(hidden, heads, dropout)
        self.feedforward = _FeedForward(hidden, feedforward, dropout)
        self.norm1, self.norm2 = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        placed = x + positions
        x = self.norm1(x + self.dropout(self.self_attn.attend(placed, placed, x)))
        return self.norm2(x + self.feedforward(x))


class _DecoderLayer(nn.Module):
    """Queries attend to each other and to the (placed, plain) states of earlier groups, then to the audio."""

    def __init__(self, hidden: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = _Attention(hidden, heads, dropout)
        self.cross_attn = _Attention(hidden, heads, dropout)
        self.feedforward = _FeedForward(hidden, feedforward, dropout)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(hidden), nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, queries: Tensor, keys: Tensor, values: Tensor, earlier: Sequence[tuple[Tensor, Tensor]] = ()
    ) -> Tensor:
        placed = x + queries
        among, read = placed, x
        if earlier:
            among = torch.cat([*(state for state, _ in earlier), placed], dim=1)
            read = torch.cat([*(state for _, state in earlier), x], dim=1)
        x = self.norm1(x + self.dropout(self.self_attn.attend(placed, among, read)))
        x = self.norm2(x + self.dropout(self.cross_attn.attend(x + queries, keys, values)))
        return self.norm3(x + self.feedforward(x))


class _MotionLayer(nn.Module):
    """Queries attend to the motion tokens of their source; neither to each other nor to the audio."""

    def __init__(self, hidden: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.cross_attn_motion = _Attention(hidden, heads, dropout)
        self.feedforward = _FeedForward(hidden, feedforward, dropout)
        self.norm3, self.norm4 = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
        x = self.norm4(x + self.dropout(self.cross_attn_motion.attend(x + queries, keys, values, bias)))
        return self.norm3(x + self.feedforward(x))


def _positions_2d(features: Tensor) -> Tensor:
    """Sinusoidal positions (h w, C) of a (B, C, h, w) map: half of the channels from rows, half from columns."""
    channels, height, width = features.shape[1:]
    half = channels // 2
    exponent = 2 * (torch.arange(half, device=features.device) // 2) / half
    scale = 10000.0**exponent
    axes = []
    for size in (height, width):
        place = torch.arange(1, size + 1, device=features.device) / (size + 1e-6) * 2 * math.pi
        angle = place[:, None] / scale
        axes.append(torch.where(torch.arange(half, device=features.device) % 2 == 0, angle.sin(), angle.cos()))
    rows = repeat(axes[0], "h c -> h w c", w=width)
    columns = repeat(axes[1], "w c -> h w c", h=height)
    return rearrange(torch.cat((rows, columns), dim=-1), "h w c -> (h w) c").to(features.dtype)


def _positions_1d(tokens: Tensor) -> Tensor:
    """Sinusoidal positions (S, C) of (B, S, C) tokens."""
    steps, channels = tokens.shape[1:]
    even = torch.arange(0, channels, 2, device=tokens.device)
    angle = torch.arange(steps, device=tokens.device)[:, None] * torch.exp(even * (-math.log(10000.0) / channels))
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1).to(tokens.dtype)
