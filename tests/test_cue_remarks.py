"""What an encoder says of cues that it takes only partly, and cues that have nothing a model reads."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from avsep_zoo import Cue, SeparationModel
from avsep_zoo.compose import compose
from avsep_zoo.contracts import CueBatch, CueEncoder, Embedding, EncoderPlan
from avsep_zoo.errors import CueError, CueWarning
from avsep_zoo.recipe import PartConfig

if TYPE_CHECKING:
    from avsep_zoo.media import VideoSource

DUET = Path(__file__).resolve().parents[1] / "avsep_zoo" / "demo" / "duet.mp4"


class Words(CueEncoder):
    """A text is the mean of its words' rows; words that are not in the table are left out."""

    def __init__(self, words: Sequence[str]) -> None:
        super().__init__()
        plan = self.plan()
        self.reads, self.gives, self.optional = plan.reads, plan.gives, plan.optional
        self.row = {word: number for number, word in enumerate(words)}
        self.table = torch.nn.Embedding(len(words), 4)

    @classmethod
    def plan(cls, **config: Any) -> EncoderPlan:
        return EncoderPlan(frozenset({"text"}), {"vector": 4})

    def prepare(
        self,
        cues: Sequence[Cue],
        *,
        video: VideoSource | None,
        time: float,
        rng: np.random.Generator | None = None,
    ) -> CueBatch:
        counts = torch.zeros(1, len(cues), len(self.row))
        for n, cue in enumerate(cues):
            known = [self.row[word] for word in str(cue.text).lower().split() if word in self.row]
            if not known:
                raise CueError(f"The text {cue.text!r} has no word that is known.")
            counts[0, n, known] = 1 / len(known)
        return CueBatch({"text": counts})

    def remarks(self, cues: Sequence[Cue]) -> list[str]:
        words = [word for cue in cues for word in str(cue.text).lower().split()]
        return [f"The word {word!r} is not known and left out." for word in words if word not in self.row]

    def forward(self, cues: CueBatch) -> Embedding:
        text: torch.Tensor = cues.values["text"]
        return Embedding(vector=text @ self.table.weight)


@pytest.fixture
def model(tiny_parts: dict[str, PartConfig]) -> SeparationModel:
    """A small U-Net that goes by words."""
    torch.manual_seed(0)
    return compose(
        encoder=Words(["a", "the", "violin", "flute", "plays"]),
        conditioner=PartConfig("tiled_concat"),
        separator=tiny_parts["separator"],
        front_end=tiny_parts["front_end"],
        name="words.tiny",
    ).eval()


NOISE = (np.random.default_rng(0).standard_normal((1, 9000)) * 0.1).astype(np.float32)


def test_remarks_are_warnings_and_notes(model: SeparationModel) -> None:
    """Each sentence once, with the line of who called, after the notes of the cues."""
    cues = [Cue(text="a loud violin"), Cue(text="the loud flute"), Cue(text="a flute")]
    with pytest.warns(CueWarning, match="^The word 'loud' is not known and left out.$") as caught:
        done = model.separate(NOISE, cues, rate=8000)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert done.notes == [
        "a loud violin: by text.",
        "the loud flute: by text.",
        "a flute: by text.",
        "The word 'loud' is not known and left out.",
    ]


def test_known_words_give_no_remark(model: SeparationModel) -> None:
    """Neither does an encoder that remarks nothing; a warning would be an error here."""
    done = model.separate(NOISE, [Cue(text="the violin plays", negated=True)], rate=8000)
    assert done.notes == ["everything but the violin plays: by text."]
    assert CueEncoder.remarks(model.encoder, [Cue(text="zither")]) == []


def test_a_warning_that_is_made_an_error_comes_before_the_work(model: SeparationModel) -> None:
    """The mode of the model is restored."""
    heard: list[float] = []
    model.train()
    with warnings.catch_warnings(), pytest.raises(CueWarning, match="'loud'"):
        warnings.simplefilter("error", CueWarning)
        model.separate(NOISE, Cue(text="loud flute"), rate=8000, progress=lambda done, total: heard.append(done))
    assert heard == [] and model.training


@pytest.mark.parametrize(
    ("cue", "sentence"),
    [
        (Cue(label="violin"), "The cue 'violin' has only label, and words.tiny reads text; give it text."),
        (Cue(box=(0, 0, 9, 9), name="left"), "The cue 'left' has only box, and words.tiny reads text; give it text."),
        (
            Cue(audio="a.wav", frames="a.png", negated=True),
            "The cue 'everything but source by audio' has only audio and frames, and words.tiny reads text; give it "
            "text.",
        ),
    ],
)
def test_a_cue_without_anything_the_model_reads(model: SeparationModel, cue: Cue, sentence: str) -> None:
    """Also beside one that has it, and where the video has pictures."""
    with pytest.raises(CueError) as caught:
        model.separate(DUET, [Cue(text="a violin"), cue])
    assert str(caught.value) == sentence


@pytest.mark.parametrize("media", [NOISE, DUET])
def test_a_text_for_a_model_that_reads_none(tiny_model: SeparationModel, media: Any) -> None:
    """The pictures of the video do not take its place."""
    with pytest.raises(CueError) as caught:
        tiny_model.separate(media, Cue(text="a violin plays"), rate=8000 if media is NOISE else None)
    assert str(caught.value) == (
        "The cue 'a violin plays' has only text, and iquery.tiny reads frames and label; give it frames, label or a "
        "box in the video."
    )


def test_a_cue_may_have_more_than_the_model_reads(tiny_model: SeparationModel) -> None:
    """What points into the pictures of the video counts, and so does any other thing that is read."""
    done = tiny_model.separate(DUET, [Cue(text="on the left", box=(0, 0, 190, 190)), Cue(text="a", label="flute")])
    assert [note.split(":")[0] for note in done.notes] == ["on the left", "flute"]
    assert all("text" in note.split("not used: ")[1] for note in done.notes)
