"""The resampler before CLAP."""

from __future__ import annotations

import math

import pytest
import soxr
import torch

from avsep_bimodal_sep.resample import resample


def tone(rate: int, hertz: float, samples: int) -> torch.Tensor:
    return torch.sin(2 * math.pi * hertz * torch.arange(samples, dtype=torch.float64) / rate)[None].float()


@pytest.mark.parametrize(
    ("old", "new"), [(16000, 48000), (48000, 16000), (11025, 48000), (44100, 48000), (8000, 16000)]
)
def test_a_tone_stays_a_tone(old: int, new: int) -> None:
    """Of the same frequency, phase and level, away from the ends."""
    got = resample(tone(old, 1000, old // 4), old, new)
    wanted = tone(new, 1000, got.shape[1])
    assert (got - wanted)[:, new // 50 : -new // 50].abs().max() < 5e-3


def test_what_the_lower_rate_cannot_hold_is_gone() -> None:
    """A tone above its Nyquist frequency, and as much of noise as soxr takes away."""
    assert resample(tone(48000, 11000, 48000), 48000, 16000)[:, 200:-200].abs().max() < 0.01
    noise = torch.randn(1, 48000, generator=torch.Generator().manual_seed(0))
    ours, soxrs = resample(noise, 48000, 16000), soxr.resample(noise[0].numpy(), 48000, 16000)
    assert float(ours.std()) == pytest.approx(soxrs.std(), rel=0.03)


@pytest.mark.parametrize("length", [1, 2, 3, 7, 1000])
def test_lengths_are_rounded_up(length: int) -> None:
    waveforms = torch.randn(2, length)
    assert resample(waveforms, 16000, 48000).shape == (2, 3 * length)
    assert resample(waveforms, 48000, 16000).shape == (2, -(-length // 3))
    assert resample(waveforms, 44100, 48000).shape == (2, math.ceil(length * 160 / 147))


def test_the_same_rate_changes_nothing() -> None:
    waveforms = torch.randn(2, 10)
    assert resample(waveforms, 16000, 16000) is waveforms


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient(dtype: torch.dtype) -> None:
    """It is linear: the gradient is the adjoint."""
    x = torch.randn(2, 50, dtype=dtype, requires_grad=True)
    y = resample(x, 16000, 48000)
    assert y.dtype == dtype
    other = torch.randn_like(y)
    (gradient,) = torch.autograd.grad((y * other).sum(), x)
    assert torch.allclose((y * other).sum(), (x * gradient).sum(), rtol=1e-4)


def test_sounds_do_not_see_each_other() -> None:
    waveforms = torch.randn(3, 100)
    assert torch.allclose(resample(waveforms, 16000, 48000)[1:2], resample(waveforms[1:2], 16000, 48000), atol=1e-7)


def test_after_inference_mode() -> None:
    """The filter that was made there can be trained through."""
    with torch.inference_mode():
        resample(torch.randn(1, 50), 16000, 48040)
    x = torch.randn(1, 50, requires_grad=True)
    resample(x, 16000, 48040).sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()


@pytest.mark.parametrize(
    ("old", "new", "message"), [(44101, 48000, "share no large divisor"), (0, 48000, "at least 1")]
)
def test_rates_that_cannot_be(old: int, new: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resample(torch.zeros(1, 10), old, new)
