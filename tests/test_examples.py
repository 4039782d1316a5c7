"""Examples as cues: which clip is shown for another, as what, and where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from avsep_zoo.contracts import CueBatch
from avsep_zoo.cue import Cue
from avsep_zoo.data.clip import Clip
from avsep_zoo.data.examples import example_cue, with_examples
from avsep_zoo.data.fixed_mixtures import FixedMixtures
from avsep_zoo.data.mix_and_separate import MixAndSeparate
from avsep_zoo.errors import AvsepError, CueError, DataError

RATE, LENGTH = 8000, 400


def clip(name: str, *labels: str, file: str | None = None, **known: Any) -> Clip:
    return Clip(name, Path(f"{file or name}.wav"), labels or (name[0],), **known)


def shown(*mixtures: str, clips: Sequence[Clip]) -> list[list[str | None]]:
    """Ids of the examples of mixtures, which are texts of ids."""
    by_id = {each.id: each for each in clips}
    found = with_examples([[by_id[name] for name in mixture.split()] for mixture in mixtures], clips)
    assert [[each.id for each in mixture] for mixture in found] == [mixture.split() for mixture in mixtures]
    return [[each.example.id if each.example else None for each in mixture] for mixture in found]


def test_the_next_clip_of_the_class_is_shown() -> None:
    """By id, whatever the order of the list and of the mixtures."""
    clips = [clip(name) for name in ("a1", "b1", "a3", "a2", "b2", "c1")]
    assert shown("a1 b1", "a2 b2", "a3 c1", clips=clips) == [["a2", "b2"], ["a3", "b1"], ["a1", None]]
    assert shown("a3 c1", "a2 b2", clips=clips[::-1]) == [["a1", None], ["a3", "b1"]]
    assert shown("a1 c1", clips=[*clips, *clips]) == [["a2", None]]


def test_an_example_is_of_another_file() -> None:
    """Neither its own nor any other that is in the mixture."""
    clips = [clip("a1", file="x"), clip("a2", file="x"), clip("a3"), clip("b1", file="a3")]
    assert shown("a1 b1", "a1 a3", "a3 a1", clips=clips) == [[None, None], [None, None], [None, None]]
    assert shown("a1", "a3", "a2", clips=clips) == [["a3"], ["a1"], ["a3"]]


def test_clips_of_several_classes_or_none_have_no_example() -> None:
    clips = [clip("ab", "a", "b"), clip("a1"), clip("a2"), replace(clip("x"), labels=()), replace(clip("y"), labels=())]
    assert shown("ab a1 x", clips=clips) == [[None, "a2", None]]


@pytest.fixture
def ramp(tmp_path: Path) -> Path:
    """12 s that tell their place."""
    soundfile.write(tmp_path / "ramp.wav", np.arange(12 * RATE) / (12 * RATE), RATE, "FLOAT")
    return tmp_path / "ramp.wav"


def test_a_whole_file_is_shown_as_it_is(ramp: Path) -> None:
    assert example_cue(Clip("a", ramp)) == {"audio": ramp}


@pytest.mark.parametrize(
    ("start", "duration", "begin", "end"), [(2.0, 1.5, 2.0, 3.5), (11.0, 5.0, 11.0, 12.0), (1.5, None, 1.75, 11.75)]
)
def test_a_part_of_a_file_is_cut_out(
    ramp: Path, start: float, duration: float | None, begin: float, end: float
) -> None:
    """The middle 10 s of a longer one."""
    cue = Cue(**example_cue(Clip("a", ramp, start=start, duration=duration)))
    sound = np.asarray(cue.audio)
    assert cue.audio_rate == RATE and sound.ndim == 2
    assert [sound[0, 0], sound[0, -1]] == pytest.approx([begin / 12, end / 12], abs=1e-3)


def test_a_broken_file_is_no_example(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"no sound")
    for broken in (Clip("a", tmp_path / "a.wav"), Clip("a", tmp_path / "a.wav", start=1.0)):
        with pytest.raises(AvsepError, match=r"a\.wav' cannot be read"):
            example_cue(broken)


@pytest.fixture
def noises(tmp_path: Path) -> list[Clip]:
    """Two clips of each of four classes."""
    rng = np.random.default_rng(0)
    made = []
    for name in ("a1", "a2", "b1", "b2", "c1", "c2", "d1", "d2"):
        soundfile.write(tmp_path / f"{name}.wav", rng.uniform(-0.5, 0.5, LENGTH), RATE, "FLOAT")
        made.append(Clip(name, tmp_path / f"{name}.wav", (name[0],)))
    return made


AUDIO = frozenset({"audio", "label"})


def fixed(clips: Sequence[Clip], *, of: Sequence[Clip], **change: Any) -> FixedMixtures:
    return FixedMixtures(with_examples([clips], of), None, **{"rate": RATE, "length": LENGTH, "reads": AUDIO, **change})


@pytest.mark.parametrize(
    ("use", "given"),
    [(None, {"label", "audio"}), ({"audio"}, {"audio"}), ({"label"}, {"label"}), ({"audio", "text"}, {"audio"})],
)
def test_fixed_mixtures_show_what_is_used(noises: list[Clip], use: set[str] | None, given: set[str]) -> None:
    cues = fixed(noises[:3:2], of=noises, use=None if use is None else frozenset(use))[0]["cues"]
    assert [cue.modalities for cue in cues] == [given, given]
    if "audio" in given:
        assert [Path(cue.audio).stem for cue in cues] == ["a2", "b2"]


def test_fixed_mixtures_without_an_example(noises: list[Clip]) -> None:
    """Classes tell what is wanted, unless examples alone are to."""
    pair = [noises[0], noises[2]]
    assert fixed(pair, of=pair)[0]["cues"][0].modalities == {"label"}
    assert fixed(pair, of=pair, use=frozenset({"frames"}))[0]["cues"][0].modalities == {"label"}
    with pytest.raises(DataError, match="The clip 'a1' has no other clip of its class in another file as an example"):
        fixed(pair, of=pair, use=frozenset({"audio"}))[0]


def test_fixed_mixtures_read_no_example_that_is_not_read(noises: list[Clip]) -> None:
    noises[1].audio.unlink()
    assert fixed(noises[:3:2], of=noises, reads=frozenset({"label"}))[0]["cues"][0].modalities == {"label"}
    with pytest.raises(DataError, match=r"a2\.wav' cannot be read"):
        fixed(noises[:3:2], of=noises)[0]


def told(cues: Sequence[Cue], *, video: Any, time: float, rng: Any) -> CueBatch:
    """A small ``prepare``: the class of each cue, and its example."""
    return CueBatch({"label": [[cue.label for cue in cues]], "audio": [[cue.audio for cue in cues]]})


def training(clips: Sequence[Clip], prepare: Any = told, **change: Any) -> MixAndSeparate:
    settings = {"rate": RATE, "length": LENGTH, "items": 30, "reads": AUDIO}
    return MixAndSeparate(clips, prepare, **{**settings, **change})


def examples(item: dict[str, Any]) -> list[tuple[str, Any]]:
    """Classes and examples of an item."""
    return list(zip(item["cues"].get("label")[0], item["cues"].get("audio")[0], strict=True))


@pytest.mark.parametrize("protocol", ["default", "paper"])
def test_training_shows_another_clip_of_the_class(noises: list[Clip], protocol: str) -> None:
    """Any of them, the same for an index."""
    third = replace(noises[0], id="a3", audio=noises[0].audio.with_name("a3.wav"))
    third.audio.write_bytes(noises[0].audio.read_bytes())
    data, seen = training([*noises, third], protocol=protocol), set()
    for i in range(30):
        found = examples(data[i])
        assert found == examples(training([*noises, third], protocol=protocol, items=90)[i])
        assert all(Path(example).stem[0] == label for label, example in found)
        seen |= {Path(example).stem for _, example in found}
    assert seen == {"a1", "a2", "a3", "b1", "b2", "c1", "c2", "d1", "d2"}


def test_training_never_shows_the_file_itself(noises: list[Clip]) -> None:
    twice = [replace(noises[0], id="again"), *noises]

    def same(cues: Sequence[Cue], **_: Any) -> CueBatch:
        return CueBatch({"audio": [[str(cue.audio) for cue in cues]]})

    for i in range(20):
        item = training(twice, same)[i]
        for source, example in zip(item["sources"], item["cues"].get("audio")[0], strict=True):
            heard, _ = soundfile.read(example, dtype="float32")
            assert not np.allclose(source.numpy(), heard, atol=1e-3)


def test_every_class_of_a_recording_has_its_example(noises: list[Clip]) -> None:
    """Of averaged solos, and of duets where there are solos of their classes."""
    found = examples(training(noises, members=2)[0])
    assert len(found) == 4 and all(Path(example).stem[0] == label for label, example in found)
    duets = [replace(noises[0], id="ab", labels=("a", "b")), replace(noises[2], id="cd", labels=("c", "d"))]
    assert all(example is None for _, example in examples(training(duets, members=2)[0]))

    def caption(labels: Sequence[str], rng: Any) -> str:
        return " and ".join(labels)

    data = training([*duets, *noises[4:]], members=2, solos=0.2, caption=caption)
    for i in range(10):
        for label, example in examples(data[i]):
            assert (example is None) == (label in "ab") and (example is None or Path(example).stem[0] == label)


def test_a_class_of_one_clip(noises: list[Clip]) -> None:
    """Texts and classes tell what is wanted; an encoder of sounds alone is shown the clip itself."""
    pair = [noises[0], noises[2]]
    assert {example for _, example in examples(training(pair)[0])} == {None}
    alone = examples(training(pair, reads=frozenset({"audio"}))[0])
    assert {(label, Path(example).stem) for label, example in alone} == {("a", "a1"), ("b", "b1")}


def test_a_broken_example_makes_way(noises: list[Clip]) -> None:
    """And stops no recording that is good."""
    noises[1].audio.write_bytes(b"no sound")
    third = replace(noises[0], id="a3", audio=noises[0].audio.with_name("a3.wav"))
    third.audio.write_bytes(noises[0].audio.read_bytes())
    data = training([*noises, third])
    found = [data[i] for i in range(20)]
    assert {Path(e).stem for item in found for label, e in examples(item) if label == "a"} == {"a1", "a3"}
    assert {entry.where for item in found for entry in item["skipped"]} == {"a2"}


def test_a_clip_of_a_longer_file_is_shown_as_a_part(ramp: Path, noises: list[Clip]) -> None:
    parts = [Clip(f"e{n}", ramp, ("e",), start=float(n), duration=0.5) for n in (1, 7)]
    other = ramp.with_name("other.wav")
    other.write_bytes(ramp.read_bytes())
    parts[1] = replace(parts[1], audio=other)

    def heard(cues: Sequence[Cue], **_: Any) -> CueBatch:
        """Where the examples of class e begin."""
        if any(cue.audio is None for cue in cues):
            raise CueError("There is no example.")
        cut = [np.asarray(cue.audio)[0] for cue in cues if cue.label == "e"]
        return CueBatch({"start": [[round(12 * float(sound[0]), 2) for sound in cut]]})

    data = training([*noises, *parts], heard)
    assert {start for i in range(20) for start in data[i]["cues"].get("start")[0]} == {1.0, 7.0}
