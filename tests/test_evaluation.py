"""Whole evaluations of models with masks whose worth is known, under every kind of protocol."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from avsep_zoo.compose import compose_recipe
from avsep_zoo.contracts import Bound, Estimate, Separator, SeparatorPlan, Site, Spectrum
from avsep_zoo.errors import DataError
from avsep_zoo.evaluation.bss import bss_eval
from avsep_zoo.evaluation.contender import Contender, Setting
from avsep_zoo.evaluation.protocols import PROTOCOLS, Protocol, find_protocol
from avsep_zoo.evaluation.run import ALL_CUES, evaluate
from avsep_zoo.evaluation.scorer import Scorer, Separated
from avsep_zoo.recipe import PartConfig
from avsep_zoo.registry import Entry, registry
from avsep_zoo.weights.cards import read_card, write_card

RATE = 8000
SITES = {"bottleneck": Site("bottleneck", 8), "latent": Site("latent", 8), "head": Site("head", 4)}
OWN, COMMON = PROTOCOLS["own"], PROTOCOLS["common"]
MIXTURE, RATIO = Contender("mixture"), Contender("ideal_ratio_mask")

PAPER = replace(PROTOCOLS["iquery.music"], loader="default")  # the published loader takes 8 kHz for 11025 Hz
LONG = Protocol(name="long", summary="", source="", rate=RATE, length=12000, mixture="sum", window=8191, hop=2000)
# 8191 samples are what the models of these tests hear at once, and 8128 of them come back


class GivenMasks(Separator):
    """A separator with the same masks in every frame, whatever it hears: 1 above or below 1 kHz, or everywhere."""

    def __init__(self, *, passes: list[str], widths: Any = None) -> None:
        super().__init__()
        self.sites = SITES
        high = (torch.linspace(0, RATE / 2, 128) > 1000).float()
        kinds = {"high": high, "low": 1 - high, "all": torch.ones(128), "none": torch.zeros(128)}
        self.masks = torch.stack([kinds[name] for name in passes])  # (N, F)

    @classmethod
    def plan(cls, **config: Any) -> SeparatorPlan:
        return SeparatorPlan(SITES)

    def forward(self, spectrum: Spectrum, inject: Bound) -> Estimate:
        batch, _, _, frames = spectrum.warped.shape
        return Estimate(self.masks[None, :, :, None].expand(batch, -1, -1, frames))


@pytest.fixture
def masked(tiny_parts: dict[str, PartConfig], tmp_path: Path) -> Iterator[Callable[..., Contender]]:
    """A function that makes a card of a model with given masks for the first and the second source."""
    key = ("separator", "given_masks")
    registry().entries[key] = Entry(*key, GivenMasks, "", "tests")

    def make(*passes: str, objective: str = "sum") -> Contender:
        front = {**tiny_parts["front_end"].config, "warp_rows": 0}
        parts = tiny_parts | {
            "separator": PartConfig("given_masks", {"passes": list(passes)}),
            "front_end": PartConfig("stft", front),
            "objective": PartConfig("iquery.masks", {"mixture": objective}),
        }
        folder = tmp_path / "cards" / "-".join((*passes, objective))
        card = write_card(folder, compose_recipe(parts, "iquery.masks"))
        return Contender("+".join(passes), card)

    yield make
    del registry().entries[key]


def band_noise(low: float, high: float, seed: int) -> np.ndarray:
    """1.5 s of noise between two frequencies in Hz, RMS 0.1."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(12000))
    frequencies = np.fft.rfftfreq(12000, 1 / RATE)
    sound = np.fft.irfft(spectrum * ((frequencies >= low) & (frequencies < high)))
    return np.asarray(0.1 * sound / sound.std(), np.float32)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Violins above 1.2 kHz, drums and flutes below 800 Hz; three mixtures, a violin first."""
    root = tmp_path / "data"
    sounds = {
        "violin/a": band_noise(1200, 3500, 0),
        "violin/b": band_noise(1200, 3500, 1),
        "drum/a": band_noise(50, 800, 2),
        "flute/a": band_noise(50, 800, 3),
        "flute/silent": np.zeros(12000, np.float32),
    }
    rows = []
    for name, sound in sounds.items():
        path = root / "audio" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, sound, RATE, "FLOAT")
        rows.append(f"/{name}.wav,/{name}.mp4,0\n")
    (root / "test.csv").write_text("".join(rows))
    write_pairs(root, [("violin/a", "drum/a"), ("violin/b", "flute/a"), ("violin/a", "flute/a")])
    return root


def write_pairs(data: Path, pairs: list[tuple[str, str]]) -> None:
    (data / "testsep.csv").write_text("".join(f"/{a}.wav, /{b}.wav\n" for a, b in pairs))


def means(data: Path, *contenders: Contender, protocol: Protocol = OWN, **options: Any) -> list[dict[str, Any]]:
    """The results on the one list, per contender."""
    results = evaluate(contenders, data, protocol=protocol, **options)
    assert json.loads(json.dumps(results, allow_nan=False)) == results
    return [model["lists"][0] for model in results["models"]]


def mean(entry: dict[str, Any], metric: str) -> float:
    return float(entry["mean"][metric]["mean"])


@pytest.mark.parametrize("protocol", [OWN, COMMON, LONG, PAPER], ids=lambda p: p.name)
@pytest.mark.parametrize("consistency", [True, False, None])
def test_right_masks_score_high(
    masked: Callable[..., Contender], data: Path, protocol: Protocol, consistency: bool | None
) -> None:
    """At the model's rate and length, at another rate, in windows, and as published."""
    done: list[tuple[Any, ...]] = []
    [entry] = means(
        data, masked("high", "low"), protocol=protocol, consistency=consistency, progress=lambda *at: done.append(at)
    )
    assert mean(entry, "sdr") > 20 and mean(entry, "sir") > 25 and mean(entry, "si_sdr") > 15
    assert abs(mean(entry, "mixture_sdr")) < 1.5
    assert mean(entry, "sdr_improvement") == pytest.approx(mean(entry, "sdr") - mean(entry, "mixture_sdr"))
    assert (entry["name"], entry["mixtures"], entry["skipped"]) == ("testsep", 3, [])
    assert [row["label"] for row in entry["by_class"]] == ["drum", "flute", "violin"]
    assert entry["items"][1]["clips"] == ["violin/b", "flute/a"]
    assert (done[0][2:], done[-1]) == ((0, 3), ("high+low", "testsep", 3, 3))


def test_wrong_masks_score_low_and_no_order_is_searched_for(masked: Callable[..., Contender], data: Path) -> None:
    everything, swapped = means(data, masked("all", "all"), masked("low", "high"))
    assert mean(everything, "sdr_improvement") == pytest.approx(0, abs=0.05)
    assert mean(swapped, "sdr_improvement") < -10


def test_improvement_of_each_class(masked: Callable[..., Contender], data: Path) -> None:
    """Violins are separated, the others get the mixture."""
    [entry] = means(data, masked("high", "all"), consistency=False)
    gains = {row["label"]: row["sdr_improvement"] for row in entry["by_class"]}
    assert gains["violin"] > 20
    assert abs(gains["drum"]) < 0.05 and abs(gains["flute"]) < 0.05
    assert mean(entry, "sdr_improvement") == pytest.approx(gains["violin"] / 2, abs=0.1)


def test_baselines_hear_the_same_mixtures_as_the_first_model(masked: Callable[..., Contender], data: Path) -> None:
    model, mixture, ideal = means(data, masked("high", "low"), MIXTURE, RATIO)
    assert [item["mixture_sdr"] for item in model["items"]] == [item["mixture_sdr"] for item in mixture["items"]]
    assert all(item["sdr"] == item["mixture_sdr"] for item in mixture["items"])
    assert mean(ideal, "sdr") > 20


def test_baselines_alone_need_no_model(data: Path) -> None:
    results = evaluate([RATIO, MIXTURE], data, protocol=OWN)
    assert (results["protocol"]["rate"], results["models"][0]["kind"]) == (11025, "baseline")
    assert results["models"][0]["lists"][0]["mixtures"] == 3


def test_mixtures_without_a_score_are_named_and_end_nothing(masked: Callable[..., Contender], data: Path) -> None:
    """A silent source, a broken file, a missing file and a row of an unknown clip."""
    (data / "audio/drum/a.wav").write_bytes(b"no sound")
    (data / "audio/violin/b.wav").unlink()
    pairs = [("violin/a", "flute/silent"), ("violin/a", "drum/a"), ("violin/b", "flute/a"), ("violin/a", "flute/a")]
    write_pairs(data, [*pairs, ("violin/a", "flute/none")])
    [entry] = means(data, masked("high", "low"))
    assert entry["mixtures"] == 1 and entry["items"][0]["id"] == "testsep-0004"
    why = {skipped["where"].split()[0]: skipped["why"] for skipped in entry["skipped"]}
    assert why["testsep-0001"] == "source 2 is silent"
    assert "drum/a.wav" in why["testsep-0002"] and "violin/b.wav" in why["testsep-0003"]
    assert len(entry["skipped"]) == 4 and any("flute/none" in reason for reason in why.values())
    with pytest.raises(DataError, match=r"None of the \d mixtures of testsep can be scored with high\+low; the first"):
        means(data, masked("high", "low"), limit=2)


def test_a_model_that_finds_nothing_does_not_end_the_others(masked: Callable[..., Contender], data: Path) -> None:
    nothing, good = means(data, masked("all", "none"), masked("high", "low"), consistency=False)
    assert nothing["mixtures"] == 0 and nothing["mean"]["sdr"]["mean"] is None
    assert [skipped["why"] for skipped in nothing["skipped"]] == ["estimate 2 is silent"] * 3
    assert good["mixtures"] == 3


def test_cues_that_the_model_does_not_know_are_reasons(masked: Callable[..., Contender], data: Path) -> None:
    for name in ("audio/flute", "audio/drum"):
        (data / name).rename(data / name.replace("flute", "kazoo"))
    for name in ("test.csv", "testsep.csv"):
        (data / name).write_text((data / name).read_text().replace("flute", "kazoo"))
    [entry] = means(data, masked("high", "low"))
    assert entry["mixtures"] == 1
    assert all("no class 'kazoo'" in skipped["why"] for skipped in entry["skipped"])
    with pytest.raises(DataError, match="reads frames and label, not text"):
        means(data, masked("high", "low"), use=frozenset({"text"}))


def scorer(contender: Contender, protocol: Protocol) -> Scorer:
    setting = Setting.of(protocol, contender)
    return Scorer(contender, protocol, setting, use=ALL_CUES, consistency=protocol.consistency)


def separated(contender: Contender, protocol: Protocol, data: Path) -> Separated:
    from avsep_zoo.data.reader import open_data

    [found] = scorer(contender, protocol).separate(open_data(data, "music").mixtures("testsep")[:1])
    assert isinstance(found, Separated)
    return found


def clip(data: Path, name: str) -> Tensor:
    return torch.from_numpy(soundfile.read(data / "audio" / f"{name}.wav", dtype="float32")[0])


def test_own_settings_are_those_of_the_model(masked: Callable[..., Contender], data: Path) -> None:
    """8191 samples from the middle, of which 127 hops come back, mixed by the rule of the objective."""
    found = separated(masked("high", "low", objective="mean"), OWN, data)
    violin, drum = (clip(data, name)[1904 : 1904 + 8128] for name in ("violin/a", "drum/a"))
    assert found.rate == RATE
    torch.testing.assert_close(found.sources, torch.stack((violin, drum)) / 2, atol=2e-3, rtol=0)
    torch.testing.assert_close(found.mixture, found.sources.sum(0))


def test_rules_of_protocols(masked: Callable[..., Contender], data: Path) -> None:
    """What is mixed and what is the truth: the mean, full-level sources, estimates restored, a cut end."""
    model = masked("high", "low")
    plain = separated(model, replace(LONG, mixture="mean", placement="start"), data)
    torch.testing.assert_close(plain.sources[0], clip(data, "violin/a")[: plain.sources.shape[1]] / 2)
    full = separated(model, replace(LONG, mixture="mean", placement="start", full_level=True, restore=True), data)
    torch.testing.assert_close(full.sources, 2 * plain.sources)
    torch.testing.assert_close(full.mixture, plain.mixture)
    torch.testing.assert_close(full.estimates, (2 * plain.estimates).clamp(-1, 1))
    later = separated(model, replace(LONG, placement="start", offset=0.25, scored=4000), data)
    torch.testing.assert_close(later.sources[0], clip(data, "violin/a")[2000:6000])


def test_a_mixture_ends_with_its_shortest_source(masked: Callable[..., Contender], data: Path) -> None:
    soundfile.write(data / "audio/drum/a.wav", clip(data, "drum/a")[:10000].numpy(), RATE, "FLOAT")
    protocol = replace(LONG, placement="start", shortest=True)
    assert separated(MIXTURE, protocol, data).mixture.shape == (10000,)
    assert separated(masked("high", "low"), protocol, data).mixture.shape == (10000,)


def test_published_windows_are_averaged(masked: Callable[..., Contender], data: Path) -> None:
    """Windows from 0, 2000, and the last one from 3809 on: the mean of what the model says of each."""
    contender = masked("high", "low")
    protocol = replace(LONG, placement="start", consistency=False)
    found = separated(contender, protocol, data)
    model = scorer(contender, protocol).model
    whole = clip(data, "violin/a") + clip(data, "drum/a")
    total, count = torch.zeros(2, 12000), torch.zeros(12000)
    for start in (0, 2000, 3809):
        segment = whole[None, start : start + 8191]
        estimate = Estimate(model.separator.masks[None, :, :, None].expand(1, -1, -1, 128))  # type: ignore[index,operator]
        part = model.front_end.synthesise(estimate, model.front_end.analyse(segment), length=8191)[0]
        total[:, start : start + 8191] += part
        count[start : start + 8191] += 1
    torch.testing.assert_close(found.estimates, total / count, atol=1e-5, rtol=0)


def test_published_means_stand_beside_the_plain_ones(masked: Callable[..., Contender], data: Path) -> None:
    protocol = replace(PROTOCOLS["iquery.music"], rate=RATE, length=8191, scored=8128, batch=2)
    [entry] = means(data, masked("high", "low"), protocol=protocol)
    first, second, third = (np.mean(item["sdr"]) for item in entry["items"])
    assert entry["published_mean"]["name"] == "mean over batches of 2 mixtures, a smaller last one weighs the same"
    assert entry["published_mean"]["sdr"] == pytest.approx(((first + second) / 2 + third) / 2)
    assert [(r["metric"], r["value"]) for r in entry["reported"]] == [("sdr", 11.17), ("sir", 15.84), ("sar", 14.27)]
    assert all("IAL-CMS" in r["source"] for r in entry["reported"])


def test_a_list_of_the_protocol_is_preferred_and_a_foreign_set_is_a_note(data: Path) -> None:
    (data / "testsepmusic21.csv").write_text((data / "testsep.csv").read_text().splitlines()[0] + "\n")
    (data / "testmusic21.csv").write_text((data / "test.csv").read_text())
    results = evaluate([MIXTURE], data, protocol=replace(PROTOCOLS["iquery.music21"], length=8191))
    assert results["notes"] == []
    foreign = evaluate([MIXTURE], data, protocol=replace(PROTOCOLS["iquery.ave"], length=8191), dataset="music")
    assert "is for ave and the data is another set" in foreign["notes"][0]
    assert foreign["models"][0]["lists"][0]["name"] == "testsep"


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_can_be_applied(data: Path, name: str) -> None:
    """Whatever its rate and length are, an ideal mask separates what does not overlap."""
    protocol = find_protocol(name)
    assert protocol.name == name and protocol.summary.endswith(".") and protocol.source
    [entry] = means(data, RATIO, protocol=protocol, limit=1)
    assert entry["mixtures"] == 1 and mean(entry, "sdr") > 12


def test_an_unknown_protocol_is_a_sentence() -> None:
    with pytest.raises(DataError, match=r"no protocol 'iquery\.musik'; did you mean 'iquery\.music'"):
        find_protocol("iquery.musik")


def test_the_numbers_of_a_model_are_those_of_its_waveforms(card: Path, data: Path) -> None:
    """A real tiny model under its own protocol, against what it says of the segment itself."""
    contender = Contender("iquery.tiny", read_card(card))
    found = separated(contender, OWN, data)
    [entry] = means(data, contender, limit=1)
    want = bss_eval(found.sources, found.estimates)
    for metric, values in zip(("sdr", "sir", "sar"), want[:3], strict=True):
        np.testing.assert_allclose(entry["items"][0][metric], values, atol=1e-3)
