"""MUSIC and MUSIC-21: every published form of the lists, bad rows, mixtures, and lists written again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from avsep_zoo.data.clip import Clip
from avsep_zoo.data.reader import open_data
from avsep_zoo.data.readers.music import MusicReader
from avsep_zoo.errors import DataError

TRAIN = "/cello/AAA.wav,/cello/AAA.mp4,137\n/tuba/BBB.wav,/tuba/BBB.mp4,20\n"
TEST = "/cello/CCC.wav,/cello/CCC.mp4,60\n/tuba/DDD.wav,/tuba/DDD.mp4,61\n/erhu/EEE.wav,/erhu/EEE.mp4,62\n"
PAIRS = "/cello/CCC.wav, /tuba/DDD.wav\n/erhu/EEE.wav, /cello/CCC.wav\n"


def written(root: Path, **lists: str) -> MusicReader:
    root.mkdir(parents=True, exist_ok=True)
    for name, text in lists.items():
        (root / f"{name}.csv").write_bytes(text.encode())
    return MusicReader(root)


def ids(clips: list[Clip]) -> list[str]:
    return [clip.id for clip in clips]


def test_a_row_becomes_a_clip(tmp_path: Path) -> None:
    """All paths of the official layout follow from the row."""
    reader = written(tmp_path, train="/cello/a b.wav,/cello/a b.mp4,137\n")
    assert reader.clips("train") == [
        Clip(
            id="cello/a b",
            audio=tmp_path / "audio/cello/a b.wav",
            labels=("cello",),
            frames=tmp_path / "frames/cello/a b.mp4",
            frame_count=137,
            frame_rate=1.0,
            detections=tmp_path / "detection_results/cello/a b.mp4.npy",
            motion=tmp_path / "motion_features/cello/a b.mp4.npy",
        )
    ]


@pytest.mark.parametrize(
    ("names", "splits", "mixtures"),
    [
        (("trainmusic", "testmusic", "testsepmusic"), ("test", "train"), ("testsep",)),
        (("trainmusic21", "testmusic21", "testsepmusic21"), ("test", "train"), ("testsep",)),
        (("train", "val", "test", "testsep"), ("test", "train", "val"), ("testsep",)),
        (("annotations/train", "annotations/test", "annotations/test_sep_2"), ("test", "train"), ("test_sep_2",)),
        (
            ("train", "test", "testsep", "test_timbre", "testsep_timbre"),
            ("test", "test_timbre", "train"),
            ("testsep", "testsep_timbre"),
        ),
        (
            ("trainmusic", "trainmusic21", "testmusic", "testmusic21", "testsepmusic", "testsepmusic21"),
            ("test", "train", "testmusic21", "trainmusic21"),
            ("testsep", "testsepmusic21"),
        ),
    ],
)
def test_published_names_of_lists(
    tmp_path: Path, names: tuple[str, ...], splits: tuple[str, ...], mixtures: tuple[str, ...]
) -> None:
    """Splits are called the same in whatever form the lists are published, and mixtures find their test list."""
    (tmp_path / "annotations").mkdir()
    reader = written(tmp_path, **{n: PAIRS if "sep" in n else TEST if "test" in n else TRAIN for n in names})
    assert (reader.splits(), reader.mixture_lists()) == (splits, mixtures)
    assert ids(reader.clips("train")) == ["cello/AAA", "tuba/BBB"]
    for name in mixtures:
        assert [ids(list(m)) for m in reader.mixtures(name)] == [["cello/CCC", "tuba/DDD"], ["erhu/EEE", "cello/CCC"]]
    assert not reader.skipped


def test_byte_order_mark_windows_lines_and_blank_lines(tmp_path: Path) -> None:
    """Lists that went through a spreadsheet read the same."""
    reader = written(tmp_path, train="\ufeff" + TRAIN.replace("\n", "\r\n\r\n"))
    assert ids(reader.clips("train")) == ["cello/AAA", "tuba/BBB"]
    assert not reader.skipped


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("one column", "fewer than 2 columns"),
        ("/../secret.wav,/a/b.mp4,3", "leads out"),
        ("/a/../../b.wav,/a/b.mp4,3", "leads out"),
        ("/a/b.wav,/a/../../b.mp4,3", "leads out"),
        ("//etc/passwd,/a/b.mp4,3", "leads out"),
        ("a/..\\..\\b.wav,a/b.mp4,3", "leads out"),
        ("C:/b.wav,a/b.mp4,3", "leads out"),
        ("b.wav,a/b.mp4,3", "too short"),
        ("a/b.wav,,3", "too short"),
        ("a/b\0.wav,a/b.mp4,3", "control characters"),
        ("a/b\x1b[2J.wav,a/b.mp4,3", "control characters"),
        (f"a/{'b' * 300}.wav,a/b.mp4,3", "255 bytes"),
        ("a/b.wav,a/b.mp4,three", "frame count is 'three'"),
        ("a/b.wav,a/b.mp4,-3", "frame count is '-3'"),
        ("a/b.wav,a/b.mp4,1e3", "frame count is '1e3'"),
        ("a/b.wav,a/b.mp4," + "9" * 5000, "frame count"),
        ('"a/b.wav,a/b.mp4,3', "no comma-separated one"),
        ("/cello/AAA.wav,/cello/AAA.mp4,137", "listed before"),
    ],
)
def test_a_bad_row_is_skipped_and_reported(tmp_path: Path, row: str, why: str) -> None:
    """It costs itself, not the list, and the report says where it stands."""
    reader = written(tmp_path, train=TRAIN + row + "\n/erhu/ZZZ.wav,/erhu/ZZZ.mp4,5\n")
    assert ids(reader.clips("train")) == ["cello/AAA", "tuba/BBB", "erhu/ZZZ"]
    (skipped,) = reader.skipped
    assert skipped.where == "train.csv row 3"
    assert why in skipped.why


def test_bytes_that_are_not_utf_8_cost_one_row(tmp_path: Path) -> None:
    """A name in Latin-1 is skipped, one in UTF-8 is not."""
    rows = "/cello/ä.wav,/cello/ä.mp4,3\n"
    (tmp_path / "train.csv").write_bytes(rows.encode("latin-1") + rows.encode())
    reader = MusicReader(tmp_path)
    assert ids(reader.clips("train")) == ["cello/ä"]
    assert "UTF-8" in reader.skipped[0].why


def test_lists_that_cannot_be_used(tmp_path: Path) -> None:
    """Only a list that is missing or has no usable row is an error; it names the first reason."""
    reader = written(tmp_path, train="a.wav,b.mp4,3\n", val="")
    with pytest.raises(DataError, match=r"train\.csv' has no usable row \(train\.csv row 1: The path 'a\.wav' is too"):
        reader.clips("train")
    with pytest.raises(DataError, match=r"val\.csv' has no usable row \(it is empty\)"):
        reader.clips("val")
    with pytest.raises(DataError, match=r"no list 'test'; it has train, val\."):
        reader.clips("test")
    with pytest.raises(DataError, match=r"no list 'testsep' to make mixtures of; it has train, val\."):
        reader.mixtures("testsep")


def test_test_clips_are_not_trained_on(tmp_path: Path) -> None:
    """Two videos of the official training list are in the test list; ``paper`` keeps them."""
    reader = written(tmp_path, trainmusic=TRAIN + TEST.splitlines()[0], testmusic=TEST)
    assert ids(reader.clips("train")) == ["cello/AAA", "tuba/BBB"]
    assert "cello/CCC' is a test clip too" in reader.skipped[0].why
    assert len(MusicReader(tmp_path, protocol="paper").clips("train")) == 3


def test_rows_of_mixtures_in_quotes(tmp_path: Path) -> None:
    """Both paths in one cell are two."""
    reader = written(tmp_path, test=TEST, testsep='"/cello/CCC.wav, /tuba/DDD.wav"\n')
    assert [ids(list(mixture)) for mixture in reader.mixtures("testsep")] == [["cello/CCC", "tuba/DDD"]]


def test_rows_of_mixtures_that_cannot_be_used(tmp_path: Path) -> None:
    """Unknown, too few, of another length, hostile, or the same twice; ``paper`` keeps the last."""
    bad = "/cello/CCC.wav, /tuba/XXX.wav\n/cello/CCC.wav\n/cello/CCC.wav,/tuba/DDD.wav,/erhu/EEE.wav\n../a,../b\n"
    reader = written(tmp_path, test=TEST, testsep=PAIRS + bad + "/cello/CCC.wav,/cello/CCC.wav\n")
    assert len(reader.mixtures("testsep")) == 2
    assert [skipped.where for skipped in reader.skipped] == [f"testsep.csv row {n}" for n in (3, 4, 5, 6, 7)]
    assert len(MusicReader(tmp_path, protocol="paper").mixtures("testsep")) == 3
    reader = written(tmp_path, test=TEST, testsep="/a/b.wav,/c/d.wav\n")
    with pytest.raises(DataError, match=r"'testsep' .* has no usable row \(testsep\.csv row 1: It names '/a/b\.wav'"):
        reader.mixtures("testsep")


def test_mixtures_of_three(tmp_path: Path) -> None:
    """Rows have as many paths as the mixture has sources."""
    reader = written(tmp_path, test=TEST, test_sep_3="/cello/CCC.wav,/tuba/DDD.wav,/erhu/EEE.wav\n")
    assert [ids(list(m)) for m in reader.mixtures("test_sep_3")] == [["cello/CCC", "tuba/DDD", "erhu/EEE"]]


def test_a_list_without_mixtures_is_paired_up(tmp_path: Path) -> None:
    """Different classes, no pair twice, the same whatever the order of the list."""
    forward = written(tmp_path / "a", test=TEST).mixtures("testsep")
    backward = written(tmp_path / "b", test="\n".join(reversed(TEST.splitlines()))).mixtures("testsep")
    assert [ids(list(m)) for m in forward] == [ids(list(m)) for m in backward]
    assert {frozenset(ids(list(m))) for m in forward} == {
        frozenset({"cello/CCC", "tuba/DDD"}),
        frozenset({"cello/CCC", "erhu/EEE"}),
        frozenset({"tuba/DDD", "erhu/EEE"}),
    }
    assert len(forward) == 3


def test_lists_are_written_again_for_the_clips_that_were_found(tmp_path: Path) -> None:
    """In the official form, with new counts, and mixtures of what is left, under the published names."""
    reader = written(tmp_path / "raw", testmusic=TEST, testsepmusic=PAIRS)
    cello, tuba, _ = reader.clips("test")
    target = tmp_path / "prepared"
    reader.write_index(target, "test", [replace(tuba, frame_count=7), cello])
    assert (target / "testmusic.csv").read_text() == (
        "/cello/CCC.wav,/cello/CCC.mp4,60\n/tuba/DDD.wav,/tuba/DDD.mp4,7\n"
    )
    assert (target / "testsepmusic.csv").read_text() == "/cello/CCC.wav, /tuba/DDD.wav\n"
    again = MusicReader(target)
    assert again.clips("test")[1] == replace(reader.prepared(tuba, target), frame_count=7)
    assert sorted(path.name for path in target.iterdir()) == ["testmusic.csv", "testsepmusic.csv"]


def test_a_list_that_would_be_empty_is_removed(tmp_path: Path) -> None:
    """What an earlier run wrote is not taken for the present."""
    reader = written(tmp_path / "raw", test=TEST, testsep=PAIRS)
    target = tmp_path / "prepared"
    reader.write_index(target, "test", reader.clips("test"))
    reader.write_index(target, "test", reader.clips("test")[:1])
    assert [path.name for path in target.iterdir()] == ["test.csv"]
    with pytest.raises(DataError, match="'x/y' is not in the list 'test'"):
        reader.write_index(target, "test", [replace(reader.clips("test")[0], id="x/y")])


def test_videos_of_a_folder_that_is_not_prepared(tmp_path: Path) -> None:
    """Found by id, in the folder of the class first, whatever the container; not among prepared data."""
    for name in ("cello/AAA.webm", "other/AAA.mp4", "BBB.MKV"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    cello, tuba = written(tmp_path, train=TRAIN).clips("train")
    assert (cello.video, tuba.video) == (tmp_path / "cello/AAA.webm", tmp_path / "BBB.MKV")
    (tmp_path / "audio").mkdir()
    assert MusicReader(tmp_path).clips("train")[0].video is None
    (tmp_path / "cello").rename(tmp_path / "videos")
    assert MusicReader(tmp_path).clips("train")[0].video == tmp_path / "videos/AAA.webm"


def test_official_json_lists(tmp_path: Path) -> None:
    """Solos are split by hash with every class in each split; duets have two labels; a video counts once."""
    solos = {label: [f"{label[0]}{n:010d}" for n in range(40)] for label in ("cello", "tuba")}
    for name in ("MUSIC_solo_videos", "MUSIC21_solo_videos"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"videos": solos}))
    (tmp_path / "MUSIC_duet_videos.json").write_text(json.dumps({"videos": {"flute violin": ["ddd", "../../x"]}}))
    reader = open_data(tmp_path)
    assert isinstance(reader, MusicReader)
    assert reader.splits() == ("train", "val", "test", "duets")
    solo = {split: ids(reader.clips(split)) for split in ("train", "val", "test")}
    listed = sorted(name for names in solo.values() for name in names)
    assert listed == sorted(f"{label}/{name}" for label in solos for name in solos[label])
    assert 52 <= len(solo["train"]) <= 72
    assert all({name.split("/")[0] for name in names} == {"cello", "tuba"} for names in solo.values())
    (duet,) = reader.clips("duets")
    assert (duet.id, duet.labels, duet.label) == ("flute+violin/ddd", ("flute", "violin"), None)
    assert "leads out" in reader.skipped[0].why
    assert all({clip.label for clip in pair} == {"cello", "tuba"} for pair in reader.mixtures("testsep"))
    reader.write_index(tmp_path / "copy", "duets", [replace(duet, frame_count=9)])
    assert (tmp_path / "copy/duets.csv").read_text() == "/flute+violin/ddd.wav,/flute+violin/ddd.mp4,9\n"
    assert MusicReader(tmp_path / "copy").clips("duets")[0].labels == ("flute", "violin")


@pytest.mark.parametrize("text", ["[", "[]", "{}", '{"videos": 3}', '{"videos": {"cello": [3]}}', "[" * 100000])
def test_damaged_json_lists(tmp_path: Path, text: str) -> None:
    """The error names the file."""
    (tmp_path / "MUSIC_solo_videos.json").write_text(text)
    with pytest.raises(DataError, match=r"MUSIC_solo_videos\.json' cannot be read"):
        MusicReader(tmp_path)


def test_the_folder_is_recognised(tmp_path: Path) -> None:
    """By the first row of a list; folders of other data sets are not."""
    written(tmp_path / "music", trainmusic=TRAIN)
    assert isinstance(open_data(tmp_path / "music", frame_rate=8), MusicReader)
    assert open_data(tmp_path / "music", frame_rate=8).clips("train")[0].frame_rate == 8
    written(tmp_path / "other", train="AbC.wav,playing cello\n", test_sep_2="/a/b.wav,/c/d.wav\n")
    assert not MusicReader.matches(tmp_path / "other")
