"""CLAP's spectrogram in torch."""

from __future__ import annotations

import numpy as np
import torch

from avsep_bimodal_sep.log_mel import LogMel


def noise(*shape: int) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_it_is_that_of_transformers() -> None:
    """Of the feature extractor with LAION's settings."""
    from transformers import ClapFeatureExtractor

    extractor = ClapFeatureExtractor(
        frequency_min=50, frequency_max=14000, truncation="rand_trunc", padding="repeatpad"
    )
    sound = noise(480000)
    theirs = extractor(sound.numpy(), sampling_rate=48000, return_tensors="pt")["input_features"]
    ours = LogMel()(sound[None])
    assert ours.shape == (1, 1, 1001, 64)
    assert torch.allclose(ours, theirs.float(), atol=1e-3)


def test_bands() -> None:
    """Slaney's scale and norm."""
    from transformers.audio_utils import mel_filter_bank

    bands = mel_filter_bank(513, 64, 50, 14000, 48000, norm="slaney", mel_scale="slaney")
    assert np.allclose(LogMel().mel, bands, atol=1e-7)


def test_silence_is_at_the_floor() -> None:
    """And its gradient is zero, not NaN."""
    sound = torch.zeros(1, 4800, requires_grad=True)
    bands = LogMel()(sound)
    assert torch.equal(bands, torch.full((1, 1, 11, 64), -100.0))
    bands.sum().backward()
    assert sound.grad is not None and torch.equal(sound.grad, torch.zeros(1, 4800))


def test_gradient_reaches_every_sample() -> None:
    sound = noise(2, 4800).requires_grad_()
    LogMel()(sound).mean().backward()
    assert sound.grad is not None and sound.grad.isfinite().all() and (sound.grad != 0).float().mean() > 0.99


def test_it_is_computed_in_float32() -> None:
    """Also where training runs in bfloat16."""
    sound, log_mel = noise(1, 4800), LogMel()
    wanted = log_mel(sound)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(log_mel(sound), wanted)
    assert torch.allclose(LogMel().bfloat16()(sound), wanted, atol=0.2)


def test_nothing_of_it_is_saved() -> None:
    assert not LogMel().state_dict()
