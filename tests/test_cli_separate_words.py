"""``avsep separate`` by words and by examples: the options, their order, and what they refuse."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
import torch
import typer
from typer.testing import CliRunner, Result

import avsep_zoo
from avsep_zoo import Cue
from avsep_zoo.cli import app
from avsep_zoo.cli.cue_options import all_cues
from avsep_zoo.compose import compose_recipe
from avsep_zoo.contracts import CueBatch, CueEncoder, Embedding, EncoderPlan
from avsep_zoo.media import read_audio
from avsep_zoo.plugins import register_plugin
from avsep_zoo.recipe import PartConfig
from avsep_zoo.registry import registry
from avsep_zoo.weights.cards import write_card

if TYPE_CHECKING:
    from avsep_zoo.media import VideoSource

RATE = 8000
KNOWN = ("a", "the", "violin", "flute", "plays", "sings")


class Words(CueEncoder):
    """A text is which of the known words it has, a sound is its level."""

    def __init__(self) -> None:
        super().__init__()
        plan = self.plan()
        self.reads, self.gives, self.optional = plan.reads, plan.gives, plan.optional
        self.fc = torch.nn.Linear(len(KNOWN) + 1, 4)

    @classmethod
    def plan(cls, **config: Any) -> EncoderPlan:
        reads = frozenset({"text", "audio"})
        return EncoderPlan(reads, {"vector": 4}, reads)

    def prepare(
        self,
        cues: Sequence[Cue],
        *,
        video: VideoSource | None,
        time: float,
        rng: np.random.Generator | None = None,
    ) -> CueBatch:
        words = [[float(word in str(cue.text).lower().split()) for word in KNOWN] for cue in cues]
        levels = [[0.0 if cue.audio is None else float(np.abs(read_audio(str(cue.audio))[0]).mean())] for cue in cues]
        values = {"text": torch.tensor([words]), "audio": torch.tensor([levels])}
        return CueBatch(values, {name: torch.tensor([[name in cue.modalities for cue in cues]]) for name in values})

    def remarks(self, cues: Sequence[Cue]) -> list[str]:
        words = [word for cue in cues if cue.text for word in cue.text.lower().split()]
        return [f"The word {word!r} is unknown." for word in words if word not in KNOWN]

    def forward(self, cues: CueBatch) -> Embedding:
        return Embedding(vector=self.fc(torch.cat((cues.values["text"], cues.values["audio"]), dim=-1)))


class ByHand:
    """A plugin object with that encoder."""

    @avsep_zoo.hookimpl
    def avsep_register(self, register: Any) -> None:
        register.encoder("by_hand.words", f"{__name__}:Words")


@pytest.fixture
def words(tmp_path: Path, tiny_parts: dict[str, PartConfig]) -> Iterator[Path]:
    """The card of a small U-Net that goes by words and examples."""
    registry.cache_clear()
    register_plugin(ByHand(), "by_hand")
    parts = tiny_parts | {"encoder": PartConfig("by_hand.words"), "conditioner": PartConfig("tiled_concat")}
    torch.manual_seed(0)
    yield write_card(tmp_path / "words", compose_recipe(parts, "words.tiny")).folder
    registry.cache_clear()


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """A folder with a recording, mix.wav, and an example, bell.wav."""
    rng = np.random.default_rng(0)
    for name in ("mix", "bell"):
        soundfile.write(tmp_path / f"{name}.wav", rng.uniform(-0.5, 0.5, 9000), RATE)
    return tmp_path


def avsep(*arguments: object) -> Result:
    settings = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    return CliRunner().invoke(app, [str(a) for a in arguments], env=settings, prog_name="avsep")


def separate(sounds: Path, model: Path, *more: object) -> Result:
    return avsep("separate", sounds / "mix.wav", "--model", model, "-o", sounds / "stems", "--no-report", *more)


def test_stems_come_in_the_order_of_cues_texts_and_examples() -> None:
    """However the options are mixed; a caption is a cue per source."""
    cues = all_cues(["oboe", "@0,0,9,9"], ["a violin plays while a flute sings", "No drums."], [Path("x/bell.wav")])
    assert [cue.title for cue in cues] == [
        "oboe", "source-2", "A violin plays", "A flute sings", "everything but drums", "bell",
    ]  # fmt: skip
    assert cues[-1].modalities == {"audio"} and not cues[-1].negated


def test_texts_and_examples_become_stems(sounds: Path, words: Path) -> None:
    """A caption, what is left out, and a sound like the one to hear."""
    options = ("--example", sounds / "bell.wav", "--text", "a violin plays", "--text", "everything but the flute")
    result = separate(sounds, words, *options, "--json")
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    document = json.loads(result.stdout)
    names = ["A violin plays", "everything but the flute", "bell"]
    assert [stem["name"] for stem in document["stems"]] == names
    assert document["notes"] == [
        "A violin plays: by text.",
        "everything but the flute: by text.",
        "bell: by audio.",
    ]
    manifest = json.loads((sounds / "stems" / "separation.json").read_text(encoding="utf-8"))
    assert manifest["stems"][1]["cue"] == {"text": "the flute", "negated": True}
    rest, flute = (soundfile.read(sounds / "stems" / f"{name}.wav")[0] for name in (names[1], "residual"))
    np.testing.assert_allclose(rest + flute, soundfile.read(sounds / "mix.wav")[0], atol=1e-6)


def test_remarks_are_shown_once_as_warnings(sounds: Path, words: Path) -> None:
    """In yellow on stderr; files and JSON have them among the notes."""
    call = ("--text", "a loud violin plays, the flute plays", "--overwrite")
    result = separate(sounds, words, *call)
    assert (result.exit_code, result.stderr) == (0, "Warning: The word 'loud' is unknown.\n"), result.output
    assert "The flute plays: by text." in result.stdout and "unknown" not in result.stdout
    manifest = json.loads((sounds / "stems" / "separation.json").read_text(encoding="utf-8"))
    assert manifest["notes"][-1] == "The word 'loud' is unknown."
    result = separate(sounds, words, *call, "--json")
    assert result.stderr == "Warning: The word 'loud' is unknown.\n"
    assert json.loads(result.stdout)["notes"] == manifest["notes"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--text", " "], "Invalid value for --text: The text ' ' names nothing; say what sounds"),
        (["--text", "everything but"], "does not say what to leave out; name it"),
        ([], "Nothing is asked for; give --cue, --text or --example."),
    ],
)
def test_a_wrong_call_ends_with_exit_code_2(sounds: Path, arguments: list[str], reason: str) -> None:
    """Before a model is loaded: there is none in the empty folder."""
    result = separate(sounds, sounds / "none", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert reason in " ".join(result.stderr.replace("│", " ").split())


@pytest.mark.parametrize("example", ["missing.wav", ".", "empty.wav", "text.wav"])
def test_an_example_without_sound_is_named_before_a_model_is_loaded(sounds: Path, example: str) -> None:
    (sounds / "empty.wav").touch()
    (sounds / "text.wav").write_text("Dear Sir or Madam")
    result = separate(sounds, sounds / "none", "--example", sounds / example)
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert str(sounds / example) in line and line.endswith(".")


def test_a_text_for_a_model_that_reads_none_is_one_sentence(sounds: Path, card: Path) -> None:
    """It says what the model reads; nothing is written."""
    result = separate(sounds, card, "--text", "a violin plays")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "The cue 'A violin plays' has only text, and iquery.tiny reads frames and label; give it frames, label or a "
        "box in the video.\n"
    )
    assert not (sounds / "stems").exists()


def test_a_text_that_means_nothing_is_a_usage_error() -> None:
    with pytest.raises(typer.BadParameter, match="names nothing"):
        all_cues([], ["..."], [])
