"""AudioCaps with parsed captions, and captions that are parsed here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from avsep_zoo.data.captions import parse_caption
from avsep_zoo.data.reader import Protocol, open_data
from avsep_zoo.data.readers.audiocaps import AudioCapsReader
from avsep_zoo.errors import DataError


def caption(file: str, *sources: str) -> dict[str, Any]:
    return {"file_id": file, "caption": " and ".join(sources), "sources": list(sources)}


CAPTIONS: dict[str, Any] = {
    "11": caption("AAA_30", "A dog barks", "a bell rings"),
    "12": caption("AAA_30", "A dog"),
    "20": caption("B_b_5", "Rain"),
    "30": caption("CCC_0", "A man talks", "a cat meows"),
    "40": caption("CCC_0", "A cat"),
}


def written(
    root: Path, captions: Any = CAPTIONS, protocol: Protocol = "default", folder: str = "", **lists: str
) -> AudioCapsReader:
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / folder / "parsed_all_caps.json").write_text(json.dumps(captions))
    for name, text in lists.items():
        (root / folder / f"{name}.csv").write_text(text)
    reader = open_data(root, protocol=protocol)
    assert isinstance(reader, AudioCapsReader)
    return reader


@pytest.mark.parametrize("folder", ["", "annotations"])
def test_a_caption_becomes_a_clip(tmp_path: Path, folder: str) -> None:
    """With its text and the sources it names, and no class."""
    (clip,) = written(tmp_path, folder=folder, train_ids="11\n").clips("train")
    assert (clip.id, clip.labels, clip.label) == ("11", (), None)
    assert (clip.text, clip.phrases) == ("A dog barks and a bell rings", ("A dog barks", "a bell rings"))
    assert (clip.audio, clip.frames) == (tmp_path / "audio/AAA_30.wav", tmp_path / "frames/AAA_30.mp4")
    assert (clip.start, clip.duration) == (0.0, None)


def test_mixtures_name_the_test_clips(tmp_path: Path) -> None:
    """Two caption ids per row; a caption with itself is kept as published only."""
    lists = {"train_ids": "11\n", "test_sep2_ids": "20,30\n30,40\n20,20\n20,99\n"}
    reader = written(tmp_path, **lists)
    assert (reader.splits(), reader.mixture_lists()) == (("train", "test"), ("test_sep2",))
    assert [clip.id for clip in reader.clips("test")] == ["20", "30", "40"]
    assert [[clip.id for clip in m] for m in reader.mixtures("test_sep2")] == [["20", "30"], ["30", "40"]]
    assert {skipped.where for skipped in reader.skipped} == {f"test_sep2_ids.csv row {n}" for n in (3, 4)}
    paper = written(tmp_path, protocol="paper")
    assert [[clip.id for clip in m] for m in paper.mixtures("test_sep2")][2] == ["20", "20"]


def test_captions_of_a_tested_file_are_not_trained_on(tmp_path: Path) -> None:
    """A file has several captions; ``paper`` trains on all that are listed."""
    lists = {"train_ids": "11\n40\n", "test_sep2_ids": "20,30\n"}
    assert [clip.id for clip in written(tmp_path, **lists).clips("train")] == ["11"]
    assert [clip.id for clip in written(tmp_path, protocol="paper").clips("train")] == ["11", "40"]


@pytest.mark.parametrize(
    "entry",
    [
        None,
        "text",
        {"file_id": "A_1", "caption": "x"},
        {"file_id": "A_1", "caption": "x", "sources": "dog"},
        {"file_id": "A_1", "caption": "x", "sources": ["dog", 3]},
        {"file_id": "A_1", "caption": "x", "sources": ["dog", " "]},
        {"file_id": "A_1", "caption": "\ud800", "sources": ["dog"]},
        {"file_id": 7, "caption": "x", "sources": ["dog"]},
        {"file_id": "../A_1", "caption": "x", "sources": ["dog"]},
        {"file_id": "a/A_1", "caption": "x", "sources": ["dog"]},
        {"file_id": "a\\A_1", "caption": "x", "sources": ["dog"]},
    ],
)
def test_a_bad_caption_is_skipped(tmp_path: Path, entry: Any) -> None:
    """Also an id without caption and an id twice."""
    reader = written(tmp_path, CAPTIONS | {"50": entry}, train_ids="50\n11\n999\n11\n")
    assert [clip.id for clip in reader.clips("train")] == ["11"]
    assert [skipped.where for skipped in reader.skipped] == [f"train_ids.csv row {n}" for n in (1, 3, 4)]


def test_captions_that_cannot_be_read(tmp_path: Path) -> None:
    """The error names the file."""
    with pytest.raises(DataError, match="are no object of caption ids"):
        written(tmp_path, ["11"])
    (tmp_path / "parsed_all_caps.json").write_text("{")
    with pytest.raises(DataError, match=r"parsed_all_caps\.json' cannot be read"):
        open_data(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        AudioCapsReader(tmp_path / "nothing")


def test_without_lists_files_are_split(tmp_path: Path) -> None:
    """All captions of a file are in the same split, and test clips of different files are paired."""
    captions = {f"{n}": caption(f"V{n // 3:03d}_1", f"Sound {n}") for n in range(180)}
    reader = written(tmp_path, captions)
    clips = {split: reader.clips(split) for split in reader.splits()}
    files = {split: {clip.audio for clip in listed} for split, listed in clips.items()}
    assert sum(map(len, files.values())) == 60 and sum(map(len, clips.values())) == 180
    assert len(clips["train"]) > 120 and clips["val"] and clips["test"]
    pairs = reader.mixtures("test_sep2")
    assert pairs and all(a.audio != b.audio for a, b in pairs)


OFFICIAL = "audiocap_id,youtube_id,start_time,caption\n"


def test_official_lists(tmp_path: Path) -> None:
    """Their captions are parsed, and the copy is in the other form; a broken row is noted once."""
    (tmp_path / "train.csv").write_text(OFFICIAL + '11,A_a,30,"A dog barks, then a bell rings"\n12,BBB\n')
    (tmp_path / "test.csv").write_text(OFFICIAL + "20,CCC,0,Rain falls\n30,DDD,10,A man talks\n")
    reader = open_data(tmp_path)
    assert isinstance(reader, AudioCapsReader)
    (clip,) = reader.clips("train")
    assert (clip.id, clip.audio) == ("11", tmp_path / "audio/A_a_30.wav")
    assert (clip.text, clip.phrases) == ("A dog barks, then a bell rings", ("A dog barks", "A bell rings"))
    assert [sorted(clip.id for clip in mixture) for mixture in reader.mixtures("test_sep2")] == [["20", "30"]]
    assert {skipped.where for skipped in reader.skipped} == {"train.csv row 3"}
    for split in reader.splits():
        reader.write_index(tmp_path / "copy", split, reader.clips(split))
    assert open_data(tmp_path / "copy").clips("train") == [reader.prepared(clip, tmp_path / "copy")]


def test_parsed_captions_in_official_splits(tmp_path: Path) -> None:
    (tmp_path / "val.csv").write_text(OFFICIAL + "11,AAA,30,Other words\n")
    reader = written(tmp_path)
    assert (reader.splits(), reader.clips("val")[0].text) == (("val",), "A dog barks and a bell rings")


@pytest.mark.parametrize(
    ("caption", "phrases"),
    [
        ("Wind blows as a door shuts with a bang", ["Wind blows", "A door shuts", "A bang"]),
        ("A lamp is switched on and off while rain falls", ["A lamp is switched on and off", "Rain falls"]),
        ("Strengthening wind and is followed by, ", ["Strenging wind"]),
        ("And a duck quacks,", ["A duck quacks"]),
        ("", []),
    ],
)
def test_parsing_of_captions(caption: str, phrases: list[str]) -> None:
    """Separators in a fixed order; some words are one sound; ``then`` goes inside words, as published."""
    assert parse_caption(caption) == phrases


@pytest.mark.parametrize(("protocol", "found"), [("default", True), ("paper", False)])
def test_whole_videos_are_found_by_id_and_start(tmp_path: Path, protocol: Protocol, found: bool) -> None:
    """The published script splits the file id at the first underscore, wrong for ids with one."""
    (tmp_path / "videos").mkdir()
    for name in ("AAA.mp4", "B_b.webm", "CCC_0.mp4"):
        (tmp_path / "videos" / name).touch()
    reader = written(tmp_path, protocol=protocol, train_ids="11\n20\n30\n")
    whole, underscore, cut = reader.clips("train")
    assert (whole.video, whole.start, whole.duration) == (tmp_path / "videos/AAA.mp4", 30.0, 10.0)
    assert (underscore.video is not None, underscore.start) == (found, 5.0 if found else 0.0)
    assert (cut.video, cut.start, cut.duration) == (tmp_path / "videos/CCC_0.mp4", 0.0, None)
    copy = reader.prepared(whole, tmp_path / "copy")
    assert (copy.audio, copy.video, copy.start) == (tmp_path / "copy/audio/AAA_30.wav", None, 0.0)


def test_lists_are_written_again_with_the_captions(tmp_path: Path) -> None:
    """The copy reads the same, less what is not there."""
    reader = written(tmp_path / "raw", train_ids="11\n12\n", test_sep2_ids="20,30\n30,40\n")
    target = tmp_path / "copy"
    reader.write_index(target, "train", reader.clips("train")[:1])
    reader.write_index(target, "test", reader.clips("test")[:2])
    assert (target / "test_sep2_ids.csv").read_text() == "20,30\n"
    again = AudioCapsReader(target)
    assert again.clips("train") == [reader.prepared(clip, target) for clip in reader.clips("train")[:1]]
    assert [clip.id for clip in again.clips("test")] == ["20", "30"]
