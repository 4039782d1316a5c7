"""FiLM: the conditioner that scales and shifts channels."""

from __future__ import annotations

import pytest
import torch

from avsep_zoo.blocks.film import Film
from avsep_zoo.contracts import Embedding, Site

SITES = {"bottleneck": Site("bottleneck", 3), "decoder5": Site("decoder", 6), "head": Site("head", 2)}


def film() -> Film:
    torch.manual_seed(0)
    return Film(views={"vector": 4, "tokens": 2}, sites=SITES, hidden=5)


def test_each_source_has_its_own_scale_and_shift() -> None:
    """Equation by hand, from features of the mixture and from those of each source."""
    conditioner, vector = film(), torch.randn(2, 3, 4)
    pairs = conditioner.sites["decoder5"](conditioner.read(vector.flatten(0, 1)))
    bound = conditioner.bind(Embedding(vector=vector))
    mixtures, sources = torch.randn(2, 6, 4, 5), torch.randn(6, 6, 4, 5)
    for features, each in ((mixtures, mixtures.repeat_interleave(3, dim=0)), (sources, sources)):
        by_hand = (1 + pairs[:, :6, None, None]) * each + pairs[:, 6:, None, None]
        torch.testing.assert_close(bound("decoder5", features), by_hand)


def test_it_acts_at_the_bottleneck_and_the_decoder_alone() -> None:
    features = torch.ones(1, 2, 3, 3)
    bound = film().bind(Embedding(vector=torch.zeros(1, 2, 4)))
    assert bound("head", features) is features
    assert bound("bottleneck", torch.ones(1, 3, 2, 2)).shape == (2, 3, 2, 2)
    assert Film.plan(views={"vector": 4}, sites=SITES).widths == film().widths() == {"bottleneck": 3, "decoder5": 6}


def test_features_keep_their_type() -> None:
    bound = film().bind(Embedding(vector=torch.ones(1, 2, 4)))
    assert bound("bottleneck", torch.ones(1, 3, 2, 2, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_gradients_reach_the_cue_and_every_parameter() -> None:
    conditioner, vector = film(), torch.randn(1, 2, 4, requires_grad=True)
    bound = conditioner.bind(Embedding(vector=vector))
    total = sum(bound(name, torch.randn(1, SITES[name].channels, 2, 2)).square().sum() for name in conditioner.widths())
    total.backward()  # type: ignore[union-attr]
    assert vector.grad is not None and vector.grad.abs().sum() > 0
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in conditioner.parameters())


def test_an_embedding_without_a_vector() -> None:
    with pytest.raises(ValueError, match="needs an embedding with a vector"):
        film().bind(Embedding(tokens=torch.zeros(1, 2, 3, 2)))
