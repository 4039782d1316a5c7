"""Recordings of several sounds with a text each: phrases and their weights, solos among them, and captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from avsep_zoo.contracts import CueBatch
from avsep_zoo.cue import Cue
from avsep_zoo.data.clip import Clip
from avsep_zoo.data.collate import collate
from avsep_zoo.data.mix_and_separate import MixAndSeparate
from avsep_zoo.data.pools import Pools
from avsep_zoo.data.prompts import sound_prompt
from avsep_zoo.data.repeats import draw_places, shares
from avsep_zoo.data.segment import read_segment
from avsep_zoo.errors import CueError, DataError

RATE, LENGTH = 8000, 400
PHRASES = ("a dog", "a bird", "a car", "rain")


def told(cues: Sequence[Cue], *, video: Any, time: float, rng: Any) -> CueBatch:
    """A small ``prepare``: the texts, or prompts of classes; it refuses anything with the word ``bad``."""
    texts = [cue.text or sound_prompt([str(cue.label)]) for cue in cues]
    if any("bad" in text for text in texts):
        raise CueError("This text cannot be used.")
    return CueBatch({"text": [texts]})


def prompt(labels: Sequence[str], rng: np.random.Generator) -> str:
    return sound_prompt(labels)


def items(clips: Sequence[Clip], **change: Any) -> MixAndSeparate:
    settings = {"rate": RATE, "length": LENGTH, "items": 30, "members": 2, "caption": prompt}
    return MixAndSeparate(clips, told, **{**settings, "reads": frozenset({"text", "label"}), **change})


def texts(item: dict[str, Any], name: str = "cues") -> list[str]:
    return list(item[name].get("text")[0])


@pytest.fixture
def sounds(tmp_path: Path) -> list[Path]:
    """Eight noises of the length of a segment."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{n}.wav" for n in range(8)]
    for path in paths:
        soundfile.write(path, rng.uniform(-0.5, 0.5, LENGTH), RATE, "FLOAT")
    return paths


def sound(path: Path) -> torch.Tensor:
    return torch.from_numpy(read_segment(path, RATE, LENGTH, 0.0))


@pytest.fixture
def captions(sounds: list[Path]) -> dict[str, Clip]:
    """Clips without classes, with one to four phrases, by their captions."""
    named = [(PHRASES[:count], " and ".join(PHRASES[:count])) for count in (1, 2, 3, 4)]
    paths = zip(named, sounds, strict=False)
    return {text: Clip(text, path, text=text, phrases=phrases) for (phrases, text), path in paths}


def solos(sounds: Sequence[Path], labels: str = "abcdefgh") -> list[Clip]:
    return [Clip(f"{label}{n}", path, (label,)) for n, (label, path) in enumerate(zip(labels, sounds, strict=False))]


@pytest.mark.parametrize("members", [2, 3])
def test_recordings_ask_for_as_many_phrases(captions: dict[str, Clip], members: int) -> None:
    """Different ones of more; all of fewer and some again, whose weights add up to 1."""
    data, counts = items(list(captions.values()), members=members), set()
    for i in range(30):
        item = data[i]
        assert item["shares"].dtype == torch.float32 and item["shares"].shape == (2 * members,)
        asked = np.array(texts(item)).reshape(2, members)
        weights = item["shares"].reshape(2, members).tolist()
        for caption, source, phrases, weight in zip(
            texts(item, "captions"), item["sources"], asked, weights, strict=True
        ):
            clip = captions[caption]
            assert torch.allclose(source, sound(clip.audio), atol=1e-6)
            assert set(phrases) <= set(clip.phrases)
            assert len(set(phrases)) == min(members, len(clip.phrases))
            assert weight == pytest.approx([1 / phrases.tolist().count(phrase) for phrase in phrases])
            assert sum(weight) == pytest.approx(len(set(phrases)))
            counts.add(len(clip.phrases))
    assert counts == {1, 2, 3, 4}


def test_places_of_repeats() -> None:
    """All that there is comes first, in order; weights go by place."""
    rng = np.random.default_rng(0)
    few = [draw_places(2, 4, rng) for _ in range(40)]
    assert all(places[:2] == [0, 1] and set(places) == {0, 1} for places in few)
    assert {tuple(places[2:]) for places in few} == {(0, 0), (0, 1), (1, 0), (1, 1)}
    many = [draw_places(4, 2, rng) for _ in range(100)]
    assert len({tuple(places) for places in many}) == 12 and all(len(set(places)) == 2 for places in many)
    assert shares([0, 1, 0, 0]) == pytest.approx((1 / 3, 1, 1 / 3, 1 / 3))


def test_methods_without_captions_take_no_recording_of_fewer(captions: dict[str, Clip]) -> None:
    data = items(list(captions.values()), caption=None)
    assert [entry.where for entry in data.skipped] == ["a dog"]
    assert "has 0 classes and 1 phrases" in data.skipped[0].why
    assert "captions" not in data[0] and "shares" not in data[0]


@pytest.mark.parametrize("paper", [False, True])
def test_averaged_solos_are_called_by_their_classes(sounds: list[Path], paper: bool) -> None:
    """In the order of the cues, each of which has all of its weight."""
    by_name = {clip.labels: clip for clip in solos(sounds)}
    data = items(list(by_name.values()), protocol="paper" if paper else "default")
    for i in range(5):
        item = data[i]
        asked = texts(item)
        names = [text.removeprefix("The sound of ") for text in asked]
        assert texts(item, "captions") == [sound_prompt(names[:2]), sound_prompt(names[2:])]
        assert len(set(names)) == 4 and item["shares"].tolist() == [1.0] * 4
        mean = torch.stack([sound(by_name[name,].audio) for name in names]).reshape(2, 2, -1).mean(dim=1)
        if not paper:
            assert torch.allclose(item["sources"], mean, atol=1e-6)


def test_duets_are_called_by_their_classes(sounds: list[Path]) -> None:
    duets = [Clip(pair, path, tuple(pair)) for pair, path in zip(("ab", "cd", "ef"), sounds, strict=False)]
    item = items(duets)[0]
    assert all(text in ("a and b", "c and d", "e and f") for text in _bare(texts(item, "captions")))
    assert item["shares"].tolist() == [1.0] * 4
    assert [" and ".join(_bare(texts(item)[n : n + 2])) for n in (0, 2)] == _bare(texts(item, "captions"))


def _bare(prompts: Sequence[str]) -> list[str]:
    return [text.removeprefix("The sound ").removeprefix("mixture ").removeprefix("of ") for text in prompts]


def test_captions_of_averaged_clips_are_joined(sounds: list[Path]) -> None:
    """Where one of them has none, its class stands for it."""
    clips = [replace(clip, text=f"text {clip.label}" if clip.label != "a" else None) for clip in solos(sounds, "abcd")]
    said = {text for i in range(10) for text in texts(items(clips)[i], "captions")}
    assert any("The sound of a" in text for text in said)
    assert all(text.count(" and ") == 1 and "mixture" not in text for text in said)


def test_share_of_solos_beside_duets(sounds: list[Path]) -> None:
    """A solo is asked for as often as a duet, with half of the weight each time."""
    duets = [Clip(pair, path, tuple(pair)) for pair, path in zip(("ab", "cd", "ef"), sounds, strict=False)]
    clips = [*duets, *solos(sounds[3:], "abcde")]
    assert {entry.where for entry in items(clips).skipped} == {clip.id for clip in clips[3:]}
    data, alone = items(clips, solos=0.3, items=200), 0
    assert data.skipped == []
    for i in range(200):
        item = data[i]
        for n, caption in enumerate(texts(item, "captions")):
            asked, weights = texts(item)[2 * n : 2 * n + 2], item["shares"][2 * n : 2 * n + 2].tolist()
            solo = "mixture" not in caption
            alone += solo
            assert (asked, weights) == (([caption] * 2, [0.5] * 2) if solo else (asked, [1.0] * 2))
        names = {name for text in _bare(texts(item, "captions")) for name in text.split(" and ")}
        assert len(names) == sum(len(text.split(" and ")) for text in _bare(texts(item, "captions")))
    assert alone == pytest.approx(0.3 * 400, abs=40)


def test_share_of_solos_beside_averaged_ones(sounds: list[Path]) -> None:
    """They are at the level that they have; no class is twice in a mixture."""
    by_name = {clip.label: clip for clip in solos(sounds)}
    data, kinds = items(list(by_name.values()), solos=0.5, members=3), set()
    for i in range(30):
        item = data[i]
        for n, (caption, source) in enumerate(zip(_bare(texts(item, "captions")), item["sources"], strict=True)):
            names = caption.split(" and ")
            mean = torch.stack([sound(by_name[name].audio) for name in names]).mean(dim=0)
            assert torch.allclose(source, mean, atol=1e-6)
            assert item["shares"][3 * n : 3 * n + 3].tolist() == pytest.approx([1 / (4 - len(names))] * 3)
            kinds.add(len(names))
        names = [name for text in _bare(texts(item, "captions")) for name in text.split(" and ")]
        assert len(set(names)) == len(names)
    assert kinds == {1, 3}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"caption": None}, "A share of 0.2 solos is asked for, and the method does not take them"),
        ({"members": 1}, "or members is 1; set solos to 0"),
        ({"clips": "duets"}, "no clip has one class; add such clips, or set solos to 0"),
        ({"clips": "captions"}, "no clip has one class"),
    ],
)
def test_a_share_of_solos_that_cannot_be(
    sounds: list[Path], captions: dict[str, Clip], change: dict[str, Any], why: str
) -> None:
    kinds = {
        "duets": [Clip(pair, path, tuple(pair)) for pair, path in zip(("ab", "cd"), sounds, strict=False)],
        "captions": list(captions.values()),
        "solos": solos(sounds),
    }
    with pytest.raises(DataError, match=why):
        items(kinds[change.pop("clips", "solos")], solos=0.2, **change)


def test_recordings_of_one_sound_have_no_captions(sounds: list[Path]) -> None:
    item = items(solos(sounds), members=1)[0]
    assert "captions" not in item and "shares" not in item and len(texts(item)) == 2


def test_whole_recordings_have_one_cue_each(sounds: list[Path]) -> None:
    """And no caption: the cue shows all of them."""
    item = items(solos(sounds), whole=True)[0]
    assert "captions" not in item and len(texts(item)) == 2


def test_a_caption_that_the_model_refuses_makes_way(captions: dict[str, Clip]) -> None:
    """The same as a phrase of it would."""
    spoilt = replace(captions["a dog"], text="a bad dog")
    data = items([spoilt, *list(captions.values())[1:]])
    found = [data[i] for i in range(20)]
    entries = [entry for item in found for entry in item["skipped"]]
    assert {(entry.where, entry.why) for entry in entries} == {("a dog", "This text cannot be used.")}
    assert all("bad" not in text for item in found for text in texts(item, "captions"))
    with pytest.raises(DataError, match=r"None of 3 clips can be used; .* This text cannot be used\."):
        items([replace(clip, text="bad") for clip in captions.values()])[0]


def test_published_loader_keeps_the_texts_of_a_broken_item(captions: dict[str, Clip]) -> None:
    """It is silent, and asks for the same."""
    captions["a dog"].audio.unlink()
    broken = [item for i in range(20) if (item := items(list(captions.values()), protocol="paper")[i])["skipped"]]
    assert broken and all(not item["sources"].any() for item in broken)
    assert all("a dog" in texts(item, "captions") and len(texts(item)) == 4 for item in broken)


@pytest.mark.parametrize("kind", ["captions", "solos"])
def test_captioned_items_follow_their_index(sounds: list[Path], captions: dict[str, Clip], kind: str) -> None:
    """Whatever was made before them, and with what is drawn for texts."""

    def drawn(labels: Sequence[str], rng: np.random.Generator) -> str:
        return f"{sound_prompt(labels)} {rng.random()}"

    clips = list(captions.values()) if kind == "captions" else solos(sounds)
    change: dict[str, Any] = {"caption": drawn, "solos": 0.5 if kind == "solos" else 0.0, "seed": 5}
    forward, backward = items(clips, **change), items(clips, **change, items=90)
    made = [forward[i] for i in range(6)]
    for i in reversed(range(6)):
        again = backward[i]
        assert torch.equal(made[i]["sources"], again["sources"]) and torch.equal(made[i]["shares"], again["shares"])
        assert texts(made[i]) == texts(again) and texts(made[i], "captions") == texts(again, "captions")
    assert len({tuple(texts(item, "captions")) for item in made}) > 1


def test_batches_hold_captions_and_weights(captions: dict[str, Clip]) -> None:
    data = items(list(captions.values()))
    batch = collate([data[i] for i in range(3)])
    assert batch["captions"].shape == (3, 2) and batch["cues"].shape == (3, 4)
    assert batch["shares"].shape == (3, 4)
    assert batch["captions"].get("text")[1] == texts(data[1], "captions")


def test_recordings_of_fewer_phrases_are_pooled_only_if_wanted(captions: dict[str, Clip]) -> None:
    clips = list(captions.values())
    assert Pools(clips, sources=2, members=3, fewer=True).skipped == []
    assert len(Pools(clips, sources=2, members=3).skipped) == 2
