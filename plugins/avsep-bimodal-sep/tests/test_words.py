"""Texts of known words, and examples, as vectors and tokens."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from avsep_bimodal_sep.words import WordEncoder
from avsep_zoo import Cue
from avsep_zoo.compose import build_part
from avsep_zoo.contracts import CueBatch, Embedding
from avsep_zoo.errors import CompositionError, CueError
from avsep_zoo.media import write_wav
from avsep_zoo.recipe import PartConfig

WORDS: dict[str, Any] = {
    "naming": ["violin", "fiddle", "flute", "drum", "bass", "sax"],
    "other": ["the", "sound", "of", "a", "plays", "and", "is", "played", "with", "bow"],
    "classes": ["violin", "flute"],
    "width": 8, "length": 6, "heads": 2, "rate": 8000, "ear": 2,
}  # fmt: skip
RATE = 8000
SECONDS_6 = 6 * RATE


def encoder(**settings: Any) -> WordEncoder:
    """One whose cues differ, and whose ear has heard something."""
    made = WordEncoder(**{**WORDS, **settings})
    for module in made.ear.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0.0, 0.1)
            module.running_var.uniform_(0.5, 2.0)
    return made.eval()


def noise(seconds: float = 6.0, channels: int = 1, rate: int = RATE) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (0.1 * rng.standard_normal((channels, round(seconds * rate)))).astype(np.float32)


def prepared(model: WordEncoder, *cues: Cue, seed: int | None = None) -> CueBatch:
    rng = None if seed is None else np.random.default_rng(seed)
    return model.prepare(cues, video=None, time=0.0, rng=rng)


def embedded(model: WordEncoder, *cues: Cue) -> Embedding:
    return model(prepared(model, *cues))


def vector(model: WordEncoder, *cues: Cue) -> torch.Tensor:
    embedding = embedded(model, *cues)
    assert embedding.vector is not None
    return embedding.vector[0]


def rows(model: WordEncoder, text: str) -> list[str]:
    """The words that are read."""
    names = {number: word for word, number in model.row.items()}
    return [names[row] for row in prepared(model, Cue(text=text)).values["words"][0, 0].tolist()]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("the sound of a VIOLIN", ["the", "sound", "of", "a", "violin"]),
        ("Violins, flutes & drums!", ["violin", "flute", "drum"]),
        ("a bass... basses", ["a", "bass", "bass"]),
        ("saxes", ["sax"]),
        ("the violin\u2019s sound", ["the", "violin", "sound"]),
        ("the violin's  sound\n", ["the", "violin", "sound"]),
        ("violin_2 (2nd flute)", ["violin", "flute"]),
        ("\uff46\uff4c\uff55\uff54\uff45", ["flute"]),  # wide letters
        ("no\u00ebl flute", ["flute"]),
        ("the a of the a flute drum", ["the", "a", "of", "the", "a", "flute"]),  # six are read
    ],
)
def test_words_that_are_read(text: str, read: list[str]) -> None:
    """In any case and number, whatever is between them."""
    assert rows(encoder(), text) == read


def test_a_label_is_a_prompt() -> None:
    """Blanks and underscores mean the same."""
    model = encoder()
    of_label, of_text = vector(model, Cue(label="bass_drum"), Cue(text="The sound of bass drum"))
    assert torch.equal(of_label, of_text)


def test_views_and_their_width() -> None:
    """The vector has a root mean square of 1 and comes first of the tokens; words that are not there count nothing."""
    model = encoder()
    embedding = embedded(model, Cue(text="a violin plays"), Cue(text="flute"), Cue(audio=noise(), audio_rate=RATE))
    assert embedding.vector is not None and embedding.tokens is not None and embedding.tokens_bias is not None
    assert embedding.vector.shape == (1, 3, 8) and embedding.tokens.shape == (1, 3, 4, 8)
    torch.testing.assert_close(embedding.vector.square().mean(dim=-1), torch.ones(1, 3))
    assert torch.equal(embedding.tokens[:, :, 0], embedding.vector)
    assert (embedding.tokens_bias[0] == 0).sum(dim=1).tolist() == [4, 2, 1]
    assert embedding.tokens_bias[0, 1, 2:].isneginf().all()
    assert model.gives == {"vector": 8, "tokens": 8}


def test_padding_does_not_matter() -> None:
    """A text means the same beside a longer one, and in any place of a batch."""
    model = encoder()
    alone = embedded(model, Cue(text="the violin"))
    cues = [Cue(text="a flute is played with a bow"), Cue(text="the violin"), Cue(audio=noise(), audio_rate=RATE)]
    beside = embedded(model, *cues)
    assert alone.vector is not None and beside.vector is not None
    torch.testing.assert_close(beside.vector[0, 1], alone.vector[0, 0])
    assert alone.tokens is not None and beside.tokens is not None
    torch.testing.assert_close(beside.tokens[0, 1, :3], alone.tokens[0, 0])
    stacked = model(CueBatch.stack([prepared(model, *cues), prepared(model, *cues[::-1])]))
    torch.testing.assert_close(stacked.vector[1].flip(0), beside.vector[0])


def test_the_order_of_words_matters() -> None:
    one, other = vector(encoder(), Cue(text="bass drum"), Cue(text="drum bass"))
    assert (one - other).abs().max() > 1e-3


def test_a_text_counts_before_an_example() -> None:
    model, sound = encoder(), noise()
    text, both, alone = vector(
        model, Cue(text="flute"), Cue(text="flute", audio=sound, audio_rate=RATE), Cue(audio=sound, audio_rate=RATE)
    )
    assert torch.equal(both, text) and not torch.allclose(alone, text)
    assert torch.equal(alone, vector(model, Cue(audio=sound, audio_rate=RATE))[0])
    heard = model.hear(torch.from_numpy(sound))[0]
    torch.testing.assert_close(alone, heard * 8**0.5)


def test_examples_at_another_rate_in_stereo_and_as_files(tmp_path: Path) -> None:
    """Are heard as the same sound."""
    model = encoder()
    time = np.arange(6 * 44100) / 44100
    stereo = np.stack([0.3 * np.sin(2 * np.pi * 440 * time), 0.1 * np.sin(2 * np.pi * 440 * time)]).astype(np.float32)
    write_wav(tmp_path / "example.wav", stereo, 44100)
    mono = (0.2 * np.sin(2 * np.pi * 440 * np.arange(SECONDS_6) / RATE)).astype(np.float32)
    cues = [
        Cue(audio=mono, audio_rate=RATE),
        Cue(audio=stereo, audio_rate=44100),
        Cue(audio=torch.from_numpy(stereo), audio_rate=44100),
        Cue(audio=tmp_path / "example.wav"),
        Cue(audio=mono.astype(np.float64), audio_rate=RATE),
    ]
    batch = prepared(model, *cues)
    assert batch.values["audio"].shape == (1, 5, SECONDS_6) and "words" not in batch.values
    middle = batch.values["audio"][0, :, 1000:-1000]
    torch.testing.assert_close(middle, middle[:1].expand(5, -1), rtol=0, atol=2e-3)


@pytest.mark.parametrize("seconds", [1.0, 6.0, 20.0])
def test_the_middle_of_an_example_is_heard(tmp_path: Path, seconds: float) -> None:
    """Of a file and of an array; short ones end in silence."""
    sound = noise(seconds)
    write_wav(tmp_path / "example.wav", sound, RATE)
    batch = prepared(encoder(), Cue(audio=sound, audio_rate=RATE), Cue(audio=tmp_path / "example.wav"))
    start = max(0, (sound.shape[1] - SECONDS_6) // 2)
    expected = np.zeros(SECONDS_6, np.float32)
    expected[: sound.shape[1]] = sound[0, start : start + SECONDS_6]
    for heard in batch.values["audio"][0]:
        np.testing.assert_allclose(heard, expected, atol=1e-4)


BAD = noise()
BAD[0, 7] = np.nan


@pytest.mark.parametrize(
    ("cue", "why"),
    [
        (Cue(audio=BAD, audio_rate=RATE), "holds 1 samples that are NaN or infinite"),
        (Cue(audio=np.zeros(9000, np.float32), audio_rate=RATE), "is silent; give one that sounds"),
        (Cue(audio=np.zeros((1, 0), np.float32), audio_rate=RATE), "no samples"),
        (Cue(audio=np.zeros(9, np.int16), audio_rate=RATE), "dtype int16"),
        (Cue(audio=[[0.1], [0.2, 0.3]], audio_rate=RATE), "no array of numbers"),
        (Cue(audio=["loud"], audio_rate=RATE), "dtype"),
        (Cue(audio=noise(), audio_rate=0), "sample rate is 0"),
        (Cue(audio="nowhere.wav"), "nowhere.wav"),
        (Cue(audio=Path(__file__)), "cannot be used"),
        (Cue(frames="picture.png"), "has neither a text, a label nor an example; give one of them"),
        (Cue(text=""), "says ''; say in words what to hear"),
        (Cue(text=" \n"), "say in words what to hear"),
        (Cue(text=7), "says 7"),  # type: ignore[arg-type]
        (
            Cue(text="\U0001f3bb"),
            "names no sound that this model knows; it knows violin, flute",
        ),
        (Cue(text="... 42 !?"), "names no sound"),
        (Cue(text="a voilin"), "did you mean 'violin'"),
        (Cue(label="flut"), "did you mean 'flute'"),
        (Cue(label="dog"), "no sound that this model knows: the word 'dog' is unknown; it knows violin"),
        (Cue(text="the sound of a"), "names no sound"),
        (Cue(text="the a of the a of the violin"), "no sound in its first 6 known words, and no more are read"),
        (Cue(text=" ".join(["blah"] * 10_000)), "names no sound"),
    ],
)
def test_cues_that_say_nothing(cue: Cue, why: str) -> None:
    """One sentence each."""
    with pytest.raises(CueError) as caught:
        prepared(encoder(), cue)
    assert why in str(caught.value)
    assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)
    assert len(re.findall(r"[.!?](?: |$)", re.sub(r"'[^']*'", "", str(caught.value)))) == 1


def test_remarks_name_what_is_unknown() -> None:
    """In the singular and in the plural, each word once."""
    model = encoder()
    cues = [
        Cue(text="a LOUD violin, loud"),
        Cue(text="two loud, soft flutes"),
        Cue(label="electric_bass", name="left"),
        Cue(text="the violins"),
        Cue(audio="a.wav"),
    ]
    assert model.remarks(cues) == [
        "a LOUD violin, loud: the word 'loud' is unknown and was left out.",
        "two loud, soft flutes: the words 'two', 'loud', 'soft' are unknown and were left out.",
        "left: the word 'electric' is unknown and was left out.",
    ]


def test_a_text_of_ten_thousand_words() -> None:
    """Its beginning is read, and short remarks say so."""
    model = encoder()
    letters = "abcdefghij"
    unknown = ["x" + "".join(letters[int(digit)] for digit in f"{number:04}") for number in range(10_000)]
    text = " ".join(["violin", *unknown, *["the"] * 9])
    assert rows(model, text) == ["violin", *["the"] * 5]
    remarks = model.remarks([Cue(text=text)])
    assert len(remarks) == 2 and all(len(remark) < 300 for remark in remarks)
    assert "'xaaaf' and 9994 more are unknown and were left out." in remarks[0]
    assert remarks[1].endswith(": of 10 words that are known the first 6 were read.")


def test_examples_are_drawn_in_training_alone() -> None:
    model = encoder(examples=0.5, forgotten=0.0).train()
    cue = Cue(label="flute", audio=noise(8.0), audio_rate=RATE)
    heard = [bool(prepared(model, cue, seed=seed).has("audio").any()) for seed in range(40)]
    assert 10 < sum(heard) < 30
    assert not any(prepared(model, Cue(label="flute"), seed=seed).has("audio").any() for seed in range(5))
    assert not prepared(model, cue).has("audio").any()
    assert not any(prepared(model.eval(), cue, seed=seed).has("audio").any() for seed in range(10))


def test_the_generator_decides_what_is_drawn(tmp_path: Path) -> None:
    """The text of a class, whether the example counts, and which part of it."""
    write_wav(tmp_path / "example.wav", noise(9.0), RATE)
    model = encoder(examples=0.5).train()
    cues = [Cue(label="violin", audio=tmp_path / "example.wav"), Cue(label="flute")]

    def drawn(seed: int) -> dict[str, list[Any]]:
        return {name: value.tolist() for name, value in prepared(model, *cues, seed=seed).values.items()}

    assert [drawn(seed) for seed in range(6)] == [drawn(seed) for seed in range(6)]
    assert len({str(drawn(seed)) for seed in range(6)}) > 3
    parts = [prepared(model, cues[0], seed=seed).values.get("audio") for seed in range(12)]
    heard = [part for part in parts if part is not None]
    assert len(heard) > 2 and not torch.equal(heard[0], heard[1])


def test_classes_are_told_in_training_alone() -> None:
    """By their number, -1 for one that texts are not taught by."""
    model = encoder()
    cues = [Cue(label="flute"), Cue(label="drum"), Cue(text="a violin")]
    assert "label" not in prepared(model, *cues).values
    assert prepared(model.train(), *cues, seed=0).values["label"].tolist() == [[1, -1, -1]]


def test_words_are_forgotten_in_training_alone() -> None:
    model = encoder(forgotten=0.5)
    batch = prepared(model, Cue(text="the sound of a violin"))
    assert torch.equal(model(batch).vector, model(batch).vector)
    model.train()
    assert not torch.equal(model(batch).vector, model(batch).vector)
    assert torch.equal(encoder(forgotten=0.0).train()(batch).vector.isfinite(), torch.ones(1, 1, 8).bool())


def test_captions_are_prompts_unless_they_are_drawn() -> None:
    model, rng = encoder(), np.random.default_rng(0)
    assert model.caption(["violin", "flute"], rng) == "The sound mixture of violin and flute"
    model.train()
    assert model.caption(["violin"]) == "The sound of violin"
    assert len({model.caption(["violin", "flute"], rng) for _ in range(10)}) > 5
    assert model.caption(["violin", "drum"], rng) == "The sound mixture of violin and drum"  # which is not taught


def test_gradient_reaches_texts_and_the_ear() -> None:
    model = encoder()
    cues = [Cue(text="the violin"), Cue(audio=noise(), audio_rate=RATE)]
    embedding = embedded(model, *cues)
    assert embedding.vector is not None and embedding.tokens is not None
    (embedding.vector[..., 0].sum() + embedding.tokens[..., 1].sum()).backward()
    still = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert still == []


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"other": ["violin"]}, "A word is twice in the vocabulary"),
        ({"examples": 1.0}, r"shares of examples and forgotten words are 1.0 and 0.05; give \[0, 1\)"),
        ({"forgotten": -0.1}, "give"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(CompositionError, match=why):
        build_part("encoder", PartConfig("bimodal_sep.words", {**WORDS, **settings}))
