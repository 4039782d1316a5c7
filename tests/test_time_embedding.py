"""The embedding of a time."""

from __future__ import annotations

import math

import pytest
import torch

from avsep_zoo.blocks.time_embedding import TimeEmbedding, sinusoids


def test_sines_then_cosines() -> None:
    """Of frequencies from 1 down to 1 / 10000."""
    waves = sinusoids(torch.tensor([0.0, 3.0, 999.0]), 8)
    assert waves.shape == (3, 8)
    assert waves[0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    for k in range(4):
        angle = 3.0 * 10000.0 ** (-k / 3)
        assert float(waves[1, k]) == pytest.approx(math.sin(angle), abs=1e-5)
        assert float(waves[1, 4 + k]) == pytest.approx(math.cos(angle), abs=1e-5)


def test_steps_and_real_times_are_the_same() -> None:
    embedding = TimeEmbedding(8, 6)
    torch.testing.assert_close(embedding(torch.tensor([500])), embedding(torch.tensor([500.0], dtype=torch.float64)))


def test_it_answers_in_the_type_of_its_parameters() -> None:
    embedding = TimeEmbedding(8, 6)
    exact = embedding(torch.tensor([700]))
    half = embedding.to(torch.bfloat16)(torch.tensor([700]))
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), exact, atol=0.03, rtol=0.03)


@pytest.mark.parametrize("sines", [7, 2])
def test_widths_without_two_frequencies(sines: int) -> None:
    with pytest.raises(ValueError, match=f"has {sines} sinusoids; give an even number of at least 4"):
        TimeEmbedding(sines, 8)
