"""Losses of magnitudes, waveforms and vectors against their formulas, written in NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from avsep_bimodal_sep.losses import alignment_loss, contrastive_loss, signal_ratio, spectral_loss


def vectors(count: int, width: int = 6) -> Tensor:
    return F.normalize(torch.randn(count, width), dim=-1)


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(axis=1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("distance", ["l1", "l2"])
@pytest.mark.parametrize("weighed", ["mixture", "recordings", "none"])
def test_spectral_loss(distance: Any, weighed: str) -> None:
    """One number per recording: the mean over mixtures and points, with weights from 0.001 to 10."""
    estimates, targets = 5 * torch.rand(2, 3, 4, 5), 5 * torch.rand(2, 3, 4, 5)
    mixture = torch.tensor([0.0, 1e-5, 1.0, 1e6]).expand(2, 1, 5, 4).transpose(2, 3)
    by = {"mixture": mixture, "recordings": targets, "none": None}[weighed]
    weight = np.ones(1) if by is None else np.clip(np.log1p(by.numpy()), 1e-3, 10)
    apart = np.abs(estimates.numpy() - targets.numpy()) ** (2 if distance == "l2" else 1)
    expected = (weight * apart).mean(axis=(0, 2, 3))
    torch.testing.assert_close(
        spectral_loss(estimates, targets, by, distance=distance), torch.from_numpy(expected).float()
    )


def test_ratio_of_a_known_error() -> None:
    """10 dB where the error has a tenth of the energy; other levels and offsets are errors, too."""
    target = torch.ones(1000)
    error = 10**-0.5 * (2.0 * (torch.arange(1000) % 2) - 1)
    assert signal_ratio(target + error, target, most=200.0).item() == pytest.approx(10.0, abs=1e-4)
    assert signal_ratio(0.5 * target, target, most=200.0).item() == pytest.approx(6.0206, abs=1e-3)
    assert signal_ratio(target + error, target, most=10.0).item() == pytest.approx(-10 * math.log10(0.2), abs=1e-4)


def test_no_ratio_is_above_the_limit() -> None:
    target = torch.randn(2, 3, 500)
    torch.testing.assert_close(signal_ratio(target, target, most=30.0), torch.full((2, 3), 30.0))


@pytest.mark.parametrize(("estimate", "target"), [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)])
def test_silence_is_finite(estimate: float, target: float) -> None:
    """So is the gradient, and a louder estimate of silence is worse."""
    wave = (estimate * torch.randn(100)).requires_grad_()
    ratio = signal_ratio(wave, target * torch.randn(100), most=30.0)
    ratio.backward()
    assert ratio.isfinite() and wave.grad is not None and wave.grad.isfinite().all()
    assert signal_ratio(0.1 * wave, torch.zeros(100), most=30.0) >= signal_ratio(wave, torch.zeros(100), most=30.0)


@pytest.mark.parametrize("scale", [1.0, 1 / 0.07, torch.tensor(3.0)])
def test_sounds_choose_among_texts(scale: Any) -> None:
    """And not the other way round."""
    sounds, texts = vectors(4), vectors(4)
    likely = log_softmax(float(scale) * sounds.numpy() @ texts.numpy().T)
    assert contrastive_loss(sounds, texts, scale=scale).item() == pytest.approx(-np.diag(likely).mean(), abs=1e-5)
    assert contrastive_loss(texts, sounds, scale=scale).item() != pytest.approx(-np.diag(likely).mean(), abs=1e-3)


def test_texts_that_mean_the_same_are_no_wrong_answers() -> None:
    """Two phrases for one thing: a sound of it costs log 2 if one of them is wrong, and nothing if it is not."""
    one, other = torch.eye(3)[0], torch.eye(3)[1]
    same, sounds = torch.stack((one, one, other)), torch.stack((one, one, other))
    hard, soft = (contrastive_loss(sounds, same, scale=100.0, soft=soft).item() for soft in (False, True))
    assert hard == pytest.approx(2 / 3 * math.log(2), abs=1e-5)
    assert soft == pytest.approx(2 / 3 * math.log(2), abs=1e-5)  # the entropy of what is right
    torn = torch.stack((one, F.normalize(one + other, dim=0), other)).requires_grad_()
    for soft in (False, True):
        (gradient,) = torch.autograd.grad(contrastive_loss(torn, same, scale=1.0, soft=soft), torn)
        likely = np.exp(log_softmax((torn @ same.T).detach().numpy()))
        right = np.exp(log_softmax((same @ same.T).numpy())) if soft else np.eye(3)
        torch.testing.assert_close(gradient, torch.from_numpy((likely - right) @ same.numpy() / 3).float())


def test_soft_targets_teach_no_texts() -> None:
    """The gradient of texts is that of being chosen alone."""
    sounds, texts = vectors(4), vectors(4).requires_grad_()
    right = torch.softmax(2.0 * texts.detach() @ texts.detach().T, dim=1)
    (soft,) = torch.autograd.grad(contrastive_loss(sounds, texts, scale=2.0, soft=True), texts)
    (expected,) = torch.autograd.grad(F.cross_entropy(2.0 * sounds @ texts.T, right), texts)
    torch.testing.assert_close(soft, expected)


def test_cosines_in_half_precision() -> None:
    """Large scales need all digits."""
    sounds, texts = vectors(8), vectors(8)
    label = torch.arange(8) % 3
    exact = [contrastive_loss(sounds, texts, scale=100.0), alignment_loss(sounds, texts, label, scale=100.0)]
    with torch.autocast("cpu", torch.bfloat16):
        half = [contrastive_loss(sounds, texts, scale=100.0), alignment_loss(sounds, texts, label, scale=100.0)]
    torch.testing.assert_close(half, exact)


def test_alignment_goes_both_ways() -> None:
    """All sounds of a class are right for its texts."""
    sounds, texts, label = vectors(4), vectors(4), torch.tensor([0, 1, 0, 2])
    logits = 3.0 * sounds.numpy() @ texts.numpy().T
    same = (label[:, None] == label).numpy()
    right = same / same.sum(axis=1, keepdims=True)
    each = [-(right * log_softmax(x)).sum(axis=1).mean() for x in (logits, logits.T)]
    assert alignment_loss(sounds, texts, label, scale=3.0).item() == pytest.approx(sum(each) / 2, abs=1e-5)
