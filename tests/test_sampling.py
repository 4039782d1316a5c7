"""Generative separation of recordings: noise that belongs to a place, seeds, steps and solvers, loudness."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from einops import repeat
from torch import Tensor

from avsep_zoo import Cue
from avsep_zoo.compose import compose, compose_recipe
from avsep_zoo.contracts import Bound, SeparatorPlan, Site, Spectrum
from avsep_zoo.errors import CompositionError, WeightsError
from avsep_zoo.generative.contract import DrivenSeparator, Network
from avsep_zoo.generative.flow import Flow
from avsep_zoo.generative.noise import Sampling
from avsep_zoo.load import load
from avsep_zoo.model import SeparationModel
from avsep_zoo.recipe import PartConfig
from avsep_zoo.weights.cards import write_card

RATE, COLUMN = 8000, 64  # of the small model: samples per second, and per column of features
SITES = {"bottleneck": Site("bottleneck", 8)}


class Echo(DrivenSeparator):
    """Its network says that every source has the features of the mixture, or ones of a given value."""

    def __init__(self, value: float | None = None) -> None:
        super().__init__()
        self.sites, self.value = SITES, value

    @classmethod
    def plan(cls, **_: Any) -> SeparatorPlan:
        return SeparatorPlan(SITES, driven=True)

    def bind(self, spectrum: Spectrum, inject: Bound) -> Network:
        mixture = repeat(spectrum.features, "b 1 f t -> (b n) 1 f t", n=inject.sources)
        answer = mixture if self.value is None else torch.full_like(mixture, self.value)
        return lambda noisy, time: answer


@pytest.fixture
def echo(generative_parts: dict[str, PartConfig]) -> Callable[..., SeparationModel]:
    """A function that makes a model of an Echo; a driver that asks for the data itself lets it through."""

    def make(value: float | None = None, **driver: Any) -> SeparationModel:
        return compose(
            encoder=generative_parts["encoder"],
            conditioner="tiled_concat",
            separator=Echo(value),
            driver={"name": "flow", "predicts": "clean", "steps": 1, "floor": 0.0, **driver},
            front_end=generative_parts["front_end"].changed({"warp_rows": 0}),
        )

    return make


def noise(channels: int, samples: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((channels, samples)) * 0.1).astype(np.float32)


def pictures(count: int) -> list[Cue]:
    """Cues of one plain picture each."""
    return [Cue(name=f"{n}", frames=np.full((8, 8, 3), 40 * n, np.uint8)) for n in range(count)]


def starts_seen(model: SeparationModel, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The list that the start noise of every segment of the first source will be in."""
    seen: list[Tensor] = []
    driver = model.driver
    assert driver is not None
    sample = driver.sample

    def watched(network: Any, mixture: Tensor, draw: Any, **how: Any) -> Tensor:
        seen.extend(draw(0)[::2, 0])
        return sample(network, mixture, draw, **how)

    monkeypatch.setattr(driver, "sample", watched)
    return seen


@pytest.mark.parametrize("rate", [8000, 11025])
@pytest.mark.parametrize(("overlap", "step"), [(0.5, 64), (0.25, 96), (0.0, 127)])
def test_segments_see_the_same_noise_where_they_overlap(
    generative_model: SeparationModel, monkeypatch: pytest.MonkeyPatch, overlap: float, step: int, rate: int
) -> None:
    """They begin a whole number of columns apart, also in batches, and elsewhere the noise is another."""
    seen = starts_seen(generative_model, monkeypatch)
    generative_model.separate(noise(1, 3 * rate), pictures(2), rate=rate, overlap=overlap, batch=2)
    assert len(seen) == 1 + -(-(3 * RATE - 8191) // (step * COLUMN))
    for one, following in itertools.pairwise(seen):
        assert torch.equal(one[:, step:], following[:, :-step])
        assert (one - following).abs().mean() > 0.5


def test_neighbours_agree_better_with_the_same_noise(generative_model: SeparationModel) -> None:
    """What two segments say of the time they share differs less than with noise of their own."""
    sound = torch.from_numpy(noise(1, 8191 + 64 * COLUMN)[0])
    front: Any = generative_model.front_end
    spectrum = front.analyse(torch.stack((sound[:8191], sound[64 * COLUMN :])))
    cues = generative_model.encoder.prepare(pictures(2), video=None, time=0.0)
    embedding = generative_model.encode(cues).repeat(2)

    @torch.no_grad()
    def difference(second: int) -> float:
        values = generative_model.estimate(spectrum, embedding, sampling=Sampling(starts=[0, second])).values
        return float((values[0, :, :, 72:-8] - values[1, :, :, 8:56]).abs().mean())  # away from the ends

    assert difference(64) < 0.5 * difference(64000)


@pytest.mark.parametrize("sources", [1, 2, 3, 5])
def test_any_number_of_sources(generative_model: SeparationModel, sources: int) -> None:
    """Stems and residual add up to a stereo recording, whatever the batch."""
    mixture = noise(2, 24000)
    one, four = (generative_model.separate(mixture, pictures(sources), rate=12000, batch=b) for b in (1, 4))
    assert len(one.stems) == sources
    np.testing.assert_allclose(np.sum([track.waveform for track in one.tracks], axis=0), mixture, atol=1e-6)
    for a, b in zip(one.tracks, four.tracks, strict=True):
        np.testing.assert_allclose(a.waveform, b.waveform, atol=1e-5)


@pytest.mark.parametrize("driver", ["flow", "diffusion"])
def test_the_seed_decides(generative_parts: dict[str, PartConfig], driver: str) -> None:
    """The same one gives the same bits, whatever was drawn meanwhile; another one other stems."""
    torch.manual_seed(0)
    model = compose_recipe(generative_parts | {"driver": PartConfig(driver, {"steps": 2})}, "tiny")
    mixture = noise(1, 12000)

    def stem(seed: int) -> np.ndarray:
        return model.separate(mixture, pictures(2), rate=RATE, seed=seed).stems[0].waveform

    first = stem(3)
    torch.randn(5)
    np.testing.assert_array_equal(first, stem(3))
    assert np.abs(first - stem(4)).max() > 1e-3


def test_steps_and_solver_are_a_dial(generative_model: SeparationModel) -> None:
    mixture = noise(1, 8000)
    plain = generative_model.separate(mixture, pictures(2), rate=RATE)
    assert plain.sampling == {"seed": 0, "steps": 2, "solver": "euler", "evaluations": 2}
    same = generative_model.separate(mixture, pictures(2), rate=RATE, steps=2, solver="euler")
    np.testing.assert_array_equal(plain.stems[0].waveform, same.stems[0].waveform)
    other = generative_model.separate(mixture, pictures(2), rate=RATE, steps=3, solver="heun", seed=1)
    assert other.sampling == {"seed": 1, "steps": 3, "solver": "heun", "evaluations": 6}
    assert np.abs(plain.stems[0].waveform - other.stems[0].waveform).max() > 1e-3


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"solver": "ddim"}, "davis_flow.tiny cannot sample like this: solver is 'ddim'; choose one of euler"),
        ({"steps": 0}, "steps is 0; give a whole number from 1"),
        ({"steps": 2.5}, "steps is 2.5; give a whole number from 1"),
        ({"seed": -1}, "seed is -1; give a whole number from 0 on"),
    ],
)
def test_wrong_sampling_is_refused_before_anything_is_read(
    generative_model: SeparationModel, how: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(CompositionError, match=sentence.replace(".", r"\.")):
        generative_model.separate("no such file.wav", pictures(2), **how)


def test_a_model_without_a_driver_has_no_dial(tiny_model: SeparationModel) -> None:
    mixture = noise(1, 9000)
    with pytest.raises(CompositionError, match="leave out steps 4 and solver 'euler'"):
        tiny_model.separate(mixture, "violin", rate=RATE, steps=4, solver="euler")
    done = tiny_model.separate(mixture, "violin", rate=RATE, seed=5)
    assert done.sampling is None
    np.testing.assert_array_equal(
        done.stems[0].waveform, tiny_model.separate(mixture, "violin", rate=RATE).stems[0].waveform
    )


@pytest.mark.parametrize(("full_level", "gain"), [(False, 1.0), (True, 0.5)])
def test_stems_are_as_loud_as_in_the_mixture(
    echo: Callable[..., SeparationModel], full_level: bool, gain: float
) -> None:
    """A source at full level that looks like the mixture of two is half of it."""
    mixture = noise(2, 20000)
    done = echo(full_level=full_level).separate(mixture, pictures(2), rate=11025, consistency=False)
    for stem in done.stems:
        np.testing.assert_allclose(stem.waveform, gain * mixture, atol=2e-3)
        assert stem.mask is not None
        assert np.median(stem.mask) == pytest.approx(gain, abs=0.01)


@pytest.mark.parametrize("consistency", [True, False])
@pytest.mark.parametrize("value", [1.0, -0.9, 8.0])
def test_estimates_of_silence_and_beyond_the_range(
    echo: Callable[..., SeparationModel], value: float, consistency: bool
) -> None:
    """Loud estimates where the recording is silent stay silent and finite, also beside sound."""
    mixture = noise(1, 24000)
    mixture[:, 6000:18000] = 0
    done = echo(value).separate(mixture, pictures(2), rate=RATE, consistency=consistency)
    for track in done.tracks:
        assert np.isfinite(track.waveform).all()
        assert np.abs(track.waveform[:, 6500:17500]).max() < 1e-6
        assert track.mask is None or np.isfinite(track.mask).all()
        assert np.abs(track.waveform).max() < 10.1 * np.abs(mixture).max()


def test_masks_keep_time_where_the_front_end_resamples_it(generative_parts: dict[str, PartConfig]) -> None:
    """128 frames are 64 columns of features; steps are whole columns, and the strip of masks is as long."""
    parts = generative_parts | {"front_end": generative_parts["front_end"].changed({"warp_frames": 64})}
    model = compose_recipe(parts, "davis_flow.tiny")
    front: Any = model.front_end
    assert front.column_seconds() == pytest.approx(127 / 63 * COLUMN / RATE)
    done = model.separate(noise(1, 5 * RATE), pictures(2), rate=RATE)
    assert done.mask_seconds == front.column_seconds()
    for stem in done.stems:
        assert stem.mask is not None
        assert (stem.mask.shape[1] - 1) * done.mask_seconds < 5 <= stem.mask.shape[1] * done.mask_seconds
    np.testing.assert_allclose(np.sum([t.waveform for t in done.tracks], axis=0), done.mixture, atol=1e-6)


def test_files_and_report_say_how_it_was_sampled(generative_model: SeparationModel, tmp_path: Path) -> None:
    done = generative_model.separate(noise(1, 8000), pictures(2), rate=RATE, steps=4, solver="ab2", seed=7)
    done.save(tmp_path / "stems")
    content = json.loads((tmp_path / "stems" / "separation.json").read_text())
    assert content["sampling"] == {"seed": 7, "steps": 4, "solver": "ab2", "evaluations": 4}
    page = done.report(tmp_path / "report.html").read_text()
    assert "4 steps of ab2, 4 network evaluations per source and segment, seed 7" in page


def test_a_card_keeps_the_driver(generative_model: SeparationModel, tmp_path: Path) -> None:
    card = write_card(tmp_path / "card", generative_model)
    assert card.manifest["parts"]["driver"] == {"name": "flow", "steps": 2}
    loaded = load(card.folder)
    assert isinstance(loaded.driver, Flow)
    mixture = noise(1, 9000)
    for a, b in zip(
        generative_model.separate(mixture, pictures(2), rate=RATE).tracks,
        loaded.separate(mixture, pictures(2), rate=RATE).tracks,
        strict=True,
    ):
        np.testing.assert_array_equal(a.waveform, b.waveform)


def test_a_driver_without_a_name_makes_no_card(generative_parts: dict[str, PartConfig], tmp_path: Path) -> None:
    slots: dict[str, Any] = {slot: part for slot, part in generative_parts.items() if slot != "objective"}
    model = compose(**slots | {"driver": Flow()})
    with pytest.raises(WeightsError, match="The driver of composed was given as a module"):
        write_card(tmp_path / "card", model)


def test_every_mixture_of_a_batch_sees_the_same_noise(generative_model: SeparationModel) -> None:
    """Unless their places in a recording are given; equal mixtures have equal estimates."""
    sound = torch.from_numpy(noise(1, 8191)).expand(2, -1)
    cues = generative_model.encode(generative_model.encoder.prepare(pictures(2), video=None, time=0.0)).repeat(2)
    batch = {"mixture": sound, "cues": cues}
    with torch.no_grad():
        first, second = generative_model.waveforms(batch, sampling=Sampling(seed=2))
        placed = generative_model.waveforms(batch, sampling=replace(Sampling(seed=2), starts=[0, 50]))
    torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(placed[0], first, atol=1e-5, rtol=1e-4)
    assert (placed[1] - first).abs().max() > 1e-3
