"""The attention to a text: what it reads, where it acts, and the mask that its head makes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from einops import rearrange
from torch import Tensor

from avsep_bimodal_sep.conditioner import TextAttention
from avsep_zoo.contracts import Embedding, Site, expand_sources

SITES = {"deep5": Site("bottleneck", 8), "bottleneck": Site("bottleneck", 8), "head": Site("head", 3)}
VIEWS = {"vector": 5, "tokens": 6}
LAYERS = ("sca", "ca", "sa", "cat", "sca_cat")


def attention(**settings: Any) -> TextAttention:
    """With parameters that are not those of a fresh one."""
    made = TextAttention(**{"views": VIEWS, "sites": SITES, "heads": 2, **settings}).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def told(batch: int = 2, sources: int = 3, tokens: int = 4) -> Embedding:
    return Embedding(vector=torch.randn(batch, sources, 5), tokens=torch.randn(batch, sources, tokens, 6))


def part(embedding: Embedding, row: slice, source: slice) -> Embedding:
    assert embedding.vector is not None and embedding.tokens is not None
    return Embedding(vector=embedding.vector[row, source], tokens=embedding.tokens[row, source])


def test_plan() -> None:
    """It needs a vector; a head leaves with the logits of the mask, where there is one."""
    plan = TextAttention.plan(views=VIEWS, sites=SITES)
    assert plan.wants == {"vector"} and plan.acts_at == {"bottleneck", "head"}
    assert plan.widths == {"deep5": 8, "bottleneck": 8, "head": 1} == attention().widths()
    headless = {"bottleneck": Site("bottleneck", 8), "decoder3": Site("decoder", 4)}
    assert TextAttention.plan(views=VIEWS, sites=headless).acts_at == {"bottleneck"}
    assert attention(sites=headless).widths() == {"bottleneck": 8}


@pytest.mark.parametrize("layer", LAYERS)
def test_shapes(layer: str) -> None:
    """Features are expanded at the first site, and keep their shape at later ones."""
    bound = attention(layer=layer).bind(told())
    deep = bound("deep5", torch.randn(2, 8, 4, 2))
    assert deep.shape == (6, 8, 4, 2) == bound("bottleneck", deep).shape
    assert bound("head", torch.randn(6, 3, 4, 5)).shape == bound("head", torch.randn(2, 3, 4, 5)).shape == (6, 1, 4, 5)


@pytest.mark.parametrize("layer", LAYERS)
def test_sources_and_mixtures_do_not_mix(layer: str) -> None:
    made, embedding, features = attention(layer=layer), told(), torch.randn(2, 8, 2, 3)
    together = rearrange(made.bind(embedding)("bottleneck", features), "(b n) c h w -> b n c h w", b=2)
    for b in range(2):
        for n in range(3):
            one = made.bind(part(embedding, slice(b, b + 1), slice(n, n + 1)))("bottleneck", features[b : b + 1])
            torch.testing.assert_close(together[b, n], one[0], rtol=0.0, atol=1e-5)


def test_layers_act_one_after_the_other() -> None:
    """Points are rows, then columns; the two layers of every block in order."""
    made, embedding, features = attention(blocks=2), told(), torch.randn(2, 8, 2, 3)
    assert embedding.tokens is not None
    tokens = embedding.tokens.flatten(0, 1)
    points = expand_sources(features, 2, 3).flatten(2).transpose(1, 2)
    layers: Any = made.layers["deep5"]
    assert len(layers) == 4
    for layer in layers:
        points = layer(points, tokens, None)
    wanted = points.transpose(1, 2).unflatten(2, (2, 3))
    torch.testing.assert_close(made.bind(embedding)("deep5", features), wanted)


@pytest.mark.parametrize("layer", ["ca", "sca", "sca_cat"])
def test_padding_with_a_bias_does_not_count(layer: str) -> None:
    """Without one it does, as published models have it."""
    made, features = attention(layer=layer), torch.randn(2, 8, 2, 2)
    embedding = told()
    assert embedding.tokens is not None
    padded = torch.cat((embedding.tokens, torch.randn(2, 3, 2, 6)), dim=2)
    bias = torch.zeros(2, 3, 6)
    bias[..., 4:] = -torch.inf
    short = made.bind(embedding)("bottleneck", features)
    biased = made.bind(Embedding(vector=embedding.vector, tokens=padded, tokens_bias=bias))("bottleneck", features)
    longer = made.bind(Embedding(vector=embedding.vector, tokens=padded))("bottleneck", features)
    torch.testing.assert_close(biased, short)
    assert not torch.allclose(longer, short, atol=1e-3)


@pytest.mark.parametrize("layer", ["ca", "sca"])
def test_a_vector_is_one_token(layer: str) -> None:
    made = attention(layer=layer, views={"vector": 5})
    vector, features = torch.randn(2, 3, 5), torch.randn(2, 8, 2, 2)
    wanted = made.bind(Embedding(vector=vector, tokens=vector[:, :, None]))("deep5", features)
    torch.testing.assert_close(made.bind(Embedding(vector=vector))("deep5", features), wanted)


def changed(made: TextAttention, embedding: Embedding, features: Tensor) -> bool:
    """Whether another cue gives something else at a deep site."""
    return not torch.allclose(made.bind(embedding)("deep5", features), made.bind(told())("deep5", features))


@pytest.mark.parametrize(("layer", "heard"), [("sca", True), ("ca", True), ("cat", True), ("sa", False)])
def test_which_layers_hear_the_cue(layer: str, heard: bool) -> None:
    assert changed(attention(layer=layer), told(), torch.randn(2, 8, 2, 2)) is heard


def test_identity_leaves_features_as_they_are() -> None:
    features = torch.randn(2, 8, 2, 2)
    assert attention(layer="identity").bind(told())("bottleneck", features) is features


def test_other_sites_are_left_alone() -> None:
    features = torch.randn(2, 4, 2, 2)
    assert attention().bind(told())("decoder3", features) is features


def test_the_head_is_a_weighted_sum() -> None:
    made, embedding, features = attention(), told(), torch.randn(2, 3, 4, 5)
    head: Any = made.heads["head"]
    assert embedding.vector is not None
    for b in range(2):
        weights = torch.sigmoid(head.fc(embedding.vector[b])) * head.scale
        wanted = torch.einsum("nc,cft->nft", weights, features[b]) + head.bias
        got = made.bind(embedding)("head", features)[3 * b : 3 * b + 3, 0]
        torch.testing.assert_close(got, wanted)


def test_a_fresh_head_weighs_all_features_by_half() -> None:
    """As published: almost no weights, a scale of 1, no offset."""
    fresh: Any = TextAttention(views={"vector": 512}, sites={"head": Site("head", 32)}).heads["head"]
    assert 0.9e-4 < fresh.fc.weight.std() < 1.1e-4
    assert torch.equal(fresh.scale, torch.ones(32)) and torch.equal(fresh.bias, torch.zeros(1))


@pytest.mark.parametrize("layer", LAYERS)
def test_gradients_reach_every_parameter(layer: str) -> None:
    made = attention(layer=layer).train()
    bound = made.bind(told())
    deep = bound("bottleneck", bound("deep5", torch.randn(2, 8, 2, 2)))
    (deep.square().sum() + bound("head", torch.randn(2, 3, 4, 4)).square().sum()).backward()
    assert [name for name, p in made.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_an_embedding_without_a_vector() -> None:
    with pytest.raises(ValueError, match=r"^The attention to texts needs an embedding with a vector\.$"):
        attention().bind(Embedding(tokens=torch.randn(2, 3, 4, 6)))


@pytest.mark.parametrize("settings", [{"blocks": 0}, {"heads": 3}, {"heads": 0}, {"layer": "film"}])
def test_what_cannot_be_built(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"; (use|give) [^\n]+\.$"):
        attention(**settings)
