"""The conditioner that puts a vector at every point of the bottleneck."""

from __future__ import annotations

import pytest
import torch

from avsep_zoo.blocks.tiled_concat import TiledConcat
from avsep_zoo.contracts import Embedding, Site

SITES = {"bottleneck": Site("bottleneck", 3), "decoder5": Site("decoder", 6), "head": Site("head", 2)}


def concat() -> TiledConcat:
    return TiledConcat(views={"vector": 2, "tokens": 2}, sites=SITES)


def test_the_vector_stands_in_front_at_every_point() -> None:
    vector = torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(0))
    features = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    out = concat().bind(Embedding(vector=vector))("bottleneck", features)
    assert out.shape == (6, 5, 4, 5)
    assert torch.equal(out[4, :2, 3, 1], vector[1, 1])
    assert torch.equal(out[4, 2:], features[1])


def test_features_of_each_source_are_not_repeated_again() -> None:
    vector = torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(0))
    features = torch.randn(6, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    out = concat().bind(Embedding(vector=vector))("bottleneck", features)
    assert torch.equal(out[:, 2:], features)
    assert torch.equal(out[:, :2, 0, 0], vector.flatten(0, 1))


def test_other_sites_pass() -> None:
    bound = concat().bind(Embedding(vector=torch.zeros(1, 2, 2)))
    features = torch.ones(1, 6, 2, 2)
    assert bound("decoder5", features) is features


def test_the_vector_takes_the_type_of_the_features() -> None:
    bound = concat().bind(Embedding(vector=torch.ones(1, 2, 2)))
    assert bound("bottleneck", torch.ones(1, 3, 2, 2, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_plan_and_module_agree_and_there_is_no_parameter() -> None:
    plan = TiledConcat.plan(views={"vector": 2}, sites=SITES)
    assert plan.widths == concat().widths() == {"bottleneck": 5}
    assert not concat().state_dict()


def test_gradients_reach_the_cue() -> None:
    vector = torch.zeros(1, 2, 2, requires_grad=True)
    concat().bind(Embedding(vector=vector))("bottleneck", torch.ones(1, 3, 2, 2)).sum().backward()
    assert vector.grad is not None
    assert torch.equal(vector.grad, torch.full((1, 2, 2), 4.0))


def test_an_embedding_without_a_vector() -> None:
    with pytest.raises(ValueError, match="needs an embedding with a vector"):
        concat().bind(Embedding(tokens=torch.zeros(1, 2, 3, 2)))
