"""The weights that come with the zoo."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import avsep_zoo
from avsep_zoo import Cue
from avsep_zoo.evaluation import bss_eval
from avsep_zoo.media import read_audio, resample
from avsep_zoo.weights.cards import card_folder

DEMO = Path(avsep_zoo.__file__).parent / "demo"


def mono(waveform: np.ndarray, rate: int, samples: int) -> np.ndarray:
    """The first samples at 11025 Hz."""
    return resample(np.asarray(waveform).mean(axis=0, keepdims=True), rate, 11025)[0][:samples]


@pytest.mark.parametrize("method", ["davis", "davis_flow"])
@pytest.mark.skipif(card_folder("davis.mini") is None, reason="the bundled weights are not here")
def test_the_demo_duet_is_separated_by_its_boxes(method: str) -> None:
    """Each source comes out better than it is in the mixture; the same seed gives the same stems."""
    about = json.loads((DEMO / "duet.json").read_text(encoding="utf-8"))
    cues = [Cue(name=source["label"], boxes=source["boxes"]) for source in about["sources"]]
    model = avsep_zoo.load(method)
    result = model.separate(DEMO / about["media"], cues, seed=3)
    truth = np.stack([mono(*read_audio(DEMO / source["file"]), 60000) for source in about["sources"]])
    stems = np.stack([mono(stem.waveform, result.rate, 60000) for stem in result.stems])
    mixture = np.broadcast_to(mono(result.mixture, result.rate, 60000), truth.shape)
    after, before = bss_eval(truth, np.stack((stems, mixture))).sdr
    assert (after - before > 1).all(), after - before
    again = model.separate(DEMO / about["media"], cues, seed=3)
    assert all(np.array_equal(a.waveform, b.waveform) for a, b in zip(result.stems, again.stems, strict=True))
    assert result.sampling is not None and result.sampling["seed"] == 3
