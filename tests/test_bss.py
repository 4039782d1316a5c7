"""BSS Eval against mir_eval, and the cases mir_eval refuses."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from scipy.signal import resample_poly

import avsep_zoo
from avsep_zoo.evaluation import BssScores, bss_eval, si_sdr

NOISE_DB = 120.0  # beyond this a score is the rounding of double precision, in mir_eval too


def mir_eval_scores(references: np.ndarray, estimates: np.ndarray, permutation: bool = False) -> BssScores:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the module is marked as deprecated
        from mir_eval.separation import bss_eval_sources

        return BssScores(*bss_eval_sources(references, estimates, compute_permutation=permutation))


def assert_same(ours: BssScores, theirs: BssScores) -> None:
    for name in ("sdr", "sir", "sar"):
        got, want = getattr(ours, name), getattr(theirs, name)
        noise = (got > NOISE_DB) & (want > NOISE_DB)
        np.testing.assert_allclose(np.where(noise, 0, got), np.where(noise, 0, want), rtol=0, atol=1e-6)
    assert ours.permutation.tolist() == theirs.permutation.tolist()


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def notes(pitches: tuple[float, ...], samples: int = 16000) -> np.ndarray:
    """Decaying harmonic notes over faint noise (N, samples), band-limited to 4 kHz of 5.5 kHz."""
    t = np.arange(samples) / 11025
    sources = []
    for k, pitch in enumerate(pitches):
        tone = sum(np.sin(2 * np.pi * pitch * h * t + h) / h for h in range(1, 9) if pitch * h < 4000)
        sources.append(tone * np.exp(-3 * (t % (0.4 + 0.1 * k))) + 1e-3 * noise(samples, seed=k))
    return np.stack([resample_poly(resample_poly(s, 3, 4), 4, 3)[:samples] for s in sources])


def leaky(references: np.ndarray, artifacts: float = 0.1) -> np.ndarray:
    return references + 0.2 * references[::-1] + artifacts * noise(*references.shape, seed=9)


MUSIC = notes((220.0, 330.0))
GATED = np.where(np.arange(16000) < 8000, MUSIC, 0)
PAIR = noise(2, 8000)

CASES = {
    "noise": (PAIR, leaky(PAIR)),
    "three sources": (noise(3, 6000), leaky(noise(3, 6000))),
    "one source": (PAIR[:1], leaky(PAIR)[:1]),
    "music": (MUSIC, leaky(MUSIC, 0.01)),
    "music with few artifacts": (MUSIC, leaky(MUSIC, 1e-4)),
    "mixture as estimate": (MUSIC, np.stack([MUSIC.sum(0)] * 2)),
    "estimate shifted within the filter": (MUSIC, np.roll(MUSIC, 100, axis=1)),
    "half silent": (GATED, leaky(GATED, 0.01)),
    "perfect": (MUSIC, MUSIC.copy()),
    "pure tones": (np.sin(np.outer([0.1, 0.2], np.arange(6000))), leaky(PAIR[:, :6000])),
    "same reference twice": (np.stack([MUSIC[0], MUSIC[0]]), leaky(MUSIC)),
    "constant reference": (np.stack([np.ones(5000), PAIR[1, :5000]]), leaky(PAIR)[:, :5000]),
    "impulses": (np.eye(2, 4000, 1000), leaky(PAIR)[:, :4000]),
    "shorter than the filter": (PAIR[:, :300], leaky(PAIR)[:, :300]),
    "faint": (1e-9 * MUSIC, 1e-7 * leaky(MUSIC)),
    "unequal levels": (MUSIC * [[1], [1e-4]], leaky(MUSIC)),
    "sixteen bits": (np.round(2000 * MUSIC), np.round(2000 * leaky(MUSIC, 0))),
}


def recordings(rate: int) -> np.ndarray:
    """Two seconds of a recorded mandolin and a recorded cello at ``rate``: (2, samples)."""
    files = [Path(avsep_zoo.__file__).parent / "demo" / f"{name}.flac" for name in ("mandolin", "cello")]
    sounds = [soundfile.read(file, start=22050, frames=44100)[0] for file in files]
    return np.stack([soxr.resample(sound, 22050, rate, quality="HQ") for sound in sounds])


def filtered(references: np.ndarray, share: float = 0.8) -> np.ndarray:
    """What a soft mask of the spectrogram takes out of the mixture, in single precision (N, L)."""
    window = torch.hann_window(1022, dtype=torch.float64)

    def stft(x: np.ndarray) -> torch.Tensor:
        return torch.stft(torch.from_numpy(x), 1022, 256, window=window, return_complex=True, pad_mode="constant")

    parts = stft(references).abs()
    masked = (share * parts / parts.sum(0).clamp_min(1e-12) + (1 - share) / 2) * stft(references.sum(0))
    return torch.istft(masked, 1022, 256, window=window, length=references.shape[1]).float().double().numpy()


RECORDED = recordings(11025)
LATE = np.where(np.arange(RECORDED.shape[1]) > 21000, RECORDED[1], 0)
CLICK = np.where(np.arange(RECORDED.shape[1]) == 3000, 2**-15, 0)
NEARLY_SILENT = {
    "faint by 120 dB": np.stack([RECORDED[0], 1e-6 * RECORDED[1]]),
    "one click of the last bit": np.stack([RECORDED[0], CLICK]),
    "silent until the last tenth of a second": np.stack([RECORDED[0], LATE]),
}


@pytest.mark.parametrize("permutation", [False, True])
@pytest.mark.parametrize("name", NEARLY_SILENT)
def test_nearly_silent_references_are_scored_like_mir_eval(name: str, permutation: bool) -> None:
    references = NEARLY_SILENT[name]
    estimates = filtered(references)[:: -1 if permutation else 1]
    ours = bss_eval(references, estimates, permutation=permutation)
    assert_same(ours, mir_eval_scores(references, estimates, permutation))


@pytest.mark.parametrize("permutation", [False, True])
@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050])
def test_recordings_are_scored_like_mir_eval(rate: int, permutation: bool) -> None:
    references = recordings(rate)
    estimates = filtered(references)[:: -1 if permutation else 1]
    ours = bss_eval(references, estimates, permutation=permutation)
    assert_same(ours, mir_eval_scores(references, estimates, permutation))
    assert ours.sdr.min() > 10


def test_a_recording_that_went_through_a_lower_rate_is_scored_like_mir_eval() -> None:
    """Nothing is left above 5.5 of 8 kHz: the equations are nearly singular."""
    references = np.stack([soxr.resample(sound, 11025, 16000, quality="HQ") for sound in RECORDED])
    assert_same(bss_eval(references, filtered(references)), mir_eval_scores(references, filtered(references)))


def test_silent_references_have_no_score_and_mir_eval_refuses_them() -> None:
    references = np.stack([RECORDED[0], np.zeros_like(RECORDED[0])])
    with pytest.raises(ValueError, match="silent"):
        mir_eval_scores(references, RECORDED)
    assert np.isnan(bss_eval(references, RECORDED)[:3]).all()
    assert np.isnan(bss_eval(references, RECORDED, permutation=True)[:3]).all()


@pytest.mark.parametrize("name", CASES)
def test_scores_are_those_of_mir_eval(name: str) -> None:
    references, estimates = CASES[name]
    assert_same(bss_eval(references, estimates), mir_eval_scores(references, estimates))


def test_exactly_singular_equations_are_solved_by_least_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    """One impulse as both references; mir_eval catches the error by a name NumPy 2.4 no longer has."""
    monkeypatch.setattr(np.linalg, "linalg", np.linalg, raising=False)
    references, estimates = np.eye(1, 4000).repeat(2, axis=0), leaky(PAIR)[:, :4000]
    assert_same(bss_eval(references, estimates), mir_eval_scores(references, estimates))


def test_single_precision_input_is_scored_in_double() -> None:
    references, estimates = MUSIC.astype(np.float32), leaky(MUSIC).astype(np.float32)
    assert_same(bss_eval(references, estimates), mir_eval_scores(references, estimates))


@pytest.mark.parametrize("order", [[0, 1], [1, 0], [2, 0, 1]])
def test_permutation_search_is_that_of_mir_eval(order: list[int]) -> None:
    references = noise(len(order), 3000)
    estimates = leaky(references)[order]
    ours = bss_eval(references, estimates, permutation=True)
    assert_same(ours, mir_eval_scores(references, estimates, permutation=True))
    assert [order[e] for e in ours.permutation] == sorted(order)


def test_batches_and_sets_of_estimates_are_scored_item_by_item() -> None:
    """Estimates (2 sets, 3 mixtures, 2, L) of references (3, 2, L): the set axis shares the references."""
    references = noise(3, 2, 4000)
    mixtures = np.repeat(references.sum(1, keepdims=True), 2, axis=1)
    estimates = np.stack([np.stack([leaky(r) for r in references]), mixtures])
    scores = bss_eval(references, estimates)
    assert scores.sdr.shape == scores.permutation.shape == (2, 3, 2)
    for s in range(2):
        for m in range(3):
            single = BssScores(*(field[s, m] for field in scores))
            assert_same(single, mir_eval_scores(references[m], estimates[s, m]))


@pytest.mark.parametrize("permutation", [False, True])
def test_a_mixture_that_cannot_be_scored_is_nan_and_alone(permutation: bool) -> None:
    references = np.stack([PAIR] * 4)
    estimates = np.stack([leaky(PAIR)] * 4)
    references[1, 0] = 0
    estimates[2, 1] = 0
    estimates[3, 0, 17] = np.nan
    scores = bss_eval(references, estimates, permutation=permutation)
    assert_same(BssScores(*(field[0] for field in scores)), mir_eval_scores(PAIR, leaky(PAIR)))
    assert all(np.isnan(field[1:]).all() for field in scores[:3])
    assert scores.permutation.tolist() == [[0, 1]] * 4


def test_a_silent_estimate_spoils_only_its_own_set() -> None:
    estimates = np.stack([leaky(PAIR), leaky(PAIR)])
    estimates[1, 0] = 0
    scores = bss_eval(PAIR, estimates)
    assert np.isfinite(scores.sdr[0]).all()
    assert np.isnan(scores.sdr[1]).all()


def test_tensors_are_taken_like_arrays() -> None:
    references = torch.from_numpy(PAIR)
    estimates = torch.from_numpy(leaky(PAIR)).requires_grad_()
    assert np.array_equal(bss_eval(references, estimates).sdr, bss_eval(PAIR, leaky(PAIR)).sdr)
    assert np.array_equal(si_sdr(references, estimates), si_sdr(PAIR, leaky(PAIR)))


def test_with_one_tap_the_sdr_is_scale_invariant() -> None:
    estimates = leaky(PAIR)
    scores = bss_eval(PAIR, estimates, filter_length=1)
    np.testing.assert_allclose(scores.sdr, si_sdr(PAIR, estimates), rtol=0, atol=1e-9)
    assert (scores.sdr < bss_eval(PAIR, estimates).sdr).all()


@pytest.mark.parametrize(
    ("references", "estimates", "message"),
    [
        (np.ones(10), np.ones(10), "give \\(..., sources, samples\\)"),
        (np.ones((2, 0)), np.ones((2, 0)), "give \\(..., sources, samples\\)"),
        (np.ones((2, 10)), np.ones((3, 10)), "do not fit"),
        (np.ones((4, 2, 10)), np.ones((2, 10)), "do not fit"),
    ],
)
def test_wrong_shapes_are_named(references: np.ndarray, estimates: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bss_eval(references, estimates)


def test_a_filter_without_taps_is_refused() -> None:
    with pytest.raises(ValueError, match="0 taps"):
        bss_eval(PAIR, PAIR, filter_length=0)


def test_si_sdr_of_a_known_error() -> None:
    """A sine with a cosine of a tenth of its amplitude on top: 20 dB, at any gain."""
    phase = 2 * np.pi * 5 * np.arange(1000) / 1000
    reference, estimate = np.sin(phase), np.sin(phase) + 0.1 * np.cos(phase)
    np.testing.assert_allclose(si_sdr(reference, [estimate, -3 * estimate]), 20.0, atol=1e-9)


def test_si_sdr_of_perfect_silent_and_broken_signals() -> None:
    reference = np.array([1.0, -1.0, 1.0, -1.0])
    estimates = [2 * reference, 0 * reference, [1, 2, np.inf, 4]]
    assert si_sdr(reference, estimates)[0] == np.inf
    assert np.isnan(si_sdr(reference, estimates)[1:]).all()
    assert np.isnan(si_sdr(0 * reference, reference))


def test_the_package_is_light_to_import() -> None:
    code = "import sys, avsep_zoo.evaluation; sys.exit(any(m in sys.modules for m in ('torch', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
