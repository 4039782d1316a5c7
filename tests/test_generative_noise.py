"""Noise that belongs to a place in a recording."""

from __future__ import annotations

import pytest
import torch

from avsep_zoo.generative.noise import Sampling, noise_at


def test_windows_see_the_same_noise_where_they_overlap() -> None:
    whole = noise_at(0, 8, 300, seed=3, source=0, draw=0)
    for start, columns in ((0, 64), (1, 1), (63, 2), (130, 170)):
        window = noise_at(start, 8, columns, seed=3, source=0, draw=0)
        torch.testing.assert_close(window, whole[:, start : start + columns], atol=0, rtol=0)


def test_a_window_may_begin_before_the_recording() -> None:
    early = noise_at(-70, 8, 100, seed=3, source=0, draw=0)
    torch.testing.assert_close(early[:, 70:], noise_at(0, 8, 30, seed=3, source=0, draw=0), atol=0, rtol=0)
    assert early.unique().numel() == early.numel()


def test_seed_source_draw_and_place_each_change_all_of_it() -> None:
    base = noise_at(0, 16, 64, seed=0, source=0, draw=0)
    others = [
        noise_at(0, 16, 64, seed=1, source=0, draw=0),
        noise_at(0, 16, 64, seed=2**40, source=0, draw=0),
        noise_at(0, 16, 64, seed=0, source=1, draw=0),
        noise_at(0, 16, 64, seed=0, source=0, draw=1),
        noise_at(64, 16, 64, seed=0, source=0, draw=0),
    ]
    assert torch.stack([base, *others]).unique().numel() == 6 * 16 * 64


def test_it_is_standard_normal() -> None:
    noise = noise_at(0, 64, 1024, seed=0, source=0, draw=0)
    assert abs(float(noise.mean())) < 0.02
    assert abs(float(noise.std()) - 1) < 0.02
    assert float(torch.corrcoef(noise[:2])[0, 1].abs()) < 0.1
    assert noise.dtype == torch.float32


def test_other_generators_stay_where_they_are() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    noise_at(0, 4, 10, seed=0, source=0, draw=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_negative_seed() -> None:
    with pytest.raises(ValueError, match="seed is -1; give a whole number from 0 on"):
        Sampling(seed=-1)
