"""Everything but a source: stems by subtraction, what is left over, and what is said about them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avsep_zoo import Cue, SeparationModel
from avsep_zoo.compose import compose
from avsep_zoo.contracts import Bound, Estimate, Separator, SeparatorPlan, Site, Spectrum
from avsep_zoo.front_end import StftFrontEnd
from avsep_zoo.queries import Queries
from avsep_zoo.recipe import PartConfig
from avsep_zoo.separation import Separation, Stem

DUET = Path(__file__).resolve().parents[1] / "avsep_zoo" / "demo" / "duet.mp4"
SITES = {"bottleneck": Site("bottleneck", 8), "latent": Site("latent", 8), "head": Site("head", 4)}
VIOLIN, FLUTE = Cue(label="violin"), Cue(label="flute")
NO_VIOLIN, NO_FLUTE = Cue(label="violin", negated=True), Cue(label="flute", negated=True)


class ConstantMasks(Separator):
    """A separator with one mask value per query; it takes no other number of queries."""

    def __init__(self, values: Sequence[float]) -> None:
        super().__init__()
        self.sites, self.values = SITES, values

    @classmethod
    def plan(cls, **config: Any) -> SeparatorPlan:
        return SeparatorPlan(SITES)

    def forward(self, spectrum: Spectrum, inject: Bound) -> Estimate:
        assert inject.sources == len(self.values)
        mask = torch.tensor(self.values)[None, :, None, None]
        return Estimate(mask.expand(len(spectrum.warped), -1, *spectrum.warped.shape[2:]))


@pytest.fixture
def constant(tiny_parts: dict[str, PartConfig]) -> Callable[..., SeparationModel]:
    """A function that makes the tiny model with constant masks."""

    def make(*values: float) -> SeparationModel:
        return compose(
            encoder=tiny_parts["encoder"],
            conditioner=tiny_parts["conditioner"],
            separator=ConstantMasks(values),
            front_end=StftFrontEnd(**{**tiny_parts["front_end"].config, "warp_rows": 0}),
        )

    return make


def noise(channels: int, samples: int) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal((channels, samples)) * 0.1).astype(np.float32)


ONE = 0.64 / (0.64 + 0.04)  # the share of a mask of 0.8, of which 0.2 are left over
TWO = (0.09 / 0.38, 0.04 / 0.38)  # of masks of 0.3 and 0.2, of which 0.5 are left over


@pytest.mark.parametrize(
    ("cues", "masks", "stems", "residual"),
    [
        ([NO_VIOLIN], (0.8,), (1 - ONE,), ONE),
        ([NO_VIOLIN, NO_VIOLIN], (0.8,), (1 - ONE, 1 - ONE), ONE),
        ([VIOLIN, NO_VIOLIN], (0.8,), (ONE, 1 - ONE), None),
        ([NO_VIOLIN, VIOLIN, VIOLIN], (0.8,), (1 - ONE, ONE, ONE), None),
        ([VIOLIN, NO_FLUTE], (0.3, 0.2), (TWO[0], 1 - TWO[1]), TWO[1]),
        ([NO_FLUTE, VIOLIN], (0.3, 0.2), (1 - TWO[0], TWO[1]), TWO[0]),
        ([NO_VIOLIN, NO_FLUTE], (0.3, 0.2), (1 - TWO[0], 1 - TWO[1]), None),
        ([FLUTE, NO_FLUTE, NO_VIOLIN], (0.3, 0.2), (TWO[0], 1 - TWO[0], 1 - TWO[1]), None),
    ],
)
def test_the_things_that_are_named_share_the_mixture(
    constant: Callable[..., SeparationModel],
    cues: list[Cue],
    masks: tuple[float, ...],
    stems: tuple[float, ...],
    residual: float | None,
) -> None:
    """Each is asked for once; a residual is there where one thing is left out of all stems, and a note where not."""
    mixture = noise(2, 20000)
    done = constant(*masks).separate(mixture, cues, rate=11025)
    assert [stem.name for stem in done.stems] == [cue.title for cue in cues]
    for stem, gain in zip(done.stems, stems, strict=True):
        np.testing.assert_allclose(stem.waveform, gain * mixture, atol=2e-6)
    if residual is None:
        assert done.residual is None
        assert done.notes[-1] == "There is no residual: the stems together claim all of the mixture."
    else:
        assert done.residual is not None
        np.testing.assert_allclose(done.residual.waveform, residual * mixture, atol=2e-6)
        assert len(done.notes) == len(cues)


def test_without_consistency_a_mask_is_subtracted_as_it_is(constant: Callable[..., SeparationModel]) -> None:
    """There is no residual, and no note about it."""
    mixture = noise(1, 20000)
    done = constant(0.9, 0.6).separate(mixture, [NO_VIOLIN, FLUTE], rate=8000, consistency=False)
    for stem, gain in zip(done.stems, (0.1, 0.6), strict=True):
        np.testing.assert_allclose(stem.waveform, gain * mixture, atol=2e-6)
    assert done.residual is None
    assert done.notes == ["everything but violin: by label.", "flute: by label."]


@pytest.mark.parametrize("consistency", [True, False])
def test_a_source_and_all_but_it_are_the_mixture(tiny_model: SeparationModel, consistency: bool) -> None:
    """At the recording's own samples, segments and channels; and the source is what it is alone."""
    mixture = noise(2, 100000)
    pair = tiny_model.separate(mixture, [NO_VIOLIN, VIOLIN], rate=44100, consistency=consistency)
    np.testing.assert_allclose(pair.stems[0].waveform + pair.stems[1].waveform, mixture, atol=1e-7)
    alone = tiny_model.separate(mixture, VIOLIN, rate=44100, consistency=consistency)
    np.testing.assert_array_equal(pair.stems[1].waveform, alone.stems[0].waveform)


def test_the_mask_of_a_negated_stem_is_the_rest_of_its_query(tiny_model: SeparationModel) -> None:
    done = tiny_model.separate(noise(1, 30000), [VIOLIN, NO_VIOLIN], rate=8000)
    mask, rest = (np.asarray(stem.mask, np.float32) for stem in done.stems)
    assert mask.shape == rest.shape and 0 < mask.mean() < 1
    np.testing.assert_allclose(mask + rest, 1, atol=1e-3)


def test_a_generative_model_hears_all_but_a_source(generative_model: SeparationModel) -> None:
    """By the same noise as the source itself."""
    cue = {"frames": np.full((32, 32, 3), 200, np.uint8)}
    mixture = noise(1, 12000)
    apart = generative_model.separate(mixture, Cue(**cue, negated=True), rate=8000)
    alone = generative_model.separate(mixture, Cue(**cue), rate=8000)
    assert apart.residual is not None
    np.testing.assert_allclose(apart.residual.waveform, alone.stems[0].waveform, atol=1e-6)
    np.testing.assert_allclose(apart.stems[0].waveform, mixture - alone.stems[0].waveform, atol=1e-6)


def test_what_is_said_about_stems_is_in_the_order_of_cues(tiny_model: SeparationModel, tmp_path: Path) -> None:
    """Notes, pictures, boxes, cues and files, also where two stems share a query."""
    left = {"box": (0, 0, 190, 190)}
    cues = [Cue(**left, name="rest", negated=True), FLUTE, Cue(**left, name="left"), NO_FLUTE]
    done = tiny_model.separate(DUET, cues)
    assert [note.split(";")[0].rstrip(".") for note in done.notes[:4]] == [
        "rest: by the video's frames in its box",
        "flute: by label",
        "left: by the video's frames in its box",
        "everything but flute: by label",
    ]
    assert done.frames is not None and [picture is not None for picture in done.frames] == [True, False, True, False]
    assert done.boxes == [(0, 0, 190, 190), None, (0, 0, 190, 190), None]
    assert [cue.get("negated", False) for cue in done.cues] == [True, False, False, True]
    assert np.abs(done.stems[0].waveform - done.stems[3].waveform).max() > 1e-4
    files = done.save(tmp_path / "stems")
    assert [file.name for file in files[:4]] == ["rest.wav", "flute.wav", "left.wav", "everything but flute.wav"]
    document = json.loads(files[-1].read_text(encoding="utf-8"))
    assert document["residual"] is None
    assert document["stems"][3]["cue"] == {"label": "flute", "negated": True}


@pytest.mark.parametrize(
    ("cues", "adds_up"),
    [([VIOLIN, FLUTE], True), ([NO_VIOLIN], True), ([VIOLIN, NO_FLUTE], False)],
)
def test_a_report_says_that_tracks_add_up_only_where_they_do(tmp_path: Path, cues: list[Cue], adds_up: bool) -> None:
    wave = noise(1, 8000)
    done = Separation(
        stems=[Stem(cue.title, wave) for cue in cues],
        residual=Stem("residual", wave),
        mixture=wave,
        rate=8000,
        method="m",
        cues=[cue.describe() for cue in cues],
    )
    assert done.adds_up is adds_up
    page = done.report(tmp_path / "report.html").read_text(encoding="utf-8")
    assert ("add up to the mixture" in page) is adds_up
    assert "What no stem claims." in page


PICTURE = np.zeros((4, 6, 3), np.uint8)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ({"text": "The violin"}, {"text": "the  VIOLIN"}, True),
        ({"label": "violin"}, {"text": "violin"}, False),
        ({"frames": PICTURE, "name": "a"}, {"frames": PICTURE.copy()}, True),
        ({"frames": PICTURE}, {"frames": PICTURE + 1}, False),
        ({"frames": PICTURE}, {"frames": PICTURE.reshape(6, 4, 3)}, False),
        ({"frames": "A.png"}, {"frames": Path("A.png")}, True),
        ({"frames": "A.png"}, {"frames": "a.png"}, False),
        ({"box": (1, 2, 3, 4)}, {"box": np.array([1.0, 2, 3, 4])}, True),
        ({"label": "violin", "box": (1, 2, 3, 4)}, {"label": "violin", "box": (1, 2, 3, 5)}, False),
        ({"audio": np.zeros(4), "audio_rate": 8000}, {"audio": np.zeros(4), "audio_rate": 16000}, False),
    ],
)
def test_cues_that_show_the_same_are_one_query(first: dict[str, Any], second: dict[str, Any], same: bool) -> None:
    queries = Queries.of_cues([Cue(**first), Cue(**second, negated=True)])
    assert queries.of == ((0, 0) if same else (0, 1))
    assert len(queries.asked) == 1 + (not same)
    assert not any(cue.negated for cue in queries.asked)


def test_without_negation_every_cue_is_a_query() -> None:
    """The same cue twice, too: its stems share the sound."""
    assert Queries.of_cues([VIOLIN, VIOLIN]).asked == (VIOLIN, VIOLIN)
