"""VGGSound: text labels, the 15 instruments, compositions of any number."""

from __future__ import annotations

from pathlib import Path

import pytest

from avsep_zoo.data.reader import Protocol, open_data
from avsep_zoo.data.readers.vggsound import VggSoundReader
from avsep_zoo.errors import DataError

TEST = 'a.wav,dog barking, growling\nb.wav,"cat, meowing"\nc.wav,playing violinfiddle\nd.wav,playing harp\n'


def written(root: Path, protocol: Protocol = "default", **lists: str) -> VggSoundReader:
    for name, text in lists.items():
        (root / f"{name}.csv").write_text(text)
    reader = open_data(root, protocol=protocol)
    assert isinstance(reader, VggSoundReader)
    return reader


def test_a_label_may_hold_commas(tmp_path: Path) -> None:
    """It is the class, quoted or not."""
    dog, cat, *_ = written(tmp_path, test=TEST).clips("test")
    assert (dog.id, dog.labels, dog.text) == ("a", ("dog barking, growling",), None)
    assert (cat.label, cat.audio, cat.frames) == ("cat, meowing", tmp_path / "audio/b.wav", tmp_path / "frames/b.mp4")


@pytest.mark.parametrize(
    ("row", "protocol", "audio"),
    [
        ("/x/a.wav", "default", "audio/x/a.wav"),
        ("data/vggsound/audio/a.wav", "default", "audio/a.wav"),
        ("/home/me/audio/vggsound/audio/a.wav", "default", "audio/a.wav"),
        ("data/vggsound/audio/a.wav", "paper", "audio/data/vggsound/audio/a.wav"),
    ],
)
def test_folders_up_to_audio_are_dropped(tmp_path: Path, row: str, protocol: Protocol, audio: str) -> None:
    """The published loader doubles what the published script wrote."""
    (clip,) = written(tmp_path, protocol, train=f"{row},dog barking\n").clips("train")
    assert clip.audio == tmp_path / audio


@pytest.mark.parametrize(
    ("row", "why"),
    [("e.wav", "label is ''"), ("e.wav, ", "label is ''"), ("../e.wav,dog", "leads out"), (",dog", "too short")],
)
def test_a_bad_row_is_skipped(tmp_path: Path, row: str, why: str) -> None:
    """It is reported with its place."""
    reader = written(tmp_path, test=TEST + row + "\n")
    assert len(reader.clips("test")) == 4
    assert (reader.skipped[0].where, why in reader.skipped[0].why) == ("test.csv row 5", True)


def test_compositions_of_three(tmp_path: Path) -> None:
    """The published loader takes all after the first comma for one path, which works for two only."""
    lists = {"test": TEST, "test_sep_2": "a.wav,b.wav\n", "test_sep_3": "a.wav,b.wav,c.wav\n"}
    reader = written(tmp_path, **lists)
    assert reader.mixture_lists() == ("test_sep_2", "test_sep_3", "testsep_instruments")
    assert [[clip.id for clip in m] for m in reader.mixtures("test_sep_3")] == [["a", "b", "c"]]
    paper = written(tmp_path, "paper")
    assert [[clip.id for clip in m] for m in paper.mixtures("test_sep_2")] == [["a", "b"]]
    with pytest.raises(DataError, match=r"It names 'b\.wav,c\.wav', which is not in the list 'test'"):
        paper.mixtures("test_sep_3")


def test_the_instruments(tmp_path: Path) -> None:
    """Their rows are lists of their own, also where the comma of a label was dropped."""
    reader = written(tmp_path, train="x.wav,dog barking\n", test=TEST)
    assert reader.splits() == ("test", "train", "test_instruments")
    assert [clip.id for clip in reader.clips("test_instruments")] == ["c", "d"]
    assert [{clip.id for clip in m} for m in reader.mixtures("testsep_instruments")] == [{"c", "d"}]


def test_the_official_list(tmp_path: Path) -> None:
    """One file for both splits; videos are named by id and start."""
    rows = '--A,30,"dog barking, growling",train\nB_c,5,playing harp,test\nD,x,cat,test\nE,1,cat,other\nF,1\n'
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/--A_000030.mp4").touch()
    reader = written(tmp_path, vggsound=rows)
    (dog,) = reader.clips("train")
    assert (dog.id, dog.label) == ("--A_000030", "dog barking, growling")
    assert (dog.audio, dog.video) == (tmp_path / "audio/--A_000030.wav", tmp_path / "videos/--A_000030.mp4")
    assert [clip.id for clip in reader.clips("test")] == ["B_c_000005"]
    assert [skipped.where for skipped in reader.skipped] == [f"vggsound.csv row {n}" for n in (3, 4, 5)]


def test_lists_are_written_again(tmp_path: Path) -> None:
    """Rows as they stood, and compositions of what is left."""
    (tmp_path / "raw").mkdir()
    reader = written(tmp_path / "raw", test=TEST, test_sep_2="a.wav,b.wav\nb.wav,c.wav\n")
    reader.write_index(tmp_path / "copy", "test", reader.clips("test")[:2])
    assert (tmp_path / "copy/test.csv").read_text() == 'a.wav,dog barking, growling\nb.wav,"cat, meowing"\n'
    assert (tmp_path / "copy/test_sep_2.csv").read_text() == "a.wav,b.wav\n"
