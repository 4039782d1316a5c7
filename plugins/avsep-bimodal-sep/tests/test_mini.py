"""The bundled model, asked in words: what it separates of the demo clip, whose true sources are known."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import soxr

import avsep_zoo
from avsep_zoo import Cue, SeparationModel, cues_of_caption
from avsep_zoo.errors import CueError, CueWarning
from avsep_zoo.evaluation import bss_eval
from avsep_zoo.load import find_card
from avsep_zoo.media import read_audio

RATE = 22050
CLIP = Path(str(files("avsep_zoo"))) / "demo"


@pytest.fixture(scope="module")
def model() -> SeparationModel:
    return avsep_zoo.load("bimodal_sep")


def mono(waveform: np.ndarray, rate: int) -> np.ndarray:
    return soxr.resample(np.asarray(waveform).mean(axis=0), rate, RATE)


def improvements(result: avsep_zoo.Separation, true: Sequence[str]) -> list[float]:
    """In dB of SDR over the mixture, of stems that should be these sources."""
    wanted = [mono(*read_audio(CLIP / f"{name}.flac")) for name in true]
    stems = [mono(stem.waveform, result.rate) for stem in result.stems]
    mixture = mono(result.mixture, result.rate)
    length = min(len(sound) for sound in (*wanted, *stems, mixture))
    scores = []
    for reference, stem in zip(wanted, stems, strict=True):
        before, after = (bss_eval(reference[None, :length], x[None, :length]).sdr[0] for x in (mixture, stem))
        scores.append(float(after - before))
    return scores


def test_a_sentence_gives_a_stem_for_each_source(model: SeparationModel) -> None:
    cues = cues_of_caption("someone plays the cello while a mandolin is plucked")
    result = model.separate(CLIP / "duet.mp4", cues)
    assert [stem.name for stem in result.stems] == ["Someone plays the cello", "A mandolin is plucked"]
    assert min(improvements(result, ("cello", "mandolin"))) > 8


@pytest.mark.parametrize("words", ["violoncello", "THE SOUND OF A CELLO!", "a recording of some cellos"])
def test_other_words_for_the_same(model: SeparationModel, words: str) -> None:
    result = model.separate(CLIP / "duet.mp4", Cue(text=words))
    assert min(improvements(result, ("cello",))) > 8


def test_everything_but_a_source_is_the_other(model: SeparationModel) -> None:
    (cue,) = cues_of_caption("everything but the cello")
    result = model.separate(CLIP / "duet.mp4", cue)
    assert min(improvements(result, ("mandolin",))) > 8
    assert result.residual is not None
    assert np.allclose(result.stems[0].waveform + result.residual.waveform, result.mixture, atol=1e-5)


def test_an_example_of_the_sound(model: SeparationModel) -> None:
    """Here the source itself; the other one by its name."""
    cues = [Cue(audio=CLIP / "cello.flac", name="like this"), Cue(label="mandolin")]
    assert min(improvements(model.separate(CLIP / "duet.mp4", cues), ("cello", "mandolin"))) > 5


def test_unknown_words_are_named(model: SeparationModel) -> None:
    with pytest.warns(CueWarning, match=r"the word 'sousaphonic' is unknown and was left out"):
        result = model.separate(CLIP / "duet.mp4", Cue(text="a sousaphonic cello"))
    assert any("sousaphonic" in note for note in result.notes)
    with pytest.raises(CueError, match=r"'A dog barks' names no sound that this model knows: .*'dog', 'barks'"):
        model.separate(CLIP / "duet.mp4", cues_of_caption("a dog barks while a man speaks"))


def test_it_is_small_and_needs_no_download(model: SeparationModel) -> None:
    assert find_card("bimodal_sep").manifest["bytes"] <= 8 * 10**6
    assert type(model.encoder).__name__ == "WordEncoder"
