"""Condition layers, each against what it is defined as."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avsep_bimodal_sep.layers import Concatenation, CrossAttention, SelfAttention, condition_layers

CHANNELS, HEADS, WIDTH = 8, 2, 6


def shaken(layer: nn.Module) -> nn.Module:
    """With norms and biases that are not those of a fresh layer."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return layer


def attended(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
    """Head by head; heads are slices of the channels."""
    size, heads = CHANNELS // HEADS, []
    for part in (slice(start, start + size) for start in range(0, CHANNELS, size)):
        scores = query[..., part] @ key[..., part].transpose(1, 2) / math.sqrt(size)
        heads.append((scores if bias is None else scores + bias[:, None]).softmax(dim=-1) @ value[..., part])
    return torch.cat(heads, dim=-1)


def test_self_attention() -> None:
    """Rows of qkv are queries, keys, values; the cue does not count."""
    layer, x = SelfAttention(CHANNELS, HEADS), torch.randn(2, 5, CHANNELS)
    shaken(layer)
    query, key, value = (
        F.linear(layer.norm1(x), w, b)
        for w, b in zip(layer.qkv.weight.split(CHANNELS), layer.qkv.bias.split(CHANNELS), strict=True)
    )
    y = x + layer.proj(attended(query, key, value))
    wanted = y + layer.mlp[2](F.gelu(layer.mlp[0](layer.norm2(y))))
    torch.testing.assert_close(layer(x, torch.randn(2, 3, WIDTH), None), wanted)
    assert layer.mlp[0].out_features == 2 * CHANNELS


@pytest.mark.parametrize("biased", [False, True])
def test_cross_attention(biased: bool) -> None:
    """Rows of kv are keys, values; tokens are not normalised."""
    layer, x, tokens = CrossAttention(CHANNELS, HEADS, WIDTH), torch.randn(2, 5, CHANNELS), torch.randn(2, 3, WIDTH)
    shaken(layer)
    bias = torch.randn(2, 3) if biased else None
    (wk, wv), (bk, bv) = layer.kv.weight.split(CHANNELS), layer.kv.bias.split(CHANNELS)
    key, value = F.linear(tokens, wk, bk), F.linear(tokens, wv, bv)
    y = x + layer.proj(attended(layer.q(layer.norm1(x)), key, value, bias))
    wanted = y + layer.mlp[2](F.gelu(layer.mlp[0](layer.norm2(y))))
    torch.testing.assert_close(layer(x, tokens, bias), wanted)


def test_concatenation() -> None:
    layer, x, vector = Concatenation(4, WIDTH), torch.randn(2, 4, 3, 5), torch.randn(2, WIDTH)
    told = layer.lin(vector)[:, :, None, None].expand(2, 4, 3, 5)
    wanted = x + layer.conv2(torch.cat((layer.conv1(x), told), dim=1))
    torch.testing.assert_close(layer(x, vector), wanted)


def test_published_sizes() -> None:
    with torch.device("meta"):
        sa, ca = condition_layers("sca", 512, heads=8, tokens=768, vector=512)
    assert sum(p.numel() for p in sa.parameters()) == 4 * 512 * 513 + 2 * 1024 * 512 + 1536 + 4 * 512
    assert sum(p.numel() for p in ca.parameters()) == 2 * 512 * 513 + 1024 * 769 + 2 * 1024 * 512 + 1536 + 4 * 512


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("sa", [SelfAttention]),
        ("ca", [CrossAttention]),
        ("sca", [SelfAttention, CrossAttention]),
        ("cat", [Concatenation]),
        ("sca_cat", [SelfAttention, Concatenation, CrossAttention]),
        ("identity", []),
    ],
)
def test_layers_of_a_block(name: str, kinds: list[type]) -> None:
    """In their order, with the widths of what they read."""
    made = condition_layers(name, CHANNELS, heads=HEADS, tokens=5, vector=3)  # type: ignore[arg-type]
    assert [type(layer) for layer in made] == kinds
    assert all(layer.kv.in_features == 5 for layer in made if isinstance(layer, CrossAttention))
    assert all(layer.lin.in_features == 3 for layer in made if isinstance(layer, Concatenation))


@pytest.mark.parametrize("settings", [{"layer": "film"}, {"heads": 3}, {"heads": 0}])
def test_what_cannot_be_built(settings: dict[str, object]) -> None:
    given = {"layer": "sca", "channels": CHANNELS, "heads": HEADS, "tokens": WIDTH, "vector": WIDTH, **settings}
    with pytest.raises(ValueError, match=r"; give [^\n.]+\.$"):
        condition_layers(given.pop("layer"), given.pop("channels"), **given)  # type: ignore[arg-type]
