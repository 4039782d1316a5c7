"""Losses of waveforms, maps and sounds against their definitions, and weights of losses over steps."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from avsep_ial_cms.losses import artifact_ratio, correspondence_loss, interference_ratio, signal_ratio, stepped


def test_ratio_of_a_known_noise() -> None:
    """10 dB, for noise that has nothing to do with the target; how loud an estimate is does not count."""
    target, noise = torch.zeros(1000), torch.zeros(1000)
    target[::4], target[2::4], noise[1::4], noise[3::4] = 1.0, -1.0, 10**-0.5, -(10**-0.5)
    for gain in (1.0, 0.01, -3.0):
        ratio = signal_ratio(gain * (target + noise), target, most=math.inf)
        assert ratio.item() == pytest.approx(10.0, abs=1e-3)
    assert signal_ratio(target + noise, target).item() == pytest.approx(-10 * math.log10(0.1 + 1e-3), abs=1e-3)
    assert signal_ratio(target + noise, target, most=math.inf, scaled=False).item() == pytest.approx(10.0, abs=1e-3)
    quiet = signal_ratio(0.5 * (target + noise), target, most=math.inf, scaled=False)
    assert quiet.item() == pytest.approx(10 * math.log10(1 / (0.25 + 0.025)), abs=1e-3)


@pytest.mark.parametrize("most", [30.0, 5.0])
def test_no_estimate_is_above_the_limit(most: float) -> None:
    target = torch.randn(2, 3, 500)
    torch.testing.assert_close(signal_ratio(target, target, most=most), torch.full((2, 3), most), rtol=0, atol=1e-3)
    assert (signal_ratio(target, target, most=math.inf) > 60).all()


def test_means_do_not_count() -> None:
    target, estimate = torch.randn(2, 200)
    torch.testing.assert_close(signal_ratio(estimate + 3, target - 5), signal_ratio(estimate, target))


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize(("estimate", "target"), [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)])
def test_silence_is_finite(estimate: float, target: float, scaled: bool) -> None:
    """Of the estimate, the target or both; so is the gradient."""
    wave = (estimate * torch.randn(100)).requires_grad_()
    ratio = signal_ratio(wave, target * torch.randn(100), scaled=scaled)
    ratio.backward()
    assert ratio.isfinite() and wave.grad is not None and wave.grad.isfinite().all()


def by_hand(maps: Tensor, heard: Tensor, temperature: float, discarded: int) -> float:
    """The contrast as it is defined, pair by pair."""
    count = len(maps)
    likely = torch.zeros(count, count)
    for i in range(count):
        for j in range(count):
            cosines = F.cosine_similarity(maps[i].flatten(1), heard[j][:, None], dim=0)
            likely[i, j] = math.exp(cosines.max().item() / temperature)
    total = 0.0
    for table in (likely, likely.T):
        for i in range(count):
            others = sorted((table[i, j].item() for j in range(count) if j != i), reverse=True)[discarded:]
            total -= math.log(table[i, i].item() / (table[i, i].item() + sum(others))) / (2 * count)
    return total


@pytest.mark.parametrize(("count", "discarded", "temperature"), [(9, 6, 0.3), (5, 0, 0.3), (6, 2, 1.0)])
def test_correspondence_is_what_it_says(count: int, discarded: int, temperature: float) -> None:
    maps, heard = torch.randn(count, 8, 3, 4), torch.randn(count, 8)
    loss = correspondence_loss(maps, heard, temperature=temperature, discarded=discarded)
    assert loss.item() == pytest.approx(by_hand(maps, heard, temperature, discarded), rel=1e-4)


@pytest.mark.parametrize("count", [1, 2, 6, 7])
def test_nothing_is_contrasted_in_a_small_batch(count: int) -> None:
    maps = torch.randn(count, 8, 3, 3, requires_grad=True)
    loss = correspondence_loss(maps, torch.randn(count, 8))
    loss.backward()
    assert abs(loss.item()) < 1e-6
    assert maps.grad is not None and maps.grad.abs().max() < 1e-6


def test_correspondence_pulls_an_object_to_its_sound() -> None:
    """Its own place in the map becomes like it; where nothing is, nothing can be not a number."""
    maps, heard = torch.randn(10, 8, 2, 2).requires_grad_(), torch.randn(10, 8)
    before = correspondence_loss(maps, heard)
    (gradient,) = torch.autograd.grad(before, maps)
    assert correspondence_loss(maps - 0.5 * gradient / gradient.abs().max(), heard) < before
    empty = torch.zeros(10, 8, 2, 2, requires_grad=True)
    correspondence_loss(empty, torch.zeros(10, 8)).backward()
    assert empty.grad is not None and empty.grad.isfinite().all()


def test_interference_is_what_it_says() -> None:
    """Shares of the other estimates, with the cap of 30 dB; pair by pair."""
    waves = torch.randn(2, 3, 400) + torch.randn(2, 1, 400)
    centred = waves - waves.mean(dim=-1, keepdim=True)
    expected = torch.zeros(2, 3)
    for item in range(2):
        for k in range(3):
            own = centred[item, k]
            others = [centred[item, other] for other in range(3) if other != k]
            shares = sum((own @ other) ** 2 / other.square().sum() for other in others)
            power = own @ own
            expected[item, k] = 10 * torch.log10(power / (shares + 1e-3 * power))
    torch.testing.assert_close(interference_ratio(waves), expected, rtol=1e-4, atol=1e-3)


def test_interference_of_special_estimates() -> None:
    """30 dB where there is none, about 0 dB for the same sound twice, finite for silence."""
    time = torch.arange(1000) / 1000
    tones = torch.stack([torch.sin(2 * torch.pi * f * time) for f in (5, 11)])
    assert interference_ratio(tones).tolist() == pytest.approx([30.0, 30.0], abs=0.1)
    assert interference_ratio(tones[:1].repeat(2, 1)).tolist() == pytest.approx([0.0, 0.0], abs=0.01)
    assert interference_ratio(tones[:1]).tolist() == pytest.approx([30.0], abs=0.1)
    assert interference_ratio(torch.zeros(2, 100)).isfinite().all()


def test_artifacts_are_what_it_says() -> None:
    estimate, target = torch.randn(2, 3, 400)
    power, rest = target.var(dim=-1, correction=0), (estimate - target).var(dim=-1, correction=0)
    torch.testing.assert_close(artifact_ratio(estimate, target), 10 * torch.log10(power / (rest + 1e-3 * power)))
    assert artifact_ratio(target, target).tolist() == pytest.approx([30.0] * 3, abs=1e-3)
    assert artifact_ratio(torch.zeros(10), torch.zeros(10)).isfinite()


def test_autocast_changes_nothing() -> None:
    """Sums of products are in float32, which half precision would change in the third digit."""
    waves, maps, heard = torch.randn(2, 4, 3000), torch.randn(9, 16, 4, 4), torch.randn(9, 16)

    def values() -> list[Tensor]:
        return [
            signal_ratio(waves[0], waves[1]),
            interference_ratio(waves),
            artifact_ratio(waves[0], waves[1]),
            correspondence_loss(maps, heard),
        ]

    plain = values()
    with torch.autocast("cpu", torch.bfloat16):
        assert all(torch.equal(one, other) for one, other in zip(plain, values(), strict=True))
    assert correspondence_loss(maps.bfloat16(), heard.bfloat16()).dtype == torch.float32


def test_weights_grow_after_their_steps() -> None:
    """Ten times after each milestone; the step of the milestone itself still has the smaller weight."""
    steps = (4, 8)
    assert [stepped(5.0, steps, count) for count in (0, 4)] == pytest.approx([0.05, 0.05])
    assert [stepped(5.0, steps, count) for count in (5, 8)] == pytest.approx([0.5, 0.5])
    assert [stepped(5.0, steps, count) for count in (9, 10**9)] == [5.0, 5.0]
    assert stepped(5.0, (), 0) == 5.0
    assert stepped(5.0, (0,), 0) == pytest.approx(0.5)
