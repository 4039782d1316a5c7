"""Class queries: which one answers, what it reads, what does not change its answer."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from avsep_iquery.conditioner import QueryConditioner, _positions_1d, _positions_2d
from avsep_zoo.contracts import Embedding, Site

SITES = {"latent": Site("latent", 16), "head": Site("head", 8)}


def conditioner(tokens: int = 0, **settings: Any) -> QueryConditioner:
    views = {"vector": 5, "index": 4} | ({"tokens": tokens} if tokens else {})
    small = {"queries": 4, "heads": 2, "feedforward": 32, "decoder_layers": 3}
    views |= settings.pop("views", {})
    return QueryConditioner(views=views, sites=SITES, **(small | settings)).eval()


def embedding(batch: int = 2, sources: int = 3, **views: Tensor) -> Embedding:
    index = torch.arange(batch * sources).reshape(batch, sources) % 4
    return Embedding(**{"vector": torch.rand(batch, sources, 5), "index": index, **views})


def answer(module: QueryConditioner, cue: Embedding, latent: Tensor, features: Tensor) -> Tensor:
    bound = module.bind(cue)
    assert bound("latent", latent) is latent
    return bound("head", features)


@torch.no_grad()
def test_sources_do_not_see_each_other() -> None:
    """N sources at once give what N calls give."""
    module, cue = conditioner(), embedding()
    latent, features = torch.randn(2, 16, 3, 4), torch.randn(2, 8, 6, 7)
    together = answer(module, cue, latent, features).reshape(2, 3, 6, 7)
    for n in range(3):
        one = Embedding(vector=cue.vector[:, n : n + 1], index=cue.index[:, n : n + 1])
        torch.testing.assert_close(answer(module, one, latent, features)[:, 0], together[:, n])


@torch.no_grad()
def test_mask_is_the_product_of_mask_embedding_and_features() -> None:
    module, cue = conditioner(), embedding(batch=1, sources=1)
    latent, features = torch.randn(1, 16, 3, 4), torch.randn(1, 8, 6, 7)
    states = module.read(latent, cue)
    assert states.layers.shape == (3, 1, 4, 16) and states.memory.shape == latent.shape
    mask = torch.einsum("k,kft->ft", module.mask_embed(states.layers[-1, 0, 0]), features[0])
    torch.testing.assert_close(answer(module, cue, latent, features)[0, 0], mask)


def test_unknown_classes_ask_the_last_query() -> None:
    module = conditioner()
    assert module.wanted(embedding(index=torch.tensor([[-1, 2, 0], [1, -1, 3]]))).tolist() == [3, 2, 0, 1, 3, 3]
    assert module.wanted(Embedding(vector=torch.rand(2, 1, 5))).tolist() == [3, 3]


@torch.no_grad()
def test_the_answer_follows_class_vector_and_sound() -> None:
    module, cue = conditioner(), embedding(batch=1, sources=1)
    latent, features = torch.randn(1, 16, 3, 4), torch.randn(1, 8, 6, 7)
    first = answer(module, cue, latent, features)
    other = Embedding(vector=cue.vector, index=cue.index + 1)
    assert not torch.allclose(answer(module, other, latent, features), first)
    assert not torch.allclose(answer(module, Embedding(cue.vector + 1, index=cue.index), latent, features), first)
    assert not torch.allclose(answer(module, cue, latent * 2, features), first)


@torch.no_grad()
def test_masked_motion_steps_do_not_count_and_added_ones_do() -> None:
    module, tokens = conditioner(tokens=6), torch.randn(2, 3, 5, 6)
    latent, features = torch.randn(2, 16, 3, 4), torch.randn(2, 8, 6, 7)
    vector = torch.rand(2, 3, 5)

    def run(tokens: Tensor, bias: Tensor | None) -> Tensor:
        return answer(module, embedding(vector=vector, tokens=tokens, tokens_bias=bias), latent, features)

    bias = torch.zeros(2, 3, 5)
    bias[..., 3:] = -torch.inf
    short = run(tokens[:, :, :3], None)
    torch.testing.assert_close(run(tokens, bias), short)
    bias[..., 3:] = 1.0
    assert not torch.allclose(run(tokens, bias), short)
    torch.testing.assert_close(run(tokens, torch.zeros(2, 3, 5)), run(tokens, None))


def test_gradients_reach_every_parameter() -> None:
    module = conditioner(tokens=6)
    cue = embedding(tokens=torch.randn(2, 3, 5, 6))
    answer(module, cue, torch.randn(2, 16, 3, 4), torch.randn(2, 8, 6, 7)).square().sum().backward()
    assert [name for name, p in module.named_parameters() if p.grad is None] == []


def test_positions_of_the_map() -> None:
    """Spec formula, entry by entry."""
    height, width, channels = 2, 3, 8
    got = _positions_2d(torch.zeros(1, channels, height, width)).reshape(height, width, channels)
    for i in range(height):
        for j in range(width):
            for k in range(channels):
                place = (i + 1) / (height + 1e-6) if k < 4 else (j + 1) / (width + 1e-6)
                angle = 2 * math.pi * place / 10000 ** (2 * (k % 4 // 2) / 4)
                wanted = math.sin(angle) if k % 2 == 0 else math.cos(angle)
                assert float(got[i, j, k]) == pytest.approx(wanted, abs=1e-5)


def test_positions_of_tokens() -> None:
    got = _positions_1d(torch.zeros(1, 3, 6))
    for t in range(3):
        for k in range(6):
            angle = t * math.exp(-(k - k % 2) * math.log(10000) / 6)
            assert float(got[t, k]) == pytest.approx(math.sin(angle) if k % 2 == 0 else math.cos(angle), abs=1e-6)


def test_what_cannot_work() -> None:
    with pytest.raises(ValueError, match="heads"):
        conditioner(heads=3)
    with pytest.raises(ValueError, match="vector"):
        conditioner().read(torch.zeros(1, 16, 2, 2), Embedding(index=torch.zeros(1, 1, dtype=torch.long)))
    with pytest.raises(ValueError, match="tokens"):
        conditioner(tokens=6).read(torch.zeros(2, 16, 2, 2), embedding())
    with pytest.raises(ValueError, match="latent"):
        conditioner().bind(embedding())("head", torch.zeros(2, 8, 6, 7))


def test_plan_says_what_is_built() -> None:
    module = conditioner()
    plan = QueryConditioner.plan(views={"vector": 5}, sites=SITES, queries=4)
    assert plan.widths == module.widths() == {"head": 1}
    assert plan.wants == module.wants and plan.acts_at == module.acts_at


@torch.no_grad()
def test_earlier_queries_never_see_added_ones() -> None:
    """Groups of 2 and 1 behind 4 queries: a change of a row changes its own group and later ones only."""
    module = conditioner(added=[2, 1], views={"vector": 5, "index": 7})
    cue, latent = embedding(index=torch.tensor([[0, 5, 6], [6, -1, 4]])), torch.randn(2, 16, 3, 4)
    before = module.read(latent, cue).layers
    assert before.shape == (3, 6, 7, 16)
    for row, same in ((1, 0), (4, 4), (6, 6)):
        module.query_embed.weight[row] += 1.0
        after = module.read(latent, cue).layers
        assert torch.equal(after[:, :, :same], before[:, :, :same])
        changed = (after != before).flatten(0, 1)[:, same:].any(dim=-1).any(dim=0)
        assert changed.all()
        before = after


@torch.no_grad()
def test_original_queries_answer_as_if_none_were_added() -> None:
    """Every bit, whatever the other sources ask for."""
    module, more = conditioner(tokens=6), conditioner(tokens=6, added=[1, 2], views={"vector": 5, "index": 7})
    state = module.state_dict()
    more.load_state_dict({**state, "query_embed.weight": torch.cat((state["query_embed.weight"], torch.randn(3, 16)))})
    latent, tokens, vector = torch.randn(2, 16, 3, 4), torch.randn(2, 3, 5, 6), torch.rand(2, 3, 5)
    first = module.read(latent, embedding(index=torch.tensor([[0, 1, 2], [3, -1, 1]]), tokens=tokens, vector=vector))
    index = torch.tensor([[0, 4, 2], [3, -1, 6]])
    second = more.read(latent, embedding(index=index, tokens=tokens, vector=vector))
    kept = torch.tensor([True, False, True, True, True, False])
    assert torch.equal(second.layers[:, kept, :4], first.layers[:, kept])
    assert more.wanted(embedding(index=index)).tolist() == [0, 4, 2, 3, 3, 6]


@torch.no_grad()
def test_freezing_moves_no_bit() -> None:
    module, cue = conditioner(tokens=6, encoder_layers=2), embedding(tokens=torch.randn(2, 3, 5, 6))
    latent = torch.randn(2, 16, 3, 4)
    before = module.read(latent, cue).layers
    assert torch.equal(module.requires_grad_(False).read(latent, cue).layers, before)


@pytest.mark.parametrize(
    ("added", "index"), [([], 5), ([1], 4), ([1], 6), ([0], 4), ([2, -1], 5)], ids=lambda value: str(value)
)
def test_queries_that_do_not_fit_the_rows_of_the_encoder(added: list[int], index: int) -> None:
    with pytest.raises(ValueError, match=f"for the {index} rows the encoder counts"):
        conditioner(added=added, views={"vector": 5, "index": index})
