"""The ear: sounds to vectors, whatever their level, and back to the waveform."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from avsep_bimodal_sep.ear import Ear


@pytest.fixture
def ear() -> Ear:
    """One whose batch norms know some sounds."""
    ear = Ear(rate=8000, width=3, features=7)
    for _ in range(3):
        ear(torch.stack([tone(pitch) for pitch in (200, 500, 1100, 3000)]) + 0.01 * torch.randn(4, 4000))
    return ear.eval()


def tone(pitch: float, samples: int = 4000) -> torch.Tensor:
    return 0.1 * torch.sin(2 * np.pi * pitch / 8000 * torch.arange(samples))


def test_vectors_have_length_1_and_tell_sounds_apart(ear: Ear) -> None:
    heard = ear(torch.stack([tone(200), tone(2000)]))
    assert heard.shape == (2, 7) and torch.allclose(heard.norm(dim=1), torch.ones(2))
    assert (heard[0] - heard[1]).norm() > 0.01


def test_level_does_not_count(ear: Ear) -> None:
    sound = tone(700) + tone(1900)
    quiet, plain, loud = ear(torch.stack([1e-3 * sound, sound, 30 * sound]))
    torch.testing.assert_close(quiet, plain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loud, plain, rtol=1e-4, atol=1e-5)


def test_sounds_do_not_hear_each_other(ear: Ear) -> None:
    sounds = torch.stack([tone(200), tone(2000), tone(900)])
    torch.testing.assert_close(ear(sounds)[1:2], ear(sounds[1:2]))


def test_gradient_reaches_the_waveform(ear: Ear) -> None:
    """All of it, also in half precision."""
    for half in (False, True):
        sound = (tone(300) + 0.01 * torch.randn(4000))[None].requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            ear(sound)[0, 0].backward()
        assert sound.grad is not None and sound.grad.isfinite().all() and (sound.grad != 0).float().mean() > 0.99


@pytest.mark.parametrize("samples", [1, 100, 1024, 5000])
@pytest.mark.parametrize("level", [0.0, 1e-9, 1.0])
def test_short_and_silent_sounds(ear: Ear, samples: int, level: float) -> None:
    """Are heard as something, with a gradient that is finite."""
    sound = (level * torch.randn(2, samples)).requires_grad_()
    heard = ear(sound)
    heard[:, 0].sum().backward()
    assert heard.isfinite().all() and torch.allclose(heard.norm(dim=1), torch.ones(2))
    assert sound.grad is not None and sound.grad.isfinite().all()


def test_bands_cover_what_is_above_40_hertz(ear: Ear) -> None:
    """Each has a weight of 1, and no line of the spectrum from 60 Hz to 3900 Hz is left out."""
    torch.testing.assert_close(ear.bands.sum(dim=1)[20:], torch.ones(44))
    lines = torch.linspace(0, 4000, 513)
    heard = ear.bands.sum(dim=0) > 0
    assert heard[(lines > 60) & (lines < 3900)].all() and not heard[lines < 40].any()
