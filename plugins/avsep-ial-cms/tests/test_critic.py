"""The critic: what it scores, its spectral normalisation, and that it learns to tell pairs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from avsep_ial_cms.critic import PairCritic, critic_loss, independence_loss
from avsep_zoo.errors import CompositionError


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape).abs()


def test_scores_are_one_per_pair_of_any_size() -> None:
    critic = PairCritic(width=2)
    assert critic(noise(3, 2, 64, 70)).shape == (3, 1)
    assert critic.features(noise(1, 2, 129, 64)).shape == (1, 32)


def test_every_pair_is_scored_by_itself() -> None:
    critic, pairs = PairCritic(width=2).eval(), noise(3, 2, 64, 64)
    torch.testing.assert_close(critic(pairs), torch.cat([critic(pair[None]) for pair in pairs]))
    assert not torch.allclose(critic(pairs), critic(pairs.flip(1)))  # the order of a pair counts, as published


def test_spectrograms_that_are_too_small() -> None:
    with pytest.raises(CompositionError, match="64 x 64 points or more and the model gives 64 x 63; change length"):
        PairCritic(width=2)(noise(1, 2, 64, 63))


def test_weights_have_a_largest_singular_value_of_one() -> None:
    """After some calls, however large they are; before, it may be larger."""
    critic = PairCritic(width=2)
    with torch.no_grad():
        for module in (*critic.convolutions, *critic.layers):
            module.weight.mul_(50.0)
        for _ in range(100):
            critic(noise(1, 2, 64, 64))
    for module in (*critic.convolutions, *critic.layers):
        largest = torch.linalg.svdvals(module.normalised().flatten(1))[0].item()
        assert largest == pytest.approx(1.0, abs=0.02)


def test_power_iteration_runs_in_training_alone() -> None:
    critic, pairs = PairCritic(width=2).eval(), noise(1, 2, 64, 64)
    before = {name: value.clone() for name, value in critic.named_buffers()}
    assert len(before) == 16
    critic(pairs)
    assert all(torch.equal(value, before[name]) for name, value in critic.named_buffers())
    critic.train()(pairs)
    assert not any(torch.equal(value, before[name]) for name, value in critic.named_buffers())


def test_spectral_norm_is_that_of_torch() -> None:
    """Outputs and gradients of two calls before one backward pass."""
    own: Any = PairCritic(width=2).layers[1]
    other: Any = nn.utils.spectral_norm(nn.Linear(32, 32), eps=1e-12)
    with torch.no_grad():
        for name, value in (("weight_orig", own.weight), ("bias", own.bias), ("weight_u", own.left)):
            getattr(other, name).copy_(value)
        other.weight_v.copy_(own.right)
    given = torch.randn(2, 5, 32)
    results = []
    for module in (own, other):
        out = module(given[0]).square().sum() + module(given[1]).sum()
        out.backward()
        results.append(out)
    torch.testing.assert_close(results[0], results[1])
    torch.testing.assert_close(own.weight.grad, other.weight_orig.grad)
    torch.testing.assert_close((own.left, own.right), (other.weight_u, other.weight_v))


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_scores_are_float32_under_autocast(half: torch.dtype) -> None:
    """To the bit, also for singular values that the power iteration has not found yet."""
    critic, pairs = PairCritic(width=2).eval(), 1000 * noise(2, 2, 64, 64)
    with torch.autocast("cpu", half):
        scores, features = critic(pairs.to(half).float()), critic(pairs.to(half))
        loss = critic_loss(scores, scores, critic.score.weight)
    assert scores.dtype == features.dtype == loss.dtype == torch.float32
    assert torch.equal(scores, features) and torch.equal(scores, critic(pairs.to(half).float()))
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in critic.parameters())


def test_losses_by_hand() -> None:
    independent, dependent = torch.tensor([[2.0], [0.5]]), torch.tensor([[-3.0], [0.0], [0.5]])
    weight = torch.tensor([[3.0, 4.0]])
    hinges = (0 + 0.5) / 2 + (0 + 1 + 1.5) / 3
    assert critic_loss(independent, dependent, weight).item() == pytest.approx(25 + hinges)
    assert critic_loss(independent, dependent, weight, margin_weight=2.0).item() == pytest.approx(25 + 2 * hinges)
    assert independence_loss(independent, dependent).item() == pytest.approx(1.25 + 2.5 / 3)


def pairs_of(count: int, *, dependent: bool) -> Tensor:
    """Two sounds; dependent ones share a level out, so that one is quiet where the other is loud."""
    level = torch.rand(count, 2)
    if dependent:
        level[:, 1] = 1 - level[:, 0]
    return 100 * level[:, :, None, None].expand(-1, -1, 64, 64)


def test_critic_learns_to_tell_pairs() -> None:
    """Independent pairs of which it has seen none score higher than dependent ones."""
    critic = PairCritic(width=4)
    optimiser = torch.optim.Adam(critic.parameters(), 1e-3, betas=(0.0, 0.9))
    with torch.no_grad():
        for _ in range(20):
            critic(pairs_of(1, dependent=False))  # singular values are found first
    for _ in range(80):
        scores = critic(pairs_of(16, dependent=False)), critic(pairs_of(16, dependent=True))
        optimiser.zero_grad()
        critic_loss(*scores, torch.zeros(1)).backward()
        optimiser.step()
    critic.eval()
    with torch.no_grad():
        independent, dependent = critic(pairs_of(256, dependent=False)), critic(pairs_of(256, dependent=True))
    assert independent.mean() > dependent.mean() + 0.2
