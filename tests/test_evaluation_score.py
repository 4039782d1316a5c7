"""Scores of a batch, means as papers take them, baselines, and the score of a model in training."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from avsep_zoo.data.clip import Clip
from avsep_zoo.data.fixed_mixtures import FixedMixtures
from avsep_zoo.errors import DataError
from avsep_zoo.evaluation import bss_eval, si_sdr
from avsep_zoo.evaluation.oracle import BASELINES, baseline
from avsep_zoo.evaluation.score import SCORES, batch_means, objective_of, score_batch, validate
from avsep_zoo.model import SeparationModel

RATE = 8000


def sounds(batch: int = 2, sources: int = 2, samples: int = 4000, seed: int = 0) -> Tensor:
    return torch.randn(batch, sources, samples, generator=torch.Generator().manual_seed(seed)) / 10


def tones(*frequencies: float, samples: int = RATE) -> Tensor:
    """(1, N, samples): a decaying tone each, over faint noise."""
    time = torch.arange(samples) / RATE
    parts = [torch.sin(2 * math.pi * f * time) * torch.exp(-3 * (time % 0.5)) for f in frequencies]
    return (torch.stack(parts) + 1e-3 * sounds(1, len(parts), samples)[0])[None]


def test_scores_are_those_of_bss_eval_and_si_sdr() -> None:
    """Each mixture by itself, the mixture as every estimate, rounded to a millionth of a decibel."""
    truth = sounds()
    guess, mixed = truth + 0.3 * truth.flip(1) + 0.1 * sounds(seed=1), truth.sum(1)
    scored = score_batch(truth, guess, mixed)
    for b, found in enumerate(scored):
        assert isinstance(found, dict) and tuple(found) == SCORES
        blind = mixed[b].expand(2, -1)
        want = [*bss_eval(truth[b], guess[b])[:3], si_sdr(truth[b], guess[b])]
        want += [bss_eval(truth[b], blind).sdr, si_sdr(truth[b], blind)]
        np.testing.assert_allclose([found[name] for name in SCORES], want, atol=5.1e-7)


def test_mixtures_that_have_no_score_say_why_and_spoil_no_other() -> None:
    truth = sounds(5)
    guess = truth + 0.1 * sounds(5, seed=1)
    truth[0, 1], guess[1, 0], guess[2, 1, 7], guess[3] = 0, 0, math.nan, 1e-12
    mixed = truth.sum(1)
    scored = score_batch(truth, guess, mixed, silence=1e-5)
    assert scored[:4] == [
        "source 2 is silent",
        "estimate 1 is silent",
        "an estimate is not finite",
        "estimate 1 is silent",
    ]
    assert scored[4] == score_batch(truth[4:], guess[4:], mixed[4:])[0]


def test_a_silent_estimate_counts_as_0_db_where_the_protocol_says_so() -> None:
    truth = sounds(1)
    guess = torch.stack([truth[0, 0], 0 * truth[0, 1]])[None]
    [found] = score_batch(truth, guess, truth.sum(1), silent_estimate="zero")
    assert isinstance(found, dict)
    assert found["sdr"] == found["sir"] == found["sar"] == found["si_sdr"] == [0.0, 0.0]
    assert abs(found["mixture_sdr"][0]) < 1


def rows(*values: float | None) -> list[dict[str, list[float]] | None]:
    names = ("sdr", "sir", "sar", "mixture_sdr")
    return [None if v is None else {name: [v, v + 2.0] for name in names} for v in values]


def test_batches_weigh_the_same_whatever_is_in_them() -> None:
    """(1 + 2) / 2, then 6 alone; a batch in which all were dropped counts 0."""
    assert batch_means(rows(0.0, 1.0, 5.0), 2)["sdr"] == pytest.approx((1.5 + 6.0) / 2)
    assert batch_means(rows(0.0, 1.0, 5.0), 2, drop_last=True)["sar"] == pytest.approx(1.5)
    assert batch_means(rows(None, 1.0, None, None), 2)["mixture_sdr"] == pytest.approx((2.0 + 0.0) / 2)
    with pytest.raises(ValueError, match="1 mixtures make no batch of 2"):
        batch_means(rows(1.0), 2, drop_last=True)


@pytest.mark.parametrize("rate", [8000, 11025, 22050])
def test_ideal_masks_take_apart_what_does_not_overlap(rate: int) -> None:
    truth = tones(300, 1700)
    for name in ("ideal_ratio_mask", "ideal_binary_mask"):
        estimates = baseline(name, truth.sum(1), truth, rate)
        assert estimates.shape == truth.shape
        assert bss_eval(truth[0], estimates[0]).sdr.min() > 20


def test_ideal_masks_share_the_mixture_out() -> None:
    """Masks add up to 1, so estimates add up to the mixture; a common level of the sources changes nothing."""
    truth = sounds(2, 3)
    for name in ("ideal_ratio_mask", "ideal_binary_mask"):
        estimates = baseline(name, truth.sum(1), truth, RATE)
        torch.testing.assert_close(estimates.sum(1), truth.sum(1), atol=1e-5, rtol=0)
        torch.testing.assert_close(baseline(name, truth.sum(1), 5 * truth, RATE), estimates, atol=1e-5, rtol=0)


def test_the_ratio_mask_is_the_share_of_the_magnitude() -> None:
    """Two copies of one sound, three to one: three quarters and a quarter of the mixture."""
    one = sounds(1, 1)
    truth = torch.cat((3 * one, one), dim=1)
    estimates = baseline("ideal_ratio_mask", truth.sum(1), truth, RATE)
    torch.testing.assert_close(estimates, truth, atol=1e-5, rtol=0)
    binary = baseline("ideal_binary_mask", truth.sum(1), truth, RATE)
    torch.testing.assert_close(binary, torch.cat((4 * one, 0 * one), dim=1), atol=1e-5, rtol=0)


def test_the_mixture_is_every_estimate() -> None:
    truth = sounds(2, 3)
    assert torch.equal(baseline("mixture", truth.sum(1), truth, RATE)[:, 2], truth.sum(1))
    assert set(BASELINES) == {"mixture", "ideal_ratio_mask", "ideal_binary_mask"}
    with pytest.raises(ValueError, match="no baseline 'oracle'"):
        baseline("oracle", truth.sum(1), truth, RATE)


@pytest.fixture
def items(tmp_path: Path, tiny_model: SeparationModel) -> FixedMixtures:
    """Five mixtures of noises; the sources of the last one are silent."""
    clips = []
    for k, level in enumerate((1.0, 1.0, 1.0, 0.0)):
        path = tmp_path / f"{k}.wav"
        soundfile.write(path, level * sounds(1, 1, 12000, seed=k)[0, 0].numpy(), RATE)
        clips.append(Clip(id=str(k), audio=path, labels=(("violin", "flute", "drum")[k % 3],)))
    pairs = [(0, 1), (1, 2), (2, 0), (1, 0), (3, 3)]
    return FixedMixtures(
        [tuple(clips[k] for k in pair) for pair in pairs],
        tiny_model.encoder.prepare,
        rate=RATE,
        length=tiny_model.front_end.length,
        reads=tiny_model.encoder.reads,
    )


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_validation_is_the_mean_sdr(tiny_model: SeparationModel, items: FixedMixtures, batch: int) -> None:
    """Of what one segment of each mixture gives; mixtures without a score do not count."""
    objective = objective_of(tiny_model)
    want = []
    for k in range(4):
        mixture, sources = objective.mix(items[k]["sources"][None])
        with torch.inference_mode():
            guess = tiny_model.waveforms({"mixture": mixture, "cues": items[k]["cues"]}, consistency=True)[0]
        want.append(bss_eval(sources[0, :, : guess.shape[-1]], guess).sdr.mean())
    assert validate(tiny_model, objective, items, batch=batch) == pytest.approx(np.mean(want), abs=1e-3)


def test_validation_leaves_the_training_alone(tiny_model: SeparationModel, items: FixedMixtures) -> None:
    tiny_model.train()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    weights = {k: v.clone() for k, v in tiny_model.state_dict().items()}
    first = validate(tiny_model, objective_of(tiny_model), items)
    assert tiny_model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, weights[k]) for k, v in tiny_model.state_dict().items())
    assert validate(tiny_model.eval(), objective_of(tiny_model), items) == first


def test_validation_on_silence_is_nan(tiny_model: SeparationModel, items: FixedMixtures) -> None:
    items.mixtures = items.mixtures[4:]
    assert math.isnan(validate(tiny_model, objective_of(tiny_model), items))


def test_a_model_without_an_objective_is_named(tiny_model: SeparationModel) -> None:
    del tiny_model.parts["objective"]
    with pytest.raises(DataError, match=r"iquery\.tiny has no objective"):
        objective_of(tiny_model)
