"""A plain folder of clips, and how clips without lists are split and paired."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from avsep_zoo.data.clip import Clip
from avsep_zoo.data.reader import open_data
from avsep_zoo.data.readers.folder import FolderReader
from avsep_zoo.data.readers.music import MusicReader
from avsep_zoo.data.splits import hash_split, pair_up
from avsep_zoo.errors import DataError


def files(root: Path, *names: str) -> FolderReader:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return FolderReader(root)


def everything(reader: FolderReader) -> dict[str, Clip]:
    return {clip.id: clip for split in reader.splits() for clip in reader.clips(split)}


def test_files_become_clips(tmp_path: Path) -> None:
    """The class is the folder, two of them for a duet; a sound beside a video is its sound."""
    reader = files(tmp_path, "cello/a.WAV", "cello/b.mp4", "electric bass/c.webm", "electric bass/c.flac", "x+y/é.mkv")
    clips = everything(reader)
    assert {name: clip.labels for name, clip in clips.items()} == {
        "cello/a": ("cello",),
        "cello/b": ("cello",),
        "electric bass/c": ("electric bass",),
        "x+y/é": ("x", "y"),
    }
    assert (clips["cello/a"].audio, clips["cello/a"].video) == (tmp_path / "cello/a.WAV", None)
    assert clips["cello/b"].audio == clips["cello/b"].video == tmp_path / "cello/b.mp4"
    both = clips["electric bass/c"]
    assert (both.audio.name, both.video) == ("c.flac", tmp_path / "electric bass/c.webm")
    assert not reader.skipped


def test_files_that_are_no_clips(tmp_path: Path) -> None:
    """Other and hidden files are passed over; misplaced, doubled and badly named sounds are reported."""
    bad = ("a.wav", "cello/deeper/b.wav", "cello/c\x07.wav", "cello/d.wav")
    reader = files(tmp_path, "cello/d.flac", "cello/notes.txt", "cello/.e.wav", ".hidden/f.wav", *bad)
    assert list(everything(reader)) == ["cello/d"]
    assert sorted(skipped.where for skipped in reader.skipped) == sorted(bad)


def test_linked_classes(tmp_path: Path) -> None:
    """A class may lie on another disk; links below it, which may lead in a circle, are not followed."""
    files(tmp_path / "disk", "cello/a.wav")
    files(tmp_path / "data", "tuba/b.wav")
    (tmp_path / "data/cello").symlink_to(tmp_path / "disk/cello")
    (tmp_path / "disk/cello/round").symlink_to(tmp_path / "data")
    reader = FolderReader(tmp_path / "data")
    assert list(everything(reader)) == ["cello/a", "tuba/b"]
    assert not reader.skipped


def test_prepared_copy_inside_is_passed_over(tmp_path: Path) -> None:
    """Preparing into a folder of the data and going on with that sees the same clips."""
    reader = files(tmp_path, "cello/a.mp4", "copy/prepare.json", "copy/audio/cello/a.wav", "copy/deep.wav")
    assert list(everything(reader)) == ["cello/a"]
    assert not reader.skipped


def test_folders_of_splits(tmp_path: Path) -> None:
    """They stand above the classes; a class may be called like a split."""
    reader = files(tmp_path / "a", "train/cello/a.wav", "test/cello/b.wav", "test/tuba/c.wav")
    assert (reader.splits(), [clip.id for clip in reader.clips("test")]) == (("train", "test"), ["cello/b", "tuba/c"])
    with pytest.raises(DataError, match="no clips for 'val', only for train, test"):
        reader.clips("val")
    reader = files(tmp_path / "b", "train/a.wav", "bus/b.wav")
    assert {clip.label for clip in reader.clips("train")} == {"train", "bus"}


def test_clips_are_split_by_their_ids(tmp_path: Path) -> None:
    """The same in any other folder, and not by what other classes there are."""
    names = [f"{label}/{n}.wav" for label in ("cello", "tuba") for n in range(30)]
    first = files(tmp_path / "a", *names)
    again = files(tmp_path / "b", *reversed(names), "erhu/1.wav")
    for split in ("train", "val", "test"):
        ids = [clip.id for clip in first.clips(split)]
        assert ids == [clip.id for clip in again.clips(split) if clip.label != "erhu"]
        assert {name.split("/")[0] for name in ids} == {"cello", "tuba"}
    assert "erhu/1" in {clip.id for clip in again.clips("train")}


def test_shares_of_the_splits() -> None:
    """About 80, 10 and 10 percent of many; a small class has a training clip first, then one of each."""
    dealt = list(hash_split({f"c/{n}": "c" for n in range(2000)}).values())
    assert abs(dealt.count("train") - 1600) < 80
    assert abs(dealt.count("val") - 200) < 50 and abs(dealt.count("test") - 200) < 50
    for number in range(200):
        assert list(hash_split({f"c/{number}": "c"}).values()) == ["train"]
        assert "train" in hash_split({f"c/{number}": "c", f"d/{number}": "c"}).values()
        three = hash_split({f"{letter}/{number}": "c" for letter in "cde"})
        assert sorted(three.values()) == ["test", "train", "val"]


def test_more_clips_leave_the_others_where_they_are() -> None:
    """In a class that is large enough to have all splits by chance."""
    before = hash_split({f"c/{n}": "c" for n in range(300)})
    after = hash_split({f"c/{n}": "c" for n in range(400)})
    assert before == {name: after[name] for name in before}


def test_pairs_are_of_different_classes() -> None:
    """Every clip comes first before any does again; no pair twice; as many as 250 where that can be."""
    clips = [Clip(f"{label}/{n}", Path(f"{label}{n}"), (label,)) for label in "abc" for n in range(12)]
    pairs = pair_up(clips)
    assert len(pairs) == len({frozenset(clip.id for clip in pair) for pair in pairs}) == 250
    assert all(a.label != b.label for a, b in pairs)
    assert {a.id for a, _ in pairs[:36]} == {clip.id for clip in clips}
    assert pair_up(clips[::-1]) == pairs
    assert pair_up(clips[:12]) == [] and pair_up(clips[:1]) == [] and pair_up([]) == []


def test_mixtures_are_made_of_test_solos(tmp_path: Path) -> None:
    """Without a list; one class is not enough."""
    names = [f"test/{name}.wav" for name in ("cello/a", "cello/b", "tuba/c", "cello+tuba/d")]
    reader = files(tmp_path / "a", "train/cello/x.wav", *names)
    assert reader.mixture_lists() == ("test",)
    pairs = {frozenset(clip.id for clip in pair) for pair in reader.mixtures("test")}
    assert pairs == {frozenset({"cello/a", "tuba/c"}), frozenset({"cello/b", "tuba/c"})}
    with pytest.raises(DataError, match="has test clips of one class only"):
        files(tmp_path / "b", "train/cello/x.wav", "test/cello/a.wav").mixtures("test")
    assert files(tmp_path / "c", "train/cello/x.wav").mixture_lists() == ()


def test_listed_mixtures(tmp_path: Path) -> None:
    """Their clips are held out of training; bad rows are reported."""
    files(tmp_path, *(f"{label}/{n}.wav" for label in ("cello", "tuba") for n in range(8)))
    bad = "cello/0.wav\ncello/0.wav,cello/0.wav\n../a.wav,cello/0.wav\ncello/0.wav,tuba/99.wav\n"
    three = "cello/0.wav,tuba/1.wav,tuba/2.wav\n"
    (tmp_path / "mixtures.csv").write_text("\ufeffcello/0.wav, tuba/0.wav\r\n" + bad + three)
    reader = FolderReader(tmp_path)
    assert [[clip.id for clip in m] for m in reader.mixtures("mixtures")] == [["cello/0", "tuba/0"]]
    assert [skipped.where for skipped in reader.skipped] == [f"mixtures.csv row {n}" for n in (2, 3, 4, 5, 6)]
    assert {"cello/0", "tuba/0"} <= {clip.id for clip in reader.clips("test")}
    (tmp_path / "mixtures.csv").write_text("x,y\n")
    with pytest.raises(DataError, match="has no usable row for the mixtures 'mixtures'"):
        FolderReader(tmp_path).mixtures("mixtures")


def test_a_prepared_copy_is_in_the_layout_of_music(tmp_path: Path) -> None:
    """And reads the same there, duets included."""
    names = ("train/cello/a.mp4", "train/cello+tuba/b.mp4", "test/cello/c.mp4", "test/tuba/d.mp4", "test/tuba/e.mp4")
    reader = files(tmp_path / "raw", *names)
    target = tmp_path / "copy"
    (target / "audio").mkdir(parents=True)
    for split in reader.splits():
        reader.write_index(target, split, [replace(c, frame_count=5) for c in reader.clips(split) if c.id != "tuba/e"])
    copy = open_data(target)
    assert isinstance(copy, MusicReader)
    assert copy.clips("train") == [replace(reader.prepared(c, target), frame_count=5) for c in reader.clips("train")]
    assert [clip.labels for clip in copy.clips("train")] == [("cello",), ("cello", "tuba")]
    assert [{clip.id for clip in pair} for pair in copy.mixtures("testsep")] == [{"cello/c", "tuba/d"}]


def test_the_folder_is_recognised(tmp_path: Path) -> None:
    """Last of all data sets; a folder without clips is none."""
    files(tmp_path / "a", "cello/a.wav")
    files(tmp_path / "b", "train/cello/a.mp4")
    files(tmp_path / "c", "cello/a.txt", "b.wav", "cello/frames of.mp4/000001.jpg")
    assert isinstance(open_data(tmp_path / "a"), FolderReader)
    assert isinstance(open_data(tmp_path / "b"), FolderReader)
    with pytest.raises(DataError, match="looks like none of the data sets"):
        open_data(tmp_path / "c")
    assert FolderReader(tmp_path / "c").splits() == ()
