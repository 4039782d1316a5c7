"""Long, full-band separation: what the masks do to a recording, whatever its rate, length and channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from scipy.signal import oaconvolve
from torch import Tensor

from avsep_zoo import Cue
from avsep_zoo.compose import compose
from avsep_zoo.contracts import Bound, Estimate, Separator, SeparatorPlan, Site, Spectrum
from avsep_zoo.errors import CueError, MediaError
from avsep_zoo.front_end import StftFrontEnd
from avsep_zoo.model import SeparationModel
from avsep_zoo.recipe import PartConfig

BAND = 4000.0  # Hz, half the rate of the model

Rule = Callable[[Spectrum, int], Tensor]

SITES = {"bottleneck": Site("bottleneck", 8), "latent": Site("latent", 8), "head": Site("head", 4)}


class RuleSeparator(Separator):
    """A separator that looks at the spectrum only: its masks (B, N, F', T) follow a rule."""

    kind = "mask"

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self.sites = SITES
        self.rule = rule

    @classmethod
    def plan(cls, **config: Any) -> SeparatorPlan:
        return SeparatorPlan(SITES)

    def forward(self, spectrum: Spectrum, inject: Bound) -> Estimate:
        return Estimate(self.rule(spectrum, inject.sources), kind=self.kind)


@pytest.fixture
def ruled(tiny_parts: dict[str, PartConfig]) -> Callable[..., SeparationModel]:
    """A function that makes the tiny model with masks by a rule, without a warp unless asked for."""

    def make(rule: Rule, **front_end: Any) -> SeparationModel:
        settings = {**tiny_parts["front_end"].config, "warp_rows": 0, **front_end}
        return compose(
            encoder=tiny_parts["encoder"],
            conditioner=tiny_parts["conditioner"],
            separator=RuleSeparator(rule),
            front_end=StftFrontEnd(**settings),
        )

    return make


def constant(*values: float) -> Rule:
    """One mask value per source."""
    return lambda spectrum, sources: torch.tensor(values)[None, :, None, None].expand(
        len(spectrum.warped), sources, *spectrum.warped.shape[2:]
    )


def by_frequency(gain: Callable[[Tensor], Tensor]) -> Rule:
    """The same mask in every frame: ``gain`` of the frequency in Hz."""

    def rule(spectrum: Spectrum, sources: int) -> Tensor:
        rows = spectrum.warped.shape[2]
        mask = gain(torch.linspace(0, BAND, rows)).to(torch.float32)[None, None, :, None]
        return mask.expand(len(spectrum.warped), sources, -1, spectrum.warped.shape[3])

    return rule


def noise(channels: int, samples: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((channels, samples)) * 0.1).astype(np.float32)


def tone(frequency: float, rate: int, seconds: float, amplitude: float = 0.3) -> np.ndarray:
    """(samples,) float32 sine."""
    time = np.arange(int(rate * seconds)) / rate
    return (amplitude * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


def level(x: np.ndarray) -> float:
    """RMS in dB."""
    return float(10 * np.log10(np.mean(np.square(x, dtype=np.float64)) + 1e-20))


@pytest.mark.parametrize("rate", [100, 8000, 11025, 44100, 96000])
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.75])
def test_masks_of_ones_give_the_mixture_back(ruled: Callable[..., SeparationModel], rate: int, overlap: float) -> None:
    """At any rate, length (1 sample, shorter and longer than a segment) and number of channels."""
    model = ruled(constant(1.0))
    for samples in (1, rate // 3, 2 * rate + 17):
        mixture = noise(6 if samples == 1 else 2, samples, seed=samples)
        done = model.separate(mixture, "violin", rate=rate, overlap=overlap)
        assert done.rate == rate
        np.testing.assert_allclose(done.stems[0].waveform, mixture, atol=2e-6)
        np.testing.assert_array_equal(done.mixture, mixture)
        assert done.residual is not None
        assert np.abs(done.residual.waveform).max() < 2e-6


def test_masks_of_ones_on_a_log_frequency_axis(ruled: Callable[..., SeparationModel]) -> None:
    mixture = noise(1, 50000)
    done = ruled(constant(1.0), warp_rows=128).separate(mixture, "violin", rate=44100)
    np.testing.assert_allclose(done.stems[0].waveform, mixture, atol=1e-5)


@pytest.mark.parametrize("rate", [8000, 11025, 44100])
def test_frequencies_of_the_mask_are_those_of_the_recording(ruled: Callable[..., SeparationModel], rate: int) -> None:
    low, high = tone(500, rate, 3), tone(2000, rate, 3)
    done = ruled(by_frequency(lambda f: f < 1000)).separate(low + high, "violin", rate=rate)
    assert done.residual is not None
    inside = slice(rate // 4, -rate // 4)
    for track, wanted in ((done.stems[0], low), (done.residual, high)):
        assert level((track.waveform[0] - wanted)[inside]) < level(wanted) - 50


@pytest.mark.parametrize(("inside", "gain"), [(2500.0, 1.0), (3500.0, 0.5)])
def test_above_its_band_the_mask_is_that_of_the_loud_part_of_the_top_octave(
    ruled: Callable[..., SeparationModel], inside: float, gain: float
) -> None:
    """The octave from 2 to 4 kHz has mask 1 up to 3 kHz and 0.5 beyond; where its energy lies decides."""
    rate = 44100
    model = ruled(by_frequency(lambda f: torch.where((f > 2000) & (f < 3000), 1.0, 0.5)))
    sound = tone(inside, rate, 3) + tone(10000, rate, 3)
    done = model.separate(sound, "violin", rate=rate, consistency=False)
    spectrum = np.abs(np.fft.rfft(done.stems[0].waveform[0, :rate] * np.hanning(rate)))
    before = np.abs(np.fft.rfft(done.mixture[0, :rate] * np.hanning(rate)))
    assert spectrum[10000] / before[10000] == pytest.approx(gain, abs=0.02)
    assert spectrum[int(inside)] / before[int(inside)] == pytest.approx(gain, abs=0.02)


@pytest.mark.parametrize("rate", [11000, 22050, 48000])
def test_times_of_the_mask_are_those_of_the_recording(ruled: Callable[..., SeparationModel], rate: int) -> None:
    """A mask that is on where a 3 kHz marker sounds cuts a 440 Hz tone there, without drift over 60 s."""

    def rule(spectrum: Spectrum, sources: int) -> Tensor:
        marked = spectrum.magnitude[:, :, 93:99].amax(dim=2, keepdim=True) > 0.5 * 0.25 * 127
        return marked.float().expand(-1, sources, spectrum.warped.shape[2], -1)

    seconds = 60
    rng = np.random.default_rng(0)
    on = np.arange(0.3, seconds - 0.5, 0.5) + rng.uniform(0, 0.1, int(seconds * 2) - 1)
    off = on + rng.uniform(0.15, 0.25, len(on))
    time = np.arange(rate * seconds) / rate
    gate = np.searchsorted(on, time, "right") > np.searchsorted(off, time, "right")
    carrier = tone(440, rate, seconds, 0.25)
    done = ruled(rule).separate(carrier + gate * tone(3000, rate, seconds, 0.5), "violin", rate=rate)

    smooth = np.hanning(2 * (rate // 100) + 1)  # 20 ms, odd
    spun = done.stems[0].waveform[0] * np.exp(-2j * np.pi * 440 * time)
    envelope = np.abs(oaconvolve(spun, smooth / smooth.sum(), mode="same"))
    heard = envelope > 0.5 * 0.25 / 2
    steps = np.flatnonzero(np.diff(heard.astype(int))) + 1.0
    assert len(steps) == 2 * len(on)
    late = (steps - np.stack([on, off], axis=1).reshape(-1) * rate) / rate  # seconds
    assert np.abs(late).max() < 0.010  # a frame of the model is 8 ms
    assert abs(late[:40].mean()) < 0.0015
    assert abs(late[-40:].mean()) < 0.0015

    strip = done.stems[0].mask
    assert strip is not None and done.mask_seconds is not None
    frames = np.arange(strip.shape[1]) * done.mask_seconds
    assert frames[-1] < seconds <= frames[-1] + done.mask_seconds
    shown = np.searchsorted(on, frames, "right") > np.searchsorted(off, frames, "right")
    assert np.mean((strip[10] > 0.5) != shown) < 0.03


def test_segments_are_cross_faded(ruled: Callable[..., SeparationModel]) -> None:
    """Masks that jump from segment to segment make no click; without overlap they do."""
    calls = 0

    def alternating(spectrum: Spectrum, sources: int) -> Tensor:
        nonlocal calls
        calls += 1
        return torch.full_like(spectrum.warped, 1.0 if calls % 2 else 0.25)

    model, hum = ruled(alternating), tone(100, 8000, 8)
    steepest = float(np.abs(np.diff(hum)).max())

    def steepness(overlap: float) -> float:
        done = model.separate(hum, "violin", rate=8000, overlap=overlap, batch=1)
        return float(np.abs(np.diff(done.stems[0].waveform[0])).max())

    assert steepness(0.5) < 1.01 * steepest
    assert steepness(0.25) < 1.01 * steepest
    assert steepness(0.0) > 1.5 * steepest


def test_batches_do_not_matter(tiny_model: SeparationModel) -> None:
    mixture = noise(1, 30000)
    one, four = (tiny_model.separate(mixture, ["violin", "drum"], rate=8000, batch=b) for b in (1, 4))
    for a, b in zip(one.tracks, four.tracks, strict=True):
        np.testing.assert_allclose(a.waveform, b.waveform, atol=1e-5)


def test_stems_and_residual_add_up(tiny_model: SeparationModel) -> None:
    mixture = noise(6, 30001)
    done = tiny_model.separate(mixture, ["violin", "drum", Cue(label="flute", name="x")], rate=12000)
    assert [stem.name for stem in done.tracks] == ["violin", "drum", "x", "residual"]
    total = np.sum([track.waveform for track in done.tracks], axis=0)
    np.testing.assert_allclose(total, mixture, atol=1e-6)


@pytest.mark.parametrize(
    ("masks", "consistency", "gains"),
    [
        ((0.9, 0.6), True, (0.81 / 1.17, 0.36 / 1.17, 0.0)),
        ((0.3, 0.2), True, (0.09 / 0.38, 0.04 / 0.38, 0.25 / 0.38)),
        ((0.9, 0.6), False, (0.9, 0.6)),
    ],
)
def test_mixture_consistency_shares_the_mixture_out_by_power(
    ruled: Callable[..., SeparationModel],
    masks: Sequence[float],
    consistency: bool,
    gains: Sequence[float],
) -> None:
    mixture = noise(1, 20000)
    done = ruled(constant(*masks)).separate(mixture, ["violin", "flute"], rate=8000, consistency=consistency)
    assert (done.residual is not None) == consistency
    for track, gain in zip(done.tracks, gains, strict=True):
        np.testing.assert_allclose(track.waveform, gain * mixture, atol=2e-6)


def test_magnitudes_instead_of_masks(ruled: Callable[..., SeparationModel]) -> None:
    """A separator may estimate magnitudes; they act, and are shown, as the share of the mixture they are."""
    model = ruled(lambda spectrum, sources: 0.7 * spectrum.warped.expand(-1, sources, -1, -1))
    model.separator.kind = "magnitude"  # type: ignore[assignment]
    mixture = noise(1, 20000)
    done = model.separate(mixture, "violin", rate=11025, consistency=False)
    np.testing.assert_allclose(done.stems[0].waveform, 0.7 * mixture, atol=1e-5)
    assert done.stems[0].mask is not None
    np.testing.assert_allclose(done.stems[0].mask, 0.7, atol=1e-3)


def test_same_cue_twice_gives_two_stems(ruled: Callable[..., SeparationModel]) -> None:
    done = ruled(constant(1.0, 1.0)).separate(noise(1, 9000), ["drum", "drum"], rate=8000)
    assert [stem.name for stem in done.stems] == ["drum", "drum"]
    np.testing.assert_allclose(done.stems[0].waveform, 0.5 * done.mixture, atol=2e-6)


def test_channels_that_cancel_are_heard(ruled: Callable[..., SeparationModel]) -> None:
    """Left = -right is silence in mono; the mask is then made from one channel."""

    def loud(spectrum: Spectrum, sources: int) -> Tensor:
        return (spectrum.magnitude.amax(dim=2, keepdim=True) > 1.0).float().expand_as(spectrum.warped)

    sound = tone(440, 8000, 3)
    done = ruled(loud).separate(np.stack([sound, -sound]), "violin", rate=8000)
    inside = slice(500, -500)
    np.testing.assert_allclose(done.stems[0].waveform[:, inside], done.mixture[:, inside], atol=1e-4)


def test_silence_stays_silence(tiny_model: SeparationModel) -> None:
    done = tiny_model.separate(np.zeros((2, 20000), np.float32), ["violin", "flute"], rate=44100)
    for track in done.tracks:
        assert track.waveform.shape == (2, 20000)
        assert not track.waveform.any()


@pytest.mark.parametrize("training", [True, False])
def test_mode_of_the_model_is_restored(tiny_model: SeparationModel, training: bool) -> None:
    """After a result and after an error; dropout and batch norm are in eval mode meanwhile."""
    tiny_model.train(training)
    before = tiny_model.separator.input_norm.running_mean.clone()  # type: ignore[union-attr, operator]
    tiny_model.separate(noise(1, 9000), "violin", rate=8000)
    assert tiny_model.training is training
    with pytest.raises(CueError, match="no class 'tuba'"):
        tiny_model.separate(noise(1, 9000), "tuba", rate=8000)
    assert tiny_model.training is training
    assert torch.equal(before, tiny_model.separator.input_norm.running_mean)  # type: ignore[union-attr, arg-type]


def test_progress_rises_to_the_end(ruled: Callable[..., SeparationModel]) -> None:
    seen: list[tuple[float, float | None]] = []
    ruled(constant(1.0)).separate(
        noise(1, 50000), "violin", rate=8000, progress=lambda done, total: seen.append((done, total))
    )
    done = [d for d, _ in seen]
    assert len(done) > 5
    assert done == sorted(set(done))
    assert seen[-1] == (6.25, 6.25)


@pytest.mark.parametrize("cues", [[], ()])
def test_no_cue(tiny_model: SeparationModel, cues: Sequence[Cue]) -> None:
    with pytest.raises(CueError, match="No cue is given"):
        tiny_model.separate(noise(1, 9000), cues, rate=8000)


def test_wrong_arguments(tiny_model: SeparationModel) -> None:
    sound = noise(1, 9000)
    with pytest.raises(CueError, match="Cue 2 is a dict"):
        tiny_model.separate(sound, ["violin", {"label": "flute"}], rate=8000)  # type: ignore[list-item]
    with pytest.raises(MediaError, match="without a sample rate"):
        tiny_model.separate(sound, "violin")
    with pytest.raises(MediaError, match="NaN"):
        tiny_model.separate(np.where(sound == sound[0, 5], np.nan, sound), "violin", rate=8000)
    for overlap in (-0.1, 0.8, float("nan")):
        with pytest.raises(ValueError, match="overlap"):
            tiny_model.separate(sound, "violin", rate=8000, overlap=overlap)
    with pytest.raises(ValueError, match="batch is 0"):
        tiny_model.separate(sound, "violin", rate=8000, batch=0)


def write_video(path: Path, seconds: float, *, sound: bool = True, rate: int = 8000) -> None:
    """Write pictures of rising brightness, 10 per second, with noise for sound."""
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("ffv1", rate=10)
        pictures.width, pictures.height, pictures.pix_fmt = 48, 32, "bgr0"
        track = container.add_stream("pcm_s16le", rate=rate) if sound else None
        for number in range(int(seconds * 10)):
            picture = np.full((32, 48, 3), 10 * number, np.uint8)
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(pictures.encode(None))
        if track is not None:
            samples = (noise(1, int(seconds * rate)) * 32767).astype(np.int16)
            block = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            block.sample_rate = rate
            container.mux(track.encode(block))
            container.mux(track.encode(None))


def test_media_without_sound(tiny_model: SeparationModel, tmp_path: Path) -> None:
    write_video(tmp_path / "silent.mkv", 1, sound=False)
    with pytest.raises(MediaError, match=r"silent\.mkv has no audio track"):
        tiny_model.separate(tmp_path / "silent.mkv", "violin")
    (tmp_path / "letter.mp3").write_text("Dear Sir or Madam")
    with pytest.raises(MediaError, match=r"letter\.mp3 is no media file"):
        tiny_model.separate(str(tmp_path / "letter.mp3"), "violin")


@pytest.mark.parametrize("seconds", [0.5, 2.3])
def test_pictures_of_a_video_are_taken_at_the_middle_of_each_segment(
    tiny_model: SeparationModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """Of a segment that ends with the file, the middle is that of the sound it has."""
    write_video(tmp_path / "duet.mkv", seconds)
    times: list[float] = []
    prepare = tiny_model.encoder.prepare

    def watched(cues: Sequence[Cue], *, video: Any, time: float) -> Any:
        times.append(time)
        return prepare(cues, video=video, time=time)

    monkeypatch.setattr(tiny_model.encoder, "prepare", watched)
    cues = [Cue(name="left", box=(0, 0, 24, 32)), Cue(label="flute")]
    done = tiny_model.separate(tmp_path / "duet.mkv", cues)
    step = 4096 / 8000
    starts = [0.0] if seconds < 1 else [0, step, 2 * step, 3 * step]
    middles = [(start + min(start + 8191 / 8000, seconds)) / 2 for start in starts]
    assert times == pytest.approx(middles, abs=0.001)
    assert done.frames is not None and done.boxes is not None
    picture, none = done.frames
    assert none is None
    assert picture is not None and picture.shape == (32, 48, 3)
    assert picture[0, 0, 0] == 10 * int(middles[0] * 10 + 1e-3)
    assert done.boxes == [(0, 0, 24, 32), None]
    assert done.notes == [
        "left: by the video's frames in its box.",
        "flute: by label; the video's pictures were not used, since the cue has no box.",
    ]
