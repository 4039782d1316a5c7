"""What a cue does to the deep features of the U-Net: attention to its tokens, or concatenation.

Source: Mahmud et al., ICLR 2024, section 3, and its official configurations.
"""

from __future__ import annotations

from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Concatenation", "ConditionLayer", "CrossAttention", "SelfAttention", "condition_layers"]

ConditionLayer = Literal["sca", "ca", "sa", "cat", "sca_cat", "identity"]


class SelfAttention(nn.Module):
    """Pre-norm transformer layer among the points of a map.

    Args:
        channels: of the map.
        heads: of the attention; they divide the channels.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.mlp = _mlp(channels)

    def forward(self, x: Tensor, tokens: Tensor, bias: Tensor | None) -> Tensor:
        """(M, HW, C) points; tokens and bias do not count."""
        query, key, value = self.qkv(self.norm1(x)).chunk(3, dim=-1)
        x = x + self.proj(_attend(query, key, value, self.heads, None))
        return x + self.mlp(self.norm2(x))


class CrossAttention(nn.Module):
    """Pre-norm transformer layer in which the points of a map attend to the tokens of a cue.

    Args:
        channels: of the map.
        heads: of the attention.
        width: of the tokens, which are not normalised.
    """

    def __init__(self, channels: int, heads: int, width: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(width, 2 * channels)
        self.proj = nn.Linear(channels, channels)
        self.mlp = _mlp(channels)

    def forward(self, x: Tensor, tokens: Tensor, bias: Tensor | None) -> Tensor:
        """(M, HW, C) points, (M, K, D) tokens, (M, K) what is added to the scores of attention."""
        key, value = self.kv(tokens.to(x.dtype)).chunk(2, dim=-1)
        x = x + self.proj(_attend(self.q(self.norm1(x)), key, value, self.heads, bias))
        return x + self.mlp(self.norm2(x))


class Concatenation(nn.Module):
    """Two 3x3 convolutions, between which a vector is concatenated to every point; added to the input.

    Args:
        channels: of the map.
        width: of the vector.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.lin = nn.Linear(width, channels)
        self.conv2 = nn.Conv2d(2 * channels, channels, 3, padding=1)

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        """(M, C, H, W) features, (M, D) vectors."""
        told = self.lin(vector.to(x.dtype))[:, :, None, None].expand(-1, -1, *x.shape[2:])
        return x + self.conv2(torch.cat((self.conv1(x), told), dim=1))


def condition_layers(layer: ConditionLayer, channels: int, *, heads: int, tokens: int, vector: int) -> list[nn.Module]:
    """The layers of one block: ``sa`` self-attention, ``ca`` cross-attention, ``cat`` concatenation, or several.

    Args:
        layer: ``sca`` is sa, ca; ``sca_cat`` is sa, cat, ca (which the official code names and cannot build);
            ``identity`` is none.
        channels: of the map.
        heads: of attention.
        tokens: width of the tokens that are attended to.
        vector: width of the vector that is concatenated.

    Raises:
        ValueError: there is no such layer, or the heads do not divide the channels.
    """
    orders = {
        "sa": ("sa",), "ca": ("ca",), "sca": ("sa", "ca"), "cat": ("cat",), "sca_cat": ("sa", "cat", "ca"),
        "identity": (),
    }  # fmt: skip
    if layer not in orders:
        raise ValueError(f"The condition layer is {layer!r}; give one of {', '.join(orders)}.")
    if heads < 1 or channels % heads:
        raise ValueError(f"{heads} heads do not divide {channels} channels; give another number of heads.")
    made: list[nn.Module] = []
    for kind in orders[layer]:
        if kind == "sa":
            made.append(SelfAttention(channels, heads))
        elif kind == "ca":
            made.append(CrossAttention(channels, heads, tokens))
        else:
            made.append(Concatenation(channels, vector))
    return made


def _mlp(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels))


def _attend(query: Tensor, key: Tensor, value: Tensor, heads: int, bias: Tensor | None) -> Tensor:
    """Softmax attention of (M, Q, C) to (M, K, C), heads being contiguous slices of C."""
    query, key, value = (rearrange(x, "m q (h c) -> m h q c", h=heads) for x in (query, key, value))
    mask = None if bias is None else bias[:, None, None, :].to(query.dtype)
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return rearrange(attended, "m h q c -> m q (h c)")
