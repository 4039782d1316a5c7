"""Scores of a model on a list of mixtures, with masks whose worth is known."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from avsep_zoo.compose import compose
from avsep_zoo.contracts import Bound, Estimate, Separator, SeparatorPlan, Site, Spectrum
from avsep_zoo.errors import DataError
from avsep_zoo.evaluation.mixtures import score_list
from avsep_zoo.front_end import StftFrontEnd
from avsep_zoo.model import SeparationModel
from avsep_zoo.recipe import PartConfig

RATE = 8000

SITES = {"bottleneck": Site("bottleneck", 8), "latent": Site("latent", 8), "head": Site("head", 4)}


class GivenMasks(Separator):
    """A separator with the same masks (N, F) in every frame, whatever it hears."""

    def __init__(self, masks: Tensor) -> None:
        super().__init__()
        self.sites = SITES
        self.masks = masks

    @classmethod
    def plan(cls, **config: Any) -> SeparatorPlan:
        return SeparatorPlan(SITES)

    def forward(self, spectrum: Spectrum, inject: Bound) -> Estimate:
        batch, _, _, frames = spectrum.warped.shape
        return Estimate(self.masks[None, :, :, None].expand(batch, -1, -1, frames))


HIGH = (torch.linspace(0, RATE / 2, 128) > 1000).float()
ALL = torch.ones(128)


@pytest.fixture
def masked(tiny_parts: dict[str, PartConfig]) -> Callable[..., SeparationModel]:
    """A function that makes a model with given masks for the first and the second source."""

    def make(*masks: Tensor) -> SeparationModel:
        model = compose(
            encoder=tiny_parts["encoder"],
            conditioner=tiny_parts["conditioner"],
            separator=GivenMasks(torch.stack(masks)),
            front_end=StftFrontEnd(**{**tiny_parts["front_end"].config, "warp_rows": 0}),
        )
        model.parts["objective"] = tiny_parts["objective"].to_dict()
        return model

    return make


def band_noise(low: float, high: float, seed: int) -> np.ndarray:
    """1.5 s of noise between two frequencies in Hz, RMS 0.1."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(12000))
    frequencies = np.fft.rfftfreq(12000, 1 / RATE)
    sound = np.fft.irfft(spectrum * ((frequencies >= low) & (frequencies < high)))
    return np.asarray(0.1 * sound / sound.std(), np.float32)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Violins above 1.2 kHz, drums and flutes below 800 Hz; three mixtures, a violin first."""
    sounds = {
        "violin/a": band_noise(1200, 3500, 0),
        "violin/b": band_noise(1200, 3500, 1),
        "drum/a": band_noise(50, 800, 2),
        "flute/a": band_noise(50, 800, 3),
        "flute/silent": np.zeros(12000, np.float32),
    }
    rows = []
    for name, sound in sounds.items():
        path = tmp_path / "audio" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, sound, RATE, "FLOAT")
        rows.append(f"/{name}.wav,/{name}.mp4,0\n")
    (tmp_path / "test_new.csv").write_text("".join(rows))
    pairs = [("violin/a", "drum/a"), ("violin/b", "flute/a"), ("violin/a", "flute/a")]
    write_pairs(tmp_path, pairs)
    return tmp_path


def write_pairs(data: Path, pairs: list[tuple[str, str]]) -> None:
    (data / "testsep_new.csv").write_text("".join(f"/{a}.wav, /{b}.wav\n" for a, b in pairs))


@pytest.mark.parametrize("consistency", [True, False])
def test_ideal_masks_score_high(masked: Callable[..., SeparationModel], data: Path, consistency: bool) -> None:
    done: list[tuple[int, int]] = []
    model = masked(HIGH, 1 - HIGH)
    scores = score_list(model, data, "testsep_new", consistency=consistency, progress=lambda *count: done.append(count))
    assert scores.sdr > 25 and scores.sir > 35 and scores.sar > 25
    assert abs(scores.mixture_sdr) < 1.5
    assert scores.improvement == pytest.approx(scores.sdr - scores.mixture_sdr)
    assert 0 < scores.interval < 5
    assert (scores.mixtures, scores.skipped) == (3, 0)
    assert sorted(scores.by_class) == ["drum", "flute", "violin"]
    assert min(scores.by_class.values()) > 20
    assert done[-1] == (3, 3)
    assert json.loads(json.dumps(scores.to_dict()))["by_class"] == scores.by_class


def test_mixture_as_estimate_improves_nothing(masked: Callable[..., SeparationModel], data: Path) -> None:
    scores = score_list(masked(ALL, ALL), data, "testsep_new")
    assert scores.sdr == pytest.approx(scores.mixture_sdr, abs=0.05)
    assert abs(scores.improvement) < 0.05
    assert abs(scores.sdr) < 1.5


def test_swapped_sources_score_low(masked: Callable[..., SeparationModel], data: Path) -> None:
    """No order of the sources is searched for: each cue answers for itself."""
    assert score_list(masked(1 - HIGH, HIGH), data, "testsep_new").improvement < -10


def test_improvement_of_each_class(masked: Callable[..., SeparationModel], data: Path) -> None:
    """Violins are separated, the others get the mixture."""
    scores = score_list(masked(HIGH, ALL), data, "testsep_new", consistency=False)
    assert scores.by_class["violin"] > 20
    assert abs(scores.by_class["drum"]) < 0.05 and abs(scores.by_class["flute"]) < 0.05
    assert scores.improvement == pytest.approx(scores.by_class["violin"] / 2, abs=0.1)


def test_mixtures_without_a_score_are_counted(masked: Callable[..., SeparationModel], data: Path) -> None:
    """A silent source or estimate leaves its mixture out of all means."""
    model = masked(HIGH, 1 - HIGH)
    write_pairs(data, [("violin/a", "flute/silent"), ("violin/a", "drum/a")])
    scores = score_list(model, data, "testsep_new")
    assert (scores.mixtures, scores.skipped) == (1, 1)
    assert sorted(scores.by_class) == ["drum", "violin"]
    assert scores.sdr > 25 and scores.interval == 0
    for nothing in (
        score_list(model, data, "testsep_new", limit=1),
        score_list(masked(ALL, 0 * ALL), data, "testsep_new"),
    ):
        assert nothing.mixtures == 0 and nothing.skipped >= 1 and nothing.by_class == {}
        assert all(math.isnan(v) for v in (nothing.sdr, nothing.sir, nothing.sar, nothing.improvement))


def test_mode_and_random_state_are_left_alone(tiny_model: SeparationModel, data: Path) -> None:
    """A validation in the middle of a training changes nothing of it; scoring twice gives the same."""
    tiny_model.train()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    weights = {k: v.clone() for k, v in tiny_model.state_dict().items()}
    first = score_list(tiny_model, data, "testsep_new", use=frozenset({"label"}))
    assert tiny_model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, weights[k]) for k, v in tiny_model.state_dict().items())
    assert score_list(tiny_model.eval(), data, "testsep_new") == first


def test_lists_and_models_that_cannot_be_scored(tiny_model: SeparationModel, data: Path) -> None:
    with pytest.raises(DataError, match=r"test_old\.csv' cannot be read"):
        score_list(tiny_model, data, "testsep_old")
    (data / "audio/drum/a.wav").unlink()
    with pytest.raises(DataError, match=r"drum/a\.wav' cannot be read"):
        score_list(tiny_model, data, "testsep_new")
    del tiny_model.parts["objective"]
    with pytest.raises(DataError, match=r"iquery\.tiny has no objective"):
        score_list(tiny_model, data, "testsep_new")
