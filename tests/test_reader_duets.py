"""Synthetic-Duet: lists with detections, and test mixtures by the published recipe."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avsep_zoo.cue import Cue
from avsep_zoo.cued_object import cued_object, detections_of
from avsep_zoo.data.clip_cues import shown_cue
from avsep_zoo.data.reader import PREPARED, open_data
from avsep_zoo.data.readers.duets import DETECTED, DuetsReader
from avsep_zoo.errors import DataError

INSTRUMENTS = ("violin", "cello", "tuba", "erhu")


def row(label: str, name: str) -> str:
    return f"data/audio/{label}/{name}.wav,data/frames/{label}/{name},data/detect/{label}/{name}.npy\n"


def listed(root: Path, text: str, split: str = "test") -> DuetsReader:
    root.mkdir(exist_ok=True)
    (root / f"{split}.csv").write_text(text)
    reader = open_data(root)
    assert isinstance(reader, DuetsReader)
    return reader


@pytest.fixture
def duets(tmp_path: Path) -> DuetsReader:
    """Four instruments with three clips each, instruments in turn."""
    return listed(tmp_path / "duets", "".join(row(label, f"x_{n}") for n in range(3) for label in INSTRUMENTS))


@pytest.mark.parametrize(("root", "data"), [("duets", "duets/data"), ("data", "data")])
def test_a_row_becomes_a_clip(tmp_path: Path, root: str, data: str) -> None:
    """The data folder is the one paths begin in, or the one they begin with."""
    (clip,) = listed(tmp_path / root, row("cello", "AbC_7"), "train").clips("train")
    assert (clip.id, clip.label, clip.frame_rate, clip.frame_count) == ("cello/AbC_7", "cello", 8.0, 0)
    assert clip.audio == tmp_path / data / "audio/cello/AbC_7.wav"
    assert clip.frames == tmp_path / data / "frames/cello/AbC_7"
    assert clip.detections == tmp_path / data / "detect/cello/AbC_7.npy"


@pytest.mark.parametrize(("sources", "combinations"), [(2, 6), (3, 4)])
def test_every_combination_has_ten_mixtures(duets: DuetsReader, sources: int, combinations: int) -> None:
    """Instruments within a mixture are in alphabetical order; the list is shuffled."""
    labels = [tuple(str(clip.label) for clip in mixture) for mixture in duets.mixtures(f"test_{sources}mix")]
    assert all(tuple(sorted(mixture)) == mixture for mixture in labels)
    assert Counter(labels).most_common(1)[0][1] == 10 and len(set(labels)) == combinations
    assert len(labels) == 10 * combinations and labels != sorted(labels)


def test_mixtures_are_those_of_the_recipe(duets: DuetsReader) -> None:
    """Worked out apart from the reader, with Python's generator, seed 0: choices in order, then one shuffle."""
    mixtures = [[clip.id for clip in mixture] for mixture in duets.mixtures("test_2mix")]
    assert mixtures[:3] == [["cello/x_1", "tuba/x_1"], ["erhu/x_1", "violin/x_1"], ["cello/x_0", "erhu/x_2"]]
    assert DuetsReader(duets.root).mixtures("test_2mix") == duets.mixtures("test_2mix")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("data/audio/cello/b.wav,data/frames/cello/b\n", "has 2 columns"),
        ("data/audio/cello/b.wav,data/frames/cello/b,data/detect/cello/b.txt\n", r"(.npy)"),
        ("/../audio/cello/b.wav,data/frames/cello/b,data/detect/cello/b.npy\n", "leads out"),
        ("data/audio/cello/b.wav,data/frames/cello/b,../../b.npy\n", "leads out"),
        ("b.wav,data/frames/cello/b,data/detect/cello/b.npy\n", "too short"),
        (row("cello", "a"), "listed before"),
    ],
)
def test_a_bad_row_is_skipped(tmp_path: Path, text: str, why: str) -> None:
    """It is reported with its place."""
    reader = listed(tmp_path, row("cello", "a") + text)
    assert [clip.id for clip in reader.clips("test")] == ["cello/a"]
    assert (reader.skipped[0].where, why in reader.skipped[0].why) == ("test.csv row 2", True)


def test_lists_of_training_clips_stay_as_they_are(tmp_path: Path) -> None:
    """``seen_heard_test`` is made of training clips on purpose."""
    rows = row("cello", "a") + row("tuba", "b")
    listed(tmp_path, rows, "train")
    reader = listed(tmp_path, rows, "seen_heard_test")
    assert len(reader.clips("train")) == len(reader.clips("seen_heard_test")) == 2
    assert len(reader.mixtures("seen_heard_test_2mix")) == 10


def test_a_copy_short_of_a_clip_keeps_the_other_mixtures(duets: DuetsReader, tmp_path: Path) -> None:
    """The recipe on fewer clips would make other mixtures; the copy lists those that are left."""
    target = tmp_path / "copy"
    kept = [clip for clip in duets.clips("test") if clip.id != "cello/x_1"]
    duets.write_index(target, "test", kept)
    again = DuetsReader(target)
    assert again.clips("test") == [duets.prepared(clip, target) for clip in kept]
    left = [m for m in duets.mixtures("test_2mix") if all(clip.id != "cello/x_1" for clip in m)]
    assert 40 < len(left) < 60
    assert [[clip.id for clip in m] for m in again.mixtures("test_2mix")] == [[clip.id for clip in m] for m in left]


def test_too_few_instruments(tmp_path: Path) -> None:
    """The error says that there are none of different classes."""
    reader = listed(tmp_path, row("cello", "a") + row("cello", "b"))
    with pytest.raises(DataError, match=r"'test_2mix' .*there are none of different classes"):
        reader.mixtures("test_2mix")


@pytest.mark.parametrize(
    ("instrument", "number"),
    [("acoustic_guitar", 4), ("clarinet", 7), ("xylophone", 8), ("violin", 12), ("tuba", 15), ("erhu", None)],
)
@pytest.mark.parametrize("labelled", [True, False])
def test_the_object_of_a_clip_is_the_one_of_its_instrument(
    tmp_path: Path, instrument: str, number: int | None, labelled: bool
) -> None:
    """In the detector's own numbers; what it has no class for is the best box, which is all that a clean-up leaves."""
    (clip,) = listed(tmp_path, row(instrument, "v_1")).clips("test")
    assert clip.frames is not None and clip.detections is not None
    clip.frames.mkdir(parents=True)
    for frame in range(1, 5):
        Image.new("RGB", (64, 48), (40 * frame, 0, 0)).save(clip.frames / f"{frame:06d}.png")
    found = [[2, 5, 0.98, 1, 1, 9, 9], [2, number or 5, 0.99 if number is None else 0.91, 10, 12, 50, 40]]
    found += [[4, 6, 0.97, 2, 2, 9, 9]]
    clip.detections.parent.mkdir(parents=True)
    np.save(clip.detections, np.array(found, dtype=np.float32))
    shown = shown_cue(clip, 0.2, frozenset({"frames", "detections"}), pictures=1, at=3.0)
    cue = Cue(label=instrument if labelled else None, **shown)
    meant = cued_object(cue, detections_of(cue), 3.0)
    assert meant is not None
    assert (meant.box, meant.time(3.0)) == ([10, 12, 50, 40], pytest.approx(3.0 + 1.5 / 8 - 0.2))
    assert shown["frames"][0, 0, 0].tolist() == [80, 0, 0]


def test_a_prepared_copy_names_the_classes_of_its_own_detector(tmp_path: Path) -> None:
    """They are those of the published one where nothing says otherwise."""
    assert listed(tmp_path, row("cello", "a")).clips("test")[0].detector_classes == DETECTED
    (tmp_path / PREPARED).write_text(json.dumps({"settings": {"detector": {"labels": ["tuba", "cello"]}}}))
    assert open_data(tmp_path).clips("test")[0].detector_classes == ("tuba", "cello")
