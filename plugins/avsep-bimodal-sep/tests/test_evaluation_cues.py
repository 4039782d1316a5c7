"""What a model of texts and sounds is told in an evaluation: captions, classes, or examples."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from avsep_zoo.cli import app
from avsep_zoo.compose import compose_recipe
from avsep_zoo.cue import Cue
from avsep_zoo.data.examples import with_examples
from avsep_zoo.data.fixed_mixtures import FixedMixtures
from avsep_zoo.data.reader import open_data
from avsep_zoo.errors import DataError
from avsep_zoo.evaluation.contender import Contender, Setting
from avsep_zoo.evaluation.protocols import PROTOCOLS
from avsep_zoo.evaluation.run import ALL_CUES, evaluate
from avsep_zoo.evaluation.scorer import Scorer, Separated
from avsep_zoo.recipe import PartConfig
from avsep_zoo.weights.cards import write_card

RATE, LENGTH = 8000, 2047
OWN = PROTOCOLS["own"]


@pytest.fixture
def contender(tmp_path: Path) -> Contender:
    """A small model that knows cellos and flutes, with random weights."""
    words = {"naming": ["cello", "flute"], "width": 8, "heads": 2, "ear": 2}
    front_end = {"rate": RATE, "length": LENGTH, "n_fft": 126, "hop_length": 64, "warp_rows": 32}
    parts = {
        "encoder": PartConfig("bimodal_sep.words", words),
        "conditioner": PartConfig("bimodal_sep.attention", {"heads": 2}),
        "separator": PartConfig("bimodal_sep.unet", {"width": 2, "levels": 5, "mask_features": 4}),
        "front_end": PartConfig("stft", front_end),
        "objective": PartConfig("bimodal_sep.bimodal", {"mixture": "sum", "contrastive": 0.0}),
    }
    torch.manual_seed(0)
    model = compose_recipe(parts, "bimodal_sep.tiny")
    with torch.no_grad():
        for name, parameter in model.conditioner.named_parameters():
            if name.startswith("heads") and name.endswith("fc.weight"):
                parameter.normal_()  # so that texts make a difference
    return Contender("words", write_card(tmp_path / "card", model.eval()))


def noises(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        path = folder / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.random.default_rng(number).uniform(-0.4, 0.4, 3000), RATE)


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    """A pair of AudioCaps."""
    root = tmp_path / "captions"
    noises(root / "audio", "a_0", "b_0")
    texts = {"1": ("a_0", "A cello is played"), "2": ("b_0", "A flute, and birds")}
    entries = {n: {"file_id": f, "caption": text, "sources": [text]} for n, (f, text) in texts.items()}
    (root / "parsed_all_caps.json").write_text(json.dumps(entries))
    (root / "test_sep2_ids.csv").write_text("1,2\n")
    return root


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Two cellos and two flutes, and two pairs of them."""
    root = tmp_path / "classes"
    names = ("cello/a", "cello/b", "flute/a", "flute/b")
    noises(root / "audio", *names)
    (root / "test.csv").write_text("".join(f"/{name}.wav,/{name}.mp4,0\n" for name in names))
    (root / "testsep.csv").write_text("/cello/a.wav,/flute/a.wav\n/cello/b.wav,/flute/b.wav\n")
    return root


class Heard:
    """The first mixture of a folder, separated by a model that was told what ``use`` says."""

    def __init__(self, contender: Contender, data: Path, use: set[str]) -> None:
        reader = open_data(data)
        mixtures = reader.mixtures(reader.mixture_lists()[0])
        mixtures = with_examples(mixtures, [clip for clips in mixtures for clip in clips])
        how = {"use": frozenset(use), "consistency": True}
        self.scorer = Scorer(contender, OWN, Setting.of(OWN, contender), **how)  # type: ignore[arg-type]
        [found] = self.scorer.separate(mixtures[:1])
        assert isinstance(found, Separated), found
        self.estimates = found.estimates
        sources = FixedMixtures(mixtures, None, rate=RATE, length=LENGTH, reads=frozenset())[0]["sources"]
        self.mixture = sources.sum(dim=0, keepdim=True)

    def by(self, *cues: Cue) -> bool:
        """Whether these cues give the same estimates."""
        prepared = self.scorer.model.encoder.prepare(list(cues), video=None, time=0.0)
        with torch.inference_mode():
            batch = {"mixture": self.mixture, "cues": prepared}
            [estimates] = self.scorer.model.waveforms(batch, consistency=True)
        return torch.allclose(estimates[:, : self.estimates.shape[1]], self.estimates, atol=1e-5)


@pytest.mark.parametrize("use", [{"text"}, {"label"}, set(ALL_CUES)])
def test_captions_tell_what_is_wanted(contender: Contender, captions: Path, use: set[str]) -> None:
    """Also where classes should and there are none."""
    found = Heard(contender, captions, use)
    assert found.by(Cue(text="A cello is played"), Cue(text="A flute, and birds"))
    assert not found.by(Cue(text="A flute, and birds"), Cue(text="A cello is played"))


@pytest.mark.parametrize("use", [{"text"}, {"label"}, set(ALL_CUES)])
def test_classes_tell_what_is_wanted_although_there_are_examples(
    contender: Contender, classes: Path, use: set[str]
) -> None:
    found = Heard(contender, classes, use)
    assert found.by(Cue(label="cello"), Cue(label="flute"))


def test_examples_tell_what_is_wanted(contender: Contender, classes: Path) -> None:
    """The other clips of the classes."""
    found = Heard(contender, classes, {"audio"})
    audio = classes / "audio"
    assert found.by(Cue(audio=audio / "cello/b.wav"), Cue(audio=audio / "flute/b.wav"))
    assert not found.by(Cue(label="cello"), Cue(label="flute"))


def test_an_evaluation_by_captions(contender: Contender, captions: Path) -> None:
    results = evaluate([contender], captions, protocol=OWN, use=frozenset({"text"}))
    [model] = results["models"]
    assert model["use"] == ["text"] and model["lists"][0]["mixtures"] == 1
    assert model["lists"][0]["items"][0]["labels"] == ["A cello is played", "A flute, and birds"]


def test_an_evaluation_by_examples(contender: Contender, classes: Path) -> None:
    """Mixtures with a class of one clip have no score."""
    with (classes / "testsep.csv").open("a") as rows:
        rows.write("/cello/a.wav,/oboe/a.wav\n")
    with (classes / "test.csv").open("a") as rows:
        rows.write("/oboe/a.wav,/oboe/a.mp4,0\n")
    noises(classes / "audio", "oboe/a")
    [model] = evaluate([contender], classes, protocol=OWN, use=frozenset({"audio"}))["models"]
    [entry] = model["lists"]
    assert entry["mixtures"] == 2 and len(entry["skipped"]) == 1
    assert "The clip 'oboe/a' has no other clip of its class" in entry["skipped"][0]["why"]


def test_examples_that_there_are_none_of(contender: Contender, captions: Path) -> None:
    with pytest.raises(DataError, match=r"None of the 1 mixtures .*: The clip '1' has no other clip of its class"):
        evaluate([contender], captions, protocol=OWN, use=frozenset({"audio"}))


@pytest.mark.parametrize(("use", "given"), [("audio", ["audio"]), ("both", ["audio", "label", "text"])])
def test_the_command_line_knows_examples(contender: Contender, classes: Path, use: str, given: list[str]) -> None:
    assert contender.card is not None
    call = ["evaluate", str(contender.card.folder), "--data", str(classes), "--use", use, "--json"]
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["models"][0]["use"] == given
