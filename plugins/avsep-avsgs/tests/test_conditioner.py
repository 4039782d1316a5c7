"""Vectors of recordings and of their sounds: scene graphs, the unrolling, and the loss that drives sounds apart."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from avsep_avsgs.conditioner import SceneGraph, SourceUnroll, orthogonality_loss
from avsep_zoo.contracts import Embedding, Site

SITES = {"bottleneck": Site("bottleneck", 5), "decoder2": Site("decoder", 3)}


def scene_graph(**settings: Any) -> SceneGraph:
    return SceneGraph(views={"tokens": 6}, sites=SITES, **{"width": 4, "hidden": 8, "heads": 2, **settings}).eval()


def unroller() -> SourceUnroll:
    return SourceUnroll(views={"vector": 6}, sites=SITES, width=4).eval()


def nodes(*counts: int, most: int = 4) -> Embedding:
    """One mixture of as many recordings, which have so many nodes."""
    bias = torch.where(torch.arange(most) < torch.tensor(counts)[:, None], 0.0, -torch.inf)
    return Embedding(tokens=torch.randn(1, len(counts), most, 6), tokens_bias=bias[None])


def test_sounds_are_concatenated_to_the_bottleneck_only() -> None:
    """The sounds of recording n from n S on, in front of the channels."""
    conditioner = unroller()
    bound = conditioner.bind(Embedding(vector=torch.randn(2, 3, 6)), unroll=2)
    assert bound.sources == 6 and bound.unrolled.shape == (2, 3, 2, 4) and bound.pooled.shape == (2, 3, 6)
    features = torch.randn(2, 5, 2, 3)
    out = bound("bottleneck", features)
    assert out.shape == (12, 9, 2, 3) and dict(conditioner.widths()) == {"bottleneck": 9}
    torch.testing.assert_close(out[:, :4, 1, 2], bound.unrolled.reshape(12, 4))
    torch.testing.assert_close(out[6:, 4:], features[1:].expand(6, -1, -1, -1))
    assert bound("decoder2", features) is features


def test_one_sound_is_the_first_of_several() -> None:
    """What a recording is unrolled to does not depend on how far."""
    conditioner, embedding = unroller(), Embedding(vector=torch.randn(1, 2, 6))
    one, three = (conditioner.bind(embedding, unroll=k).unrolled for k in (1, 3))
    assert one.shape == (1, 2, 1, 4)
    torch.testing.assert_close(one, three[:, :, :1])
    assert not torch.allclose(three[:, :, 0], three[:, :, 1])


def test_padding_is_no_node() -> None:
    """Neither its number nor its content counts; -inf alone marks it."""
    conditioner, embedding = scene_graph(), nodes(3, 1)
    assert embedding.tokens is not None and embedding.tokens_bias is not None
    wanted = conditioner.pool(embedding)
    longer = Embedding(
        tokens=torch.cat((embedding.tokens, torch.full((1, 2, 2, 6), 1e9)), dim=2),
        tokens_bias=torch.cat((embedding.tokens_bias, torch.full((1, 2, 2), -torch.inf)), dim=2),
    )
    torch.testing.assert_close(conditioner.pool(longer), wanted)
    torch.testing.assert_close(conditioner.pool(Embedding(tokens=embedding.tokens[:, :1, :3])), wanted[:, :1])
    longer.tokens_bias = torch.zeros(1, 2, 6)
    assert not torch.allclose(conditioner.pool(longer), wanted)


def test_padded_nodes_have_no_gradient() -> None:
    embedding = nodes(2, 0)
    assert embedding.tokens is not None
    embedding.tokens.requires_grad_()
    bound = scene_graph().bind(embedding)
    assert bound.pooled[0, 1].eq(0).all()
    bound.unrolled.square().sum().backward()
    assert embedding.tokens.grad is not None and torch.isfinite(embedding.tokens.grad).all()
    assert embedding.tokens.grad[0, 0, :2].abs().sum() > 0 and embedding.tokens.grad[0, 0, 2:].eq(0).all()


def test_recordings_do_not_see_each_other() -> None:
    conditioner, embedding = scene_graph(), nodes(3, 2)
    both = conditioner.bind(embedding, unroll=2).unrolled
    assert embedding.tokens is not None and embedding.tokens_bias is not None
    alone = Embedding(tokens=embedding.tokens[:, 1:], tokens_bias=embedding.tokens_bias[:, 1:])
    torch.testing.assert_close(conditioner.bind(alone, unroll=2).unrolled, both[:, 1:])


def test_repeated_embeddings() -> None:
    """As a guide repeats those of one look for all segments."""
    conditioner, embedding = scene_graph(), nodes(3, 2)
    torch.testing.assert_close(
        conditioner.bind(embedding.repeat(2)).unrolled, conditioner.bind(embedding).unrolled.repeat(2, 1, 1, 1)
    )


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float64])
def test_other_precisions(half: torch.dtype) -> None:
    """Of the whole module; under autocast the graph stays in full precision."""
    conditioner, embedding = scene_graph(), nodes(3, 1)
    assert embedding.tokens is not None
    wanted = conditioner.bind(embedding, unroll=2).unrolled
    with torch.autocast("cpu", torch.bfloat16):
        mixed = conditioner.bind(embedding, unroll=2)
    assert mixed.pooled.dtype == torch.float32
    torch.testing.assert_close(mixed.unrolled.float(), wanted, atol=0.05, rtol=0.05)
    embedding.tokens = embedding.tokens.to(half)
    other = conditioner.to(half).bind(embedding, unroll=2).unrolled
    assert other.dtype == half
    torch.testing.assert_close(other.float(), wanted, atol=0.05, rtol=0.05)


def test_state_survives_saving() -> None:
    one, other, embedding = scene_graph().train(), scene_graph(), nodes(3, 2)
    one.bind(embedding)  # moves the statistics of batch norms
    other.load_state_dict(one.state_dict())
    torch.testing.assert_close(other.eval().pool(embedding), one.eval().pool(embedding))


def test_published_sizes() -> None:
    conditioner = SceneGraph(views={"tokens": 512}, sites={"bottleneck": Site("bottleneck", 512)})
    assert sum(p.numel() for p in conditioner.rnn.parameters()) == 1_575_936
    assert dict(conditioner.widths()) == {"bottleneck": 1024}
    assert {name.split(".")[0] for name in conditioner.state_dict()} == {"graph", "rnn"}


def test_embeddings_without_the_view() -> None:
    with pytest.raises(ValueError, match="needs an embedding with tokens, one per node"):
        scene_graph().bind(Embedding(vector=torch.zeros(1, 2, 6)))
    with pytest.raises(ValueError, match="needs an embedding with a vector"):
        unroller().bind(nodes(2))


def test_orthogonality_by_hand() -> None:
    """The mean over recordings and earlier sounds before squaring: opposite cosines cancel."""
    half = math.sqrt(0.5)
    first = torch.tensor([[1.0, 0.0], [half, half], [0.0, 2.0]])
    cosines = [half, (0 + half) / 2]
    assert orthogonality_loss(first[None]).item() == pytest.approx(sum(c**2 for c in cosines))
    mirrored = first * torch.tensor([[1.0, 1.0], [-1.0, -1.0], [1.0, 1.0]])
    assert orthogonality_loss(torch.stack((first, mirrored))[:, :2]).item() == pytest.approx(0, abs=1e-12)
    assert orthogonality_loss(first[None, :1]).item() == 0


def test_orthogonality_of_nothing_is_finite() -> None:
    zeros = torch.zeros(2, 3, 4, requires_grad=True)
    loss = orthogonality_loss(zeros)
    loss.backward()
    assert loss.item() == 0 and zeros.grad is not None and torch.isfinite(zeros.grad).all()


def test_a_digested_embedding_binds_as_the_embedding_itself() -> None:
    """The graph and the recurrent network run once, however often the recording is repeated."""
    conditioner, embedding = scene_graph(), nodes(3, 1)
    alone = conditioner.bind(embedding)
    calls: list[int] = []
    conditioner.rnn.register_forward_hook(lambda *_: calls.append(1))
    digested = conditioner.digest(embedding)
    repeated = conditioner.bind(digested.repeat(4))
    assert len(calls) == 1 and repeated.sources == alone.sources
    torch.testing.assert_close(repeated.unrolled, alone.unrolled.expand(4, -1, -1, -1), rtol=0, atol=0)
    features = torch.randn(4, 5, 2, 3)
    wanted = conditioner.bind(embedding.repeat(4))("bottleneck", features)
    torch.testing.assert_close(repeated("bottleneck", features), wanted)
