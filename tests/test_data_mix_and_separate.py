"""Training items: what is drawn, what a cue tells, and what happens to files that cannot be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from torch.utils.data import DataLoader

from avsep_zoo.contracts import CueBatch
from avsep_zoo.cue import Cue
from avsep_zoo.data.augment import Augmentation
from avsep_zoo.data.clip import Clip
from avsep_zoo.data.collate import collate
from avsep_zoo.data.mix_and_separate import MixAndSeparate
from avsep_zoo.errors import CueError, DataError
from avsep_zoo.model import SeparationModel

RATE, LENGTH = 8000, 8191  # of the tiny model
CLASSES = ("violin", "flute", "drum")
EVERYTHING = Augmentation(
    semitones=2, gain=6, equaliser=6, room=0.5, noise=0.5, silence=0.1, drop_frames=0.3, drop_label=0.3
)


def sine(frequency: float, seconds: float, rate: int = 11025) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def make_clip(root: Path, name: str, pitch: float, **known: Any) -> Clip:
    """A tone of 3 s, with three pictures."""
    audio, frames = root / f"{name}.wav", root / name
    soundfile.write(audio, sine(pitch, 3), 11025, "FLOAT")
    frames.mkdir()
    for number in (1, 2, 3):
        Image.new("RGB", (40, 30), (int(pitch) // 10,) * 3).save(frames / f"{number:06d}.jpg")
    return Clip(name, audio, frames=frames, frame_count=3, **known)


@pytest.fixture
def clips(tmp_path: Path) -> list[Clip]:
    """Two clips of each of three classes: tones of 300 and 340, 600 and 640, 900 and 940 Hz."""
    return [
        make_clip(tmp_path, f"{label}{n}", 300 * (c + 1) + 40 * n, labels=(label,))
        for c, label in enumerate(CLASSES)
        for n in range(2)
    ]


def told(cues: Sequence[Cue], *, video: Any, time: float, rng: Any) -> CueBatch:
    """A small ``prepare``: the number of each class, -1 without one, and the texts."""
    numbers = [-1 if cue.label is None else CLASSES.index(cue.label) for cue in cues]
    return CueBatch({"label": torch.tensor([numbers]), "text": [[cue.text for cue in cues]]})


def mixed(clips: Sequence[Clip], prepare: Any = told, **change: Any) -> MixAndSeparate:
    return MixAndSeparate(clips, prepare, **{"rate": RATE, "length": LENGTH, "items": 20, **change})


def labels(item: dict[str, Any]) -> list[int]:
    return item["cues"].values["label"][0].tolist()


def rms(sound: torch.Tensor) -> float:
    return float(sound.square().mean().sqrt())


def texts(item: dict[str, Any]) -> list[str]:
    return item["cues"].values["text"][0]


def pitches(source: torch.Tensor, count: int = 1) -> set[int]:
    """The ``count`` strongest frequencies of a sound, rounded to 20 Hz."""
    spectrum = torch.fft.rfft(source * torch.hann_window(len(source)), 8 * RATE).abs()
    found = set()
    for _ in range(count):
        peak = int(spectrum.argmax())
        spectrum[max(0, peak - 100) : peak + 100] = 0
        found.add(round(peak / 8 / 20) * 20)
    return found


def equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    cues_a, cues_b = a["cues"], b["cues"]
    return (
        torch.equal(a["sources"], b["sources"])
        and torch.equal(a["background"], b["background"])
        and a["skipped"] == b["skipped"]
        and cues_a.values.keys() == cues_b.values.keys()
        and all(torch.equal(v, cues_b.values[k]) for k, v in cues_a.values.items())
        and all(torch.equal(v, cues_b.present[k]) for k, v in cues_a.present.items())
    )


def test_item_depends_on_seed_and_index_only(clips: list[Clip], tiny_model: SeparationModel) -> None:
    """Not on the order, the process that makes it, or the number of items; not where a file is broken either."""
    clips[0].audio.write_bytes(b"no sound")

    def make(**change: Any) -> MixAndSeparate:
        settings = {"items": 8, "seed": 3, "augmentation": EVERYTHING}
        return mixed(clips, tiny_model.encoder.prepare, **{**settings, **change})

    forward, backward = make(), make(items=100)
    items = [forward[i] for i in range(8)]
    assert any(item["skipped"] for item in items)
    for i in reversed(range(8)):
        assert equal(items[i], backward[i])
    loader = DataLoader(make(), batch_size=None, sampler=range(4, 8), num_workers=1)
    for i, item in zip(range(4, 8), loader, strict=True):
        assert equal(items[i], item)
    assert not any(equal(items[i], make(seed=4)[i]) for i in range(8))
    assert not any(equal(items[i], items[i + 1]) for i in range(7))


def test_sources_of_a_mixture_are_of_different_classes(clips: list[Clip]) -> None:
    """Without augmentation each is a piece of one of its class's clips, as it is stored."""
    data, seen = mixed(clips), set()
    for i in range(20):
        item = data[i]
        assert item["sources"].shape == (2, LENGTH) and item["sources"].dtype == torch.float32
        assert not item["background"].any() and item["skipped"] == []
        assert len(set(labels(item))) == 2
        for label, source in zip(labels(item), item["sources"], strict=True):
            assert pitches(source) <= {300 * (label + 1), 300 * (label + 1) + 40}
            assert float(source[100:-100].abs().max()) == pytest.approx(0.3, abs=0.003)
            seen |= pitches(source)
    assert len(seen) == 6


def test_silent_parts_are_avoided(clips: list[Clip]) -> None:
    """Half of the clip is silent: one draw in two would be, three draws in a row rarely are."""
    for clip in clips[:2]:
        soundfile.write(clip.audio, np.pad(sine(300, 8), (0, 8 * 11025)), 11025, "FLOAT")
    data = mixed(clips, length=800, sources=3)
    violins = [item["sources"][labels(item).index(0)] for item in map(data.__getitem__, range(60))]
    assert 0 < sum(not violin.any() for violin in violins) < 20


@pytest.mark.parametrize(
    ("change", "present"),
    [
        (Augmentation(), (True, True)),
        (Augmentation(drop_frames=1), (True, False)),
        (Augmentation(drop_label=1), (False, True)),
        (Augmentation(drop_frames=1, drop_label=1), (True, False)),  # never both
    ],
)
def test_modalities_are_dropped(
    clips: list[Clip], tiny_model: SeparationModel, change: Augmentation, present: tuple[bool, bool]
) -> None:
    tiny_model.train()  # in eval mode a label makes frames unnecessary
    cues = mixed(clips, tiny_model.encoder.prepare, augmentation=change)[0]["cues"]
    assert (cues.has("label").all(), cues.has("frames").all()) == present
    assert (cues.has("label").any(), cues.has("frames").any()) == present


def test_silent_sources_make_no_noise(clips: list[Clip]) -> None:
    item = mixed(clips, augmentation=Augmentation(silence=1, noise=1))[0]
    assert not item["sources"].any()
    assert not item["background"].any()


def test_sounds_of_videos(clips: list[Clip], tmp_path: Path) -> None:
    """A clip may be a part of a longer video, whose sound and frames it has."""
    from avsep_zoo.synth.files import write_mp4

    video = np.zeros((32, 32, 32, 3), np.uint8)
    write_mp4(tmp_path / "a.mp4", video, np.concatenate([np.zeros(2 * 44100), sine(500, 2, 44100)]))
    whole = tmp_path / "a.mp4"
    part = Clip("film", whole, ("drum",), video=whole, start=2.2, duration=1.5)
    item = mixed([*clips[:4], part], tiny_prepare, sources=3)[0]
    drum = labels(item).index(2)
    assert pitches(item["sources"][drum]) == {500}
    assert float(item["sources"][drum, : LENGTH // 2].abs().max()) > 0.2
    assert item["cues"].values["pictures"] == [3, 3, 3]


def tiny_prepare(cues: Sequence[Cue], *, video: Any, time: float, rng: Any) -> CueBatch:
    batch = told(cues, video=video, time=time, rng=rng)
    batch.values["pictures"] = [len(np.asarray(cue.frames)) for cue in cues]
    return batch


# files that cannot be used


def test_another_clip_of_the_class_stands_in_for_a_broken_one(clips: list[Clip]) -> None:
    soundfile.write(clips[0].audio, np.full(20000, np.nan), 11025, "FLOAT")
    data = mixed(clips, sources=3)
    items = [data[i] for i in range(20)]
    assert all(pitches(item["sources"][labels(item).index(0)]) == {340} for item in items)
    entries = [entry for item in items for entry in item["skipped"]]
    assert {entry.where for entry in entries} == {"violin0"} and 4 < len(entries) < 16
    assert "holds NaN or infinity" in entries[0].why
    assert collate(items[:8])["skipped"] == [entry for item in items[:8] for entry in item["skipped"]]


@pytest.mark.parametrize("broken", ["frames", "motion", "detections"])
def test_anything_of_a_clip_that_is_broken_makes_way(clips: list[Clip], tmp_path: Path, broken: str) -> None:
    file = tmp_path / "broken.npy"
    file.write_bytes(b"\x93NUMPY")
    if broken == "frames":
        (clips[0].frames / "000002.jpg").write_bytes(b"no picture")  # type: ignore[operator]
    else:
        clips[0] = replace(clips[0], **{broken: file})
    reads = frozenset({"frames", "label", "motion"})
    items = [mixed(clips, sources=3, reads=reads)[i] for i in range(8)]
    assert {entry.where for item in items for entry in item["skipped"]} == {"violin0"}
    blind = [mixed(clips, sources=3, reads=frozenset({"label"}))[i] for i in range(8)]
    assert not any(item["skipped"] for item in blind)


@pytest.mark.parametrize("features", [np.full((4, 3), np.nan), np.array(["a"]), np.array([{}])])
def test_motion_that_is_no_numbers(clips: list[Clip], tmp_path: Path, features: np.ndarray) -> None:
    np.save(tmp_path / "motion.npy", features, allow_pickle=True)
    clips[0] = replace(clips[0], motion=tmp_path / "motion.npy")
    items = [mixed(clips, sources=3, reads=frozenset({"motion"}))[i] for i in range(8)]
    assert {entry.where for item in items for entry in item["skipped"]} == {"violin0"}


def test_class_without_any_usable_clip(clips: list[Clip]) -> None:
    clips[0].audio.unlink()
    clips[1].audio.write_bytes(b"")
    with pytest.raises(DataError, match=r"None of 2 clips of violin can be used; the first is 'violin\d': The sound"):
        mixed(clips, sources=3)[0]


def test_clip_whose_cue_the_model_refuses(clips: list[Clip]) -> None:
    def prepare(cues: Sequence[Cue], *, video: Any, time: float, rng: Any) -> CueBatch:
        if any(cue.text == "bad" for cue in cues):
            raise CueError("This text cannot be used.")
        return told(cues, video=video, time=time, rng=rng)

    clips[0] = replace(clips[0], text="bad")
    items = [mixed(clips, prepare, sources=3)[i] for i in range(8)]
    assert {(entry.where, entry.why) for item in items for entry in item["skipped"]} == {
        ("violin0", "This text cannot be used.")
    }
    clips[1] = replace(clips[1], text="bad")
    with pytest.raises(DataError, match=r"None of 2 clips of violin can be used; .* This text cannot be used\."):
        mixed(clips, prepare, sources=3)[0]


def test_published_loader_makes_a_broken_item_silent_and_black(clips: list[Clip], tiny_model: SeparationModel) -> None:
    tiny_model.train()
    clips[0].audio.unlink()
    data = mixed(clips, tiny_model.encoder.prepare, sources=3, protocol="paper")
    items = [data[i] for i in range(8)]
    bad = [item for item in items if item["skipped"]]
    assert 0 < len(bad) < 8
    assert all(not item["sources"].any() and not item["cues"].values["frames"].any() for item in bad)
    assert all(sorted(labels(item)) == [0, 1, 2] and item["cues"].has("frames").all() for item in items)
    assert all(item["sources"].any(dim=1).all() for item in items if not item["skipped"])
    assert "violin0" in bad[0]["skipped"][0].where


def test_published_loader_has_no_change_of_speed(clips: list[Clip]) -> None:
    with pytest.raises(DataError, match="set semitones to 0"):
        mixed(clips, protocol="paper", augmentation=Augmentation(semitones=1))


# clips without classes, and recordings of several sounds


def captioned(clips: Sequence[Clip], *phrases: str) -> list[Clip]:
    return [replace(clip, labels=(), text=f"a {clip.id}", phrases=phrases) for clip in clips]


def test_clips_without_classes_are_told_by_their_captions(clips: list[Clip]) -> None:
    items = [mixed(captioned(clips), sources=4)[i] for i in range(30)]
    assert all(labels(item) == [-1] * 4 and len(set(texts(item))) == 4 for item in items)
    assert {text for item in items for text in texts(item)} == {f"a {clip.id}" for clip in clips}


def test_captions_of_one_sound_are_not_mixed(clips: list[Clip]) -> None:
    twice = [replace(clip, id=f"{clip.id}{n}", audio=clips[0].audio) for clip in captioned(clips[:1]) for n in "ab"]
    items = [mixed([*twice, *captioned(clips[1:2])])[i] for i in range(10)]
    assert all(pitches(item["sources"][0]) != pitches(item["sources"][1]) for item in items)
    with pytest.raises(DataError, match="There are 1 different clips; mixtures of 2 sources need 2"):
        mixed(twice)


def test_clips_without_class_are_left_out_where_others_have_one(clips: list[Clip]) -> None:
    data = mixed([*clips, *captioned(clips[:1])])
    assert [(entry.where, entry.why) for entry in data.skipped] == [
        ("violin0", "It has no class, and other clips have.")
    ]
    assert all(-1 not in labels(data[i]) for i in range(10))


def test_solos_are_averaged_to_recordings_of_several(clips: list[Clip], tmp_path: Path) -> None:
    """Cues of source n follow each other, and no class is twice in a mixture."""
    clips = [*clips, make_clip(tmp_path, "violin2", 1200, labels=("violin",))]
    data = mixed(clips, sources=1, members=3)
    for i in range(5):
        item = data[i]
        assert item["sources"].shape == (1, LENGTH)
        assert sorted(labels(item)) == [0, 1, 2]
        assert len(pitches(item["sources"][0], 3)) == 3
        assert rms(item["sources"]) == pytest.approx(rms(torch.from_numpy(sine(300, 3))) / 3**0.5, rel=0.02)
    with pytest.raises(DataError, match="have 3 classes; mixtures of 2 sources of 2 sounds need 4 different ones"):
        mixed(clips, members=2)


def test_duets_are_recordings_of_two(tmp_path: Path) -> None:
    pairs = {"a": ("violin", "flute"), "b": ("drum", "horn"), "c": ("violin", "drum"), "d": ("flute", "horn")}
    duets = [make_clip(tmp_path, n, 300 * (i + 1), labels=pair) for i, (n, pair) in enumerate(pairs.items())]
    solo = make_clip(tmp_path, "solo", 2000, labels=("horn",))
    data = mixed([*duets, solo], by_name, members=2)
    assert [entry.where for entry in data.skipped] == ["solo"]
    for i in range(10):
        item = data[i]
        names = item["cues"].values["name"][0]
        assert len(set(names)) == 4
        for source, pair in zip(item["sources"], (names[:2], names[2:]), strict=True):
            assert pitches(source) == {300 * (1 + list(pairs.values()).index(tuple(pair)))}
            assert rms(source) == pytest.approx(rms(torch.from_numpy(sine(300, 3))), rel=0.02)
    single = mixed([*duets, *[replace(solo, id=n, labels=(n,)) for n in CLASSES]], by_name)
    assert {entry.where for entry in single.skipped} == set(pairs)


def by_name(cues: Sequence[Cue], *, video: Any, time: float, rng: Any) -> CueBatch:
    return CueBatch({"name": [[cue.label for cue in cues]]})


def test_duets_that_always_share_a_class(tmp_path: Path) -> None:
    pairs = {"a": ("violin", "flute"), "b": ("violin", "drum"), "c": ("violin", "horn")}
    duets = [make_clip(tmp_path, n, 300, labels=pair) for n, pair in pairs.items()]
    with pytest.raises(DataError, match="no 2 recordings without a common class"):
        mixed(duets, by_name, members=2)


def test_phrases_are_the_sounds_of_a_recording(clips: list[Clip]) -> None:
    named = [*captioned(clips[:3], "a dog", "a bird", "a car"), *captioned(clips[3:], "rain")]
    data = mixed(named, members=2)
    assert [entry.where for entry in data.skipped] == ["flute1", "drum0", "drum1"]
    seen = set()
    for i in range(20):
        said = texts(data[i])
        assert len(set(said[:2])) == 2 and len(set(said[2:])) == 2
        seen |= set(said)
    assert seen == {"a dog", "a bird", "a car"}


@pytest.mark.parametrize(
    ("count", "change", "message"),
    [
        (0, {}, "None of 0 clips can be used for mixtures of 2 sources; give others"),
        (4, {"sources": 3}, "have 2 classes; mixtures of 3 sources need 3 different ones"),
    ],
)
def test_too_few_clips(clips: list[Clip], count: int, change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        mixed(clips[:count], **change)


def test_what_an_encoder_draws_follows_the_item(clips: list[Clip]) -> None:
    def prepare(cues: Sequence[Cue], *, video: Any, time: float, rng: np.random.Generator) -> CueBatch:
        return CueBatch({"frames": torch.from_numpy(rng.random((1, len(cues))))})

    one, other = mixed(clips, prepare), mixed(clips, prepare, items=100)
    drawn = [one[i]["cues"].values["frames"] for i in range(4)]
    assert all(torch.equal(other[i]["cues"].values["frames"], drawn[i]) for i in reversed(range(4)))
    assert len({float(d[0, 0]) for d in drawn}) == 4


def test_pictures_are_a_stride_apart(tmp_path: Path) -> None:
    """With a stride of 2, three pictures span five frames of the list."""
    clips = []
    for label, pitch in (("violin", 300), ("flute", 600)):
        clip = make_clip(tmp_path, label, pitch, labels=(label,))
        for number in range(1, 10):
            Image.new("RGB", (40, 30), (20 * number,) * 3).save(tmp_path / label / f"{number:06d}.jpg")
        clips.append(replace(clip, frame_count=9, frame_rate=3.0))

    def levels(cues: Sequence[Cue], **_: Any) -> CueBatch:
        shown = [[float(picture.mean()) for picture in np.asarray(cue.frames)] for cue in cues]
        return CueBatch({"levels": torch.tensor([shown])})

    for stride in (1, 2):
        items = MixAndSeparate(clips, levels, rate=RATE, length=LENGTH, items=4, stride=stride)
        found = torch.stack([items[i]["cues"].values["levels"] for i in range(4)])
        inner = found[(found[..., 0] > 25) & (found[..., -1] < 175)]  # not at the ends of the clip
        assert len(inner) > 0
        assert torch.allclose(inner.diff(dim=-1), torch.tensor(20.0 * stride), atol=3)
