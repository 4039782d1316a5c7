"""The STFT front end: exact ways back, the log-frequency warp against SciPy, level, and synthesis."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch import Tensor

from avsep_zoo.contracts import Estimate
from avsep_zoo.front_end import StftFrontEnd, warp_grid

TINY: dict[str, Any] = {"rate": 8000, "length": 8191, "n_fft": 254, "hop_length": 64, "warp_rows": 128}


def noise(*shape: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def smooth(rows: int, frames: int) -> Tensor:
    """A smooth mask (1, 1, rows, frames) in (0, 1): half a wave over frequency, two over time."""
    f = torch.linspace(0, 1, rows)[:, None]
    t = torch.linspace(0, 1, frames)[None]
    return (0.5 + 0.4 * torch.cos(torch.pi * f) * torch.sin(4 * torch.pi * t))[None, None]


def cosine_tone(hertz: float, front: StftFrontEnd) -> Tensor:
    return 0.3 * torch.cos(2 * torch.pi * hertz * torch.arange(front.length) / front.rate)[None]


@pytest.mark.parametrize("pad_mode", ["constant", "reflect"])
def test_istft_undoes_stft(pad_mode: Any) -> None:
    """To float precision, for any leading axes; without a length the last partial hop is lost."""
    front = StftFrontEnd(**TINY, pad_mode=pad_mode)
    waveform = noise(2, 3, front.length)
    spectrum = front.stft(waveform)
    assert spectrum.shape == (2, 3, front.frequency_rows, 1 + front.length // front.hop_length)
    whole = front.istft(spectrum, length=8190)
    torch.testing.assert_close(whole, waveform[..., :8190], atol=2e-6, rtol=0)
    assert front.istft(spectrum).shape == (2, 3, 127 * 64)


def test_stft_keeps_double_precision() -> None:
    """Gradients can be checked: nothing is rounded to float32 on the way."""
    front = StftFrontEnd(**TINY)
    waveform = noise(1, front.length).double()
    spectrum = front.stft(waveform)
    assert spectrum.dtype == torch.complex128
    error = (front.istft(spectrum, length=8190) - waveform[..., :8190]).abs().max()
    assert error < 1e-7  # the window itself is a float32 one


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("inverse", [True, False])
def test_warp_samples_where_scipy_does(align_corners: bool, inverse: bool) -> None:
    """The warp is bilinear interpolation at the rows of its grid, with zeros outside."""
    front = StftFrontEnd(**TINY, align_corners=align_corners)
    rows = front.warp_rows if inverse else front.frequency_rows
    image = noise(1, 1, rows, 40)
    warped = (front.unwarp if inverse else front.warp)(image)[0, 0].numpy()
    grid = warp_grid(warped.shape[0], 40, inverse=inverse).numpy()  # (rows', 40, 2)
    if align_corners:
        x, y = (grid[..., 0] + 1) / 2 * 39, (grid[..., 1] + 1) / 2 * (rows - 1)
    else:
        x, y = ((grid[..., 0] + 1) * 40 - 1) / 2, ((grid[..., 1] + 1) * rows - 1) / 2
    expected = map_coordinates(image[0, 0].numpy(), [y, x], order=1, mode="grid-constant", cval=0.0)
    np.testing.assert_allclose(warped, expected, atol=2e-5)


def test_warp_grids_are_inverse_to_each_other() -> None:
    """Going to the log axis and back lands on the same row, and both axes keep their ends."""
    there, back = warp_grid(257, 3)[:, 0, 1].double(), warp_grid(257, 3, inverse=True)[:, 0, 1].double()
    linear = torch.linspace(-1, 1, 257, dtype=torch.float64)
    composed = (21 ** ((back + 1) / 2) - 11) / 10
    torch.testing.assert_close(composed, linear, atol=1e-6, rtol=0)
    for grid in (there, back):
        torch.testing.assert_close(grid[[0, -1]], torch.tensor([-1.0, 1.0]).double(), atol=1e-6, rtol=0)
        assert (grid.diff() > 0).all()
    assert there[128] < 0 < back[128]  # the log axis spends more than half of its rows below half of the band


def test_a_smooth_mask_survives_the_warp() -> None:
    """Aligned corners bring it back everywhere; the published sampling halves the borders."""
    mask = smooth(128, 128)
    aligned = StftFrontEnd(**TINY, align_corners=True)
    error = (aligned.unwarp(aligned.warp(mask)) - mask).abs()
    assert error.max() < 0.01
    published = StftFrontEnd(**TINY, align_corners=False)
    ones = torch.ones(1, 1, 128, 128)
    result = published.unwarp(published.warp(ones))[0, 0]
    torch.testing.assert_close(result[2:-8, 2:-2], ones[0, 0, 2:-8, 2:-2])
    assert result[0, 64] == pytest.approx(0.25, abs=0.1)
    assert result[64, 0] == result[64, -1] == pytest.approx(0.25, abs=1e-4)  # half, there and back
    torch.testing.assert_close(aligned.unwarp(aligned.warp(ones)), ones, atol=1e-5, rtol=0)


def test_no_warp_leaves_everything_as_it_is() -> None:
    front = StftFrontEnd(**TINY | {"warp_rows": 0})
    spectrum = front.analyse(noise(2, front.length))
    torch.testing.assert_close(spectrum.warped, spectrum.magnitude, atol=1e-9, rtol=0)
    mask = torch.rand(2, 3, 128, 128)
    assert front.mask(Estimate(mask), spectrum) is mask
    np.testing.assert_allclose(front.row_frequencies(), np.linspace(0, 4000, 128))


def test_analyse() -> None:
    """Shapes, the log of 1 + magnitude, unit phase, and magnitude times phase is the STFT."""
    front = StftFrontEnd(**TINY)
    waveform = noise(2, front.length)
    spectrum = front.analyse(waveform)
    assert spectrum.features.shape == spectrum.warped.shape == (2, 1, 128, 128)
    torch.testing.assert_close(spectrum.features, torch.log1p(spectrum.warped))
    assert spectrum.phase is not None
    assert spectrum.gain is None
    torch.testing.assert_close(spectrum.phase.abs(), torch.ones_like(spectrum.magnitude))
    torch.testing.assert_close(spectrum.magnitude * spectrum.phase, front.stft(waveform)[:, None], atol=1e-6, rtol=1e-5)


def test_level_makes_features_blind_to_the_recording_level() -> None:
    """From -60 dB to +20 dB; each segment of a batch is scaled alone, and silence stays finite."""
    front = StftFrontEnd(**TINY, level=1.0)
    waveform = noise(1, front.length)
    reference = front.analyse(waveform)
    louder = front.analyse(torch.cat((waveform * 10, waveform * 1e-3)))
    for row in louder.features:
        torch.testing.assert_close(row, reference.features[0], atol=1e-4, rtol=1e-4)
    assert louder.gain is not None
    assert reference.gain is not None
    factors = louder.gain.flatten() / reference.gain.flatten()
    torch.testing.assert_close(factors, torch.tensor([0.1, 1000.0]), rtol=1e-3, atol=0)
    torch.testing.assert_close(louder.magnitude[0], reference.magnitude[0] * 10, rtol=1e-4, atol=1e-5)
    silent = front.analyse(torch.zeros(1, front.length))
    assert torch.isfinite(silent.features).all()
    unlevelled = StftFrontEnd(**TINY)
    assert (unlevelled.analyse(waveform * 10).features > unlevelled.analyse(waveform).features).all()


@pytest.mark.parametrize("level", [None, 1.0])
def test_a_mask_of_ones_gives_the_mixture_back(level: float | None) -> None:
    front = StftFrontEnd(**TINY, align_corners=True, level=level)
    waveform = noise(2, front.length)
    spectrum = front.analyse(waveform)
    result = front.synthesise(Estimate(torch.ones(2, 3, 128, 128)), spectrum)
    assert result.shape == (2, 3, 127 * 64)
    for n in range(3):
        torch.testing.assert_close(result[:, n], waveform[:, : 127 * 64], atol=1e-5, rtol=0)


def test_synthesis_clips() -> None:
    front = StftFrontEnd(**TINY, align_corners=True)
    spectrum = front.analyse(noise(1, front.length) * 30)
    result = front.synthesise(Estimate(torch.ones(1, 1, 128, 128)), spectrum)
    assert result.abs().max() == 1.0


@pytest.mark.parametrize("level", [None, 1.0])
def test_a_magnitude_estimate_is_the_mask_it_makes(level: float | None) -> None:
    """The mixture's own magnitude, in the domain of the mask, is a mask of ones where there is sound."""
    front = StftFrontEnd(**TINY | {"warp_rows": 0}, level=level)
    spectrum = front.analyse(noise(2, front.length))
    mask = front.mask(Estimate(spectrum.warped.expand(-1, 2, -1, -1), kind="magnitude"), spectrum)
    torch.testing.assert_close(mask, torch.ones(2, 2, 128, 128), atol=1e-3, rtol=0)
    assert spectrum.phase is not None
    result = front.synthesise(Estimate(spectrum.warped * 0.5, kind="magnitude"), spectrum)
    whole = front.synthesise(Estimate(torch.full((2, 1, 128, 128), 0.5)), spectrum)
    torch.testing.assert_close(result, whole, atol=1e-5, rtol=0)


def test_no_phase_no_waveform() -> None:
    front = StftFrontEnd(**TINY)
    spectrum = front.from_magnitude(torch.rand(1, 1, 128, 128))
    with pytest.raises(ValueError, match="made from magnitudes and has no phase; analyse a waveform"):
        front.synthesise(Estimate(torch.ones(1, 1, 128, 128)), spectrum)


@pytest.mark.parametrize("warp_rows", [0, 128])
@pytest.mark.parametrize("hertz", [300.0, 1000.0, 3100.0])
def test_row_frequencies_say_where_a_tone_is(hertz: float, warp_rows: int) -> None:
    front = StftFrontEnd(**TINY | {"warp_rows": warp_rows}, align_corners=True)
    frequencies = front.row_frequencies()
    assert frequencies[0] == pytest.approx(0, abs=1e-3)
    assert frequencies[-1] == pytest.approx(4000, abs=1e-3)
    loudest = int(front.analyse(cosine_tone(hertz, front)).warped[0, 0, :, 64].argmax())
    assert frequencies[loudest] == pytest.approx(hertz, abs=front.rate / front.n_fft)


def test_scaled_features_and_the_way_back() -> None:
    """They lie in [0, 1] and are full at a magnitude of e ** (1 / 0.15) - 1; the way back drops the sign."""
    front = StftFrontEnd(**TINY, align_corners=True, log_scale=0.15)
    spectrum = front.analyse(noise(2, front.length))
    torch.testing.assert_close(spectrum.features, 0.15 * torch.log1p(spectrum.warped))
    torch.testing.assert_close(front.expand(-spectrum.features), spectrum.warped, rtol=1e-4, atol=1e-5)
    loud = front.compress(torch.tensor([0.0, 784.0, 785.0, 1e6]))
    assert loud[0] == 0
    assert loud[1] < 1 == loud[2] == loud[3]


def test_only_the_mixture_is_lifted_from_zero() -> None:
    """By 1e-10, as published; features of silent sources are exactly 0, and sources have the mixture's gain."""
    front = StftFrontEnd(**TINY, align_corners=True, log_scale=0.15, level=1.0)
    silence = torch.zeros(1, 1, 128, 128)
    plain = StftFrontEnd(**TINY, align_corners=True).from_magnitude(silence)
    torch.testing.assert_close(plain.warped, torch.full_like(plain.warped, 1e-10), rtol=1e-3, atol=0)
    assert not front.features(silence).any()
    spectrum = front.analyse(noise(2, front.length))
    torch.testing.assert_close(front.features(spectrum.magnitude, spectrum.gain), spectrum.features, atol=1e-6, rtol=0)


def test_frames_are_resampled_and_brought_back() -> None:
    """10 s at 11000 Hz are 430 frames and 256 columns, from the middle of the first to that of the last one."""
    settings: dict[str, Any] = {"n_fft": 1022, "hop_length": 256, "align_corners": True, "log_scale": 0.15}
    front = StftFrontEnd(rate=11000, length=110000, warp_frames=256, **settings)
    spectrum = front.analyse(noise(1, front.length))
    assert spectrum.magnitude.shape == (1, 1, 512, 430)
    assert spectrum.features.shape == (1, 1, 256, 256)
    assert front.column_seconds() * 255 == pytest.approx(429 * 256 / 11000)
    time = torch.linspace(0, 1, 430).expand(1, 1, 512, -1)
    columns = front.warp(time)
    torch.testing.assert_close(columns[0, 0, 9], torch.linspace(0, 1, 256), atol=1e-5, rtol=0)
    torch.testing.assert_close(front.unwarp(columns, 430), time, atol=1e-5, rtol=0)
    mask = front.mask(Estimate(torch.ones(1, 2, 256, 256)), spectrum)
    torch.testing.assert_close(mask, torch.ones(1, 2, 512, 430), atol=1e-5, rtol=0)
    assert front.synthesise(Estimate(torch.ones(1, 2, 256, 256)), spectrum).shape == (1, 2, 109824)
    assert StftFrontEnd(rate=11025, **settings).column_seconds() == 256 / 11025


def test_resampled_frames_need_a_warp() -> None:
    with pytest.raises(ValueError, match="warp_frames is 64 without a warp; give warp_rows, too"):
        StftFrontEnd(**TINY | {"warp_rows": 0, "warp_frames": 64})


@pytest.mark.parametrize("level", [None, 1.0])
def test_features_of_the_mixture_are_a_mask_of_its_share(level: float | None) -> None:
    """Sources at full level are estimated N times as loud as they are in the mixture; waveforms stay that loud."""
    front = StftFrontEnd(**TINY | {"warp_rows": 0}, log_scale=0.1, level=level)
    spectrum = front.analyse(noise(2, front.length))
    values = spectrum.features.expand(-1, 3, -1, -1)
    for loudness in (1.0, 3.0):
        estimate = Estimate(values, kind="features", loudness=loudness)
        wanted = torch.full((2, 3, 128, 128), 1 / loudness)
        torch.testing.assert_close(front.mask(estimate, spectrum), wanted, atol=2e-3, rtol=0)
        torch.testing.assert_close(front.warped_mask(estimate, spectrum), wanted, atol=2e-3, rtol=0)
        torch.testing.assert_close(
            front.linear_magnitude(estimate, spectrum), spectrum.magnitude.expand_as(values), rtol=1e-3, atol=1e-5
        )


def test_the_plain_logarithm_and_the_way_back() -> None:
    """Features are those of the published code; they are negative for most bins, and the sign counts."""
    front = StftFrontEnd(**TINY, log_offset=0.0)
    spectrum = front.analyse(noise(2, front.length))
    assert torch.equal(spectrum.features, front.warp(spectrum.magnitude + 1e-10).log())
    assert (spectrum.features < 0).any()
    torch.testing.assert_close(front.expand(spectrum.features), spectrum.warped, rtol=1e-5, atol=0)
    assert front.expand(torch.tensor(-2.0)) < 1 < front.expand(torch.tensor(2.0))


@pytest.mark.parametrize("log_offset", [0.0, 0.01, 2.0])
def test_silence_stays_finite_with_any_logarithm(log_offset: float) -> None:
    """As a mixture, which is lifted by 1e-10, and as a source, which is not; both come back as nothing to hear."""
    front = StftFrontEnd(**TINY, log_offset=log_offset)
    silence = torch.zeros(1, 1, 128, 128)
    for features in (front.from_magnitude(silence).features, front.features(silence)):
        assert torch.isfinite(features).all()
        assert front.expand(features).max() < 1e-6
        assert not (front.expand(features) < 0).any()
    assert not front.expand(torch.tensor(-1e3)).any()


def test_features_with_an_offset_of_their_own() -> None:
    """One between the two: rounding aside, the way back is exact, and the sources have the mixture's gain."""
    front = StftFrontEnd(**TINY, log_offset=0.01, level=1.0)
    spectrum = front.analyse(noise(2, front.length))
    torch.testing.assert_close(spectrum.features, (spectrum.warped + 0.01).log())
    torch.testing.assert_close(front.expand(spectrum.features), spectrum.warped, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(front.features(spectrum.magnitude, spectrum.gain), spectrum.features, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"log_offset": -0.5}, r"log_offset is -0\.5; give a number from 0"),
        ({"log_offset": float("nan")}, "log_offset is nan; give a number"),
        ({"log_offset": float("inf")}, "log_offset is inf; give a number"),
        ({"log_offset": 0.0, "log_scale": 0.15}, r"log_offset is 0\.0 with log_scale 0\.15.*leave one of them out"),
    ],
)
def test_logarithms_that_make_no_sense(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        StftFrontEnd(**TINY, **settings)
