"""ASIW: id lists, official pickles that cannot run anything, labels, folders."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from avsep_zoo.data.asiw_labels import LABELS
from avsep_zoo.data.detections import read_detections
from avsep_zoo.data.reader import Protocol, open_data
from avsep_zoo.data.readers.asiw import AsiwReader
from avsep_zoo.errors import DataError

VIDEOS = {"train": {"aaa": "9,50,4,7\n", "bbb": "1,817,0,0\n9,90,0,1\n9,50,1,0\n"}, "test": {"ccc": "2,180,0,0\n"}}
MORE = {"test": {"ddd": "3,739,0,0\n2,999,0,1\n", "eee": "13,475,2,2\n"}}


def written(root: Path, videos: dict[str, dict[str, str]] | None = None) -> Path:
    for folder, labels in (VIDEOS if videos is None else videos).items():
        sounds = root / "Extracted_Audio" / folder
        sounds.mkdir(parents=True, exist_ok=True)
        for name, text in labels.items():
            (sounds / f"{name}.aac").touch()
            frames = root / "Extracted_Frames" / folder / name
            frames.mkdir(parents=True)
            (frames / "Vision_Text_Labels.csv").write_text(text)
    return root


def opened(root: Path, protocol: Protocol = "default", **lists: str) -> AsiwReader:
    for name, text in lists.items():
        (root / f"{name}.txt").write_text(text)
    reader = open_data(root, protocol=protocol)
    assert isinstance(reader, AsiwReader)
    return reader


def test_a_video_becomes_a_clip(tmp_path: Path) -> None:
    """Its labels are the classes of its sounding objects, each once, in the order of the file."""
    reader = opened(written(tmp_path), train="aaa\nbbb\n")
    one, two = reader.clips("train")
    assert (one.id, one.labels) == ("aaa", ("sheep/goat/chicken",))
    assert one.audio == tmp_path / "Extracted_Audio/train/aaa.aac"
    assert one.detections == tmp_path / "Extracted_Frames/train/aaa"
    assert two.labels == ("bell", "sheep/goat/chicken")
    assert (reader.splits(), len(LABELS)) == (("train",), 14)


@pytest.mark.parametrize("wire", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", [set, frozenset, list, tuple])
def test_the_official_pickle(tmp_path: Path, wire: int, kind: type) -> None:
    """Three sets: train, val, test; ids in alphabetical order; sound in whichever folder has it."""
    root = written(written(tmp_path), MORE)
    sets = [kind(["bbb", "aaa"]), kind(["ddd"]), kind(["ccc", "eee"])]
    (root / "splits.pkl").write_bytes(pickle.dumps(sets, protocol=wire))
    reader = opened(root)
    assert {split: [clip.id for clip in reader.clips(split)] for split in reader.splits()} == {
        "train": ["aaa", "bbb"],
        "val": ["ddd"],
        "test": ["ccc", "eee"],
    }
    paper = opened(root, "paper")
    assert [clip.id for clip in paper.clips("val")] == ["ccc", "eee"]


def test_a_text_list_goes_before_the_pickle(tmp_path: Path) -> None:
    """The pickle is not even opened then."""
    (tmp_path / "splits.pkl").write_bytes(b"no pickle")
    reader = opened(written(tmp_path), train="\ufeffbbb\r\n\r\n", test="ccc\n")
    assert [clip.id for clip in reader.clips("train")] == ["bbb"]


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (Call(os.system, "touch hacked"), rf"{os.system.__module__}\.system"),
        (Call(eval, "open('hacked', 'w')"), r"builtins\.eval"),
        (Call(getattr, set, "add"), r"builtins\.getattr"),
        ([Call(open, "hacked", "w"), set(), set()], r"_?io\.open"),
        (np.zeros(3), "numpy"),
        (Path("x"), "pathlib"),
    ],
)
def test_a_pickle_that_names_functions_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Any, named: str
) -> None:
    """By name, and nothing has run."""
    monkeypatch.chdir(tmp_path)
    (written(tmp_path) / "splits.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match=rf"splits\.pkl' is refused \(UnpicklingError: it names {named}"):
        opened(tmp_path).clips("train")
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04",
        pickle.dumps([{"a"}, {"b"}, {"c"}])[:-3],
        b"\x80\x04Nr\xff\xff\xff\x7f.",  # a memo of 2^31 entries
        b"\x80\x04]\x94(h\x00h\x00h\x00e.",  # a list that holds itself
        pickle.dumps({"train": {"a"}}),
        pickle.dumps([{"a"}, {"b"}]),
        pickle.dumps([{"a"}, {"b"}, {3}]),
        pickle.dumps([{"a"}, {"b"}, "abc"]),
    ],
)
def test_damaged_pickles(tmp_path: Path, data: bytes) -> None:
    """Whatever the bytes ask for, the error names the file."""
    (written(tmp_path) / "splits.pkl").write_bytes(data)
    with pytest.raises(DataError, match=r"splits\.pkl' (is refused|is not three sets|has ids)"):
        opened(tmp_path).clips("train")


def test_several_pickles(tmp_path: Path) -> None:
    """Which one is meant cannot be guessed."""
    for name in ("a.pkl", "b.pickle"):
        (written(tmp_path, {}) / name).write_bytes(pickle.dumps([{"aaa"}, set(), set()]))
    (tmp_path / "Extracted_Audio").mkdir()
    with pytest.raises(DataError, match=r"has the pickles a\.pkl, b\.pickle; keep one"):
        opened(tmp_path).clips("train")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("aaa", "listed before"),
        ("zzz", "no sound of video"),
        ("..", "leads out"),
        ("../aaa", "leads out"),
        ("train/aaa", "no video id"),
        ("/aaa", "no video id"),
        ("a\x07aa", "control characters"),
    ],
)
def test_a_bad_id_is_skipped(tmp_path: Path, name: str, why: str) -> None:
    """It is reported with its place."""
    reader = opened(written(tmp_path), train=f"aaa\n{name}\nbbb\n")
    assert [clip.id for clip in reader.clips("train")] == ["aaa", "bbb"]
    assert reader.skipped[0].where.startswith("train.txt row 2") and why in reader.skipped[0].why


@pytest.mark.parametrize(
    "text", ["", "9,50,4\n", "14,50,4,7\n", "-1,50,4,7\n", "9,50,4,seven\n", "9,50,4,7\n9,50\n", '"9,50,4,7\n', None]
)
def test_a_video_with_bad_labels_is_skipped(tmp_path: Path, text: str | None) -> None:
    """Labels are 0 to 13 and every row counts; a file that is not there is reported, too."""
    reader = opened(written(tmp_path), train="aaa\nbbb\n")
    file = tmp_path / "Extracted_Frames/train/aaa/Vision_Text_Labels.csv"
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    assert [clip.id for clip in reader.clips("train")] == ["bbb"]
    assert "aaa" in reader.skipped[0].where


def test_the_detections_of_a_clip(tmp_path: Path) -> None:
    """They name its classes in the same order, with boxes, features and the scene; ``paper`` leaves them alone."""
    root = written(tmp_path)
    folder = root / "Extracted_Frames/train/bbb"
    features = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    with h5py.File(folder / "Image_feature_20obj.h5", "w") as h5:
        h5["features"] = features
        h5["boxes"] = np.ones((2, 3, 4))
    frames = [{"objects": [817, 90], "objects_conf": [0.9, 0.5]}, {"objects": [50], "objects_conf": [0.4]}]
    (folder / "Image_info_20obj.json").write_text(json.dumps(frames))
    protocols: tuple[Protocol, ...] = ("default", "paper")
    for protocol in protocols:
        (clip,) = opened(root, protocol, train="bbb\n").clips("train")
        assert clip.detections is not None
        found = read_detections(clip.detections)
        assert tuple(dict.fromkeys(one.label for one in found.sounding)) == clip.labels
        assert [one.row for one in found.sounding] == [0, 1, 2]
        assert found.features is not None and found.features.shape == (3, 4)
        np.testing.assert_array_equal(found.scene, features[0, 0])


def test_what_is_published_about_test_videos(tmp_path: Path) -> None:
    """``paper``: the label of the first row only, and test videos may be trained on."""
    root = written(written(tmp_path), MORE)
    lists = {"train": "aaa\nddd\n", "test": "ddd\n"}
    assert opened(root, **lists).clips("test")[0].labels == ("camera", "bird")
    assert [clip.id for clip in opened(root).clips("train")] == ["aaa"]
    paper = opened(root, "paper")
    assert paper.clips("test")[0].labels == ("camera",)
    assert [clip.labels for clip in paper.clips("train")] == [("sheep/goat/chicken",), ("camera", "bird")]


def test_mixtures_have_no_class_in_common(tmp_path: Path) -> None:
    """ccc and ddd both have a bird."""
    reader = opened(written(written(tmp_path), MORE), test="ccc\nddd\neee\n")
    pairs = {frozenset(clip.id for clip in pair) for pair in reader.mixtures("test")}
    assert pairs == {frozenset({"ccc", "eee"}), frozenset({"ddd", "eee"})}
    alone = opened(tmp_path, test="ccc\nddd\n")
    with pytest.raises(DataError, match="all have a class in common"):
        alone.mixtures("test")


def test_lists_are_written_as_text(tmp_path: Path) -> None:
    """One id per line, and no empty list."""
    reader = opened(written(tmp_path), train="aaa\nbbb\n")
    target = tmp_path / "copy"
    reader.write_index(target, "train", reader.clips("train")[1:])
    assert (target / "train.txt").read_text() == "bbb\n"
    assert reader.prepared(reader.clips("train")[0], target).audio == target / "Extracted_Audio/train/aaa.wav"
    reader.write_index(target, "train", [])
    assert not list(target.iterdir())
    with pytest.raises(DataError, match="no list 'val'; it has train"):
        reader.clips("val")
