"""Resampling: length and phase of what comes out."""

from __future__ import annotations

import numpy as np
import pytest

from avsep_zoo.media import resample


@pytest.mark.parametrize(("old", "new"), [(44100, 11025), (8000, 44100), (48000, 44100), (8000, 8000)])
def test_resampling_keeps_a_tone_and_gives_the_length_it_says(old: int, new: int) -> None:
    n = old + 7
    x = np.sin(2 * np.pi * 1000 * np.arange(n) / old).astype(np.float32)[None].repeat(2, axis=0)
    y = resample(x, old, new)
    assert y.shape == (2, -(-n * new // old)) and y.dtype == np.float32
    middle = slice(new // 4, new // 2)
    expected = np.sin(2 * np.pi * 1000 * np.arange(y.shape[1]) / new)
    np.testing.assert_allclose(y[1, middle], expected[middle], atol=1e-3)
    assert resample(y, new, old).shape[1] >= n
    assert resample(x[:, :1], old, new).shape == (2, -(-new // old))
