"""Stored detections: files of rows, the boxes and labels of ASIW, and files that are damaged or hostile."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from avsep_zoo.data.asiw_labels import LABELS, SoundingObject, read_sounding_objects
from avsep_zoo.data.detections import Detections, Sounding, read_detections, read_scene_detections
from avsep_zoo.errors import DataError

NAN = float("nan")


def stored(path: Path, rows: Any) -> Path:
    np.save(path / "a.npy", np.asarray(rows))
    return path / "a.npy"


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """Two frames of three boxes with features of four numbers; the second frame has two objects."""
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "Image_feature_20obj.h5", "w") as h5:
        h5["features"] = rng.standard_normal((2, 3, 4)).astype(np.float32)
        h5["boxes"] = rng.uniform(0, 99, (2, 3, 4))
    frames = [{"objects": [7, 8, 9], "objects_conf": [0.9, 0.5, 1]}, {"objects": [5, 6], "objects_conf": [0.4, 0.3]}]
    (tmp_path / "Image_info_20obj.json").write_text(json.dumps(frames))
    return tmp_path


def change(scene: Path, **sets: Any) -> None:
    with h5py.File(scene / "Image_feature_20obj.h5", "a") as h5:
        for name, value in sets.items():
            del h5[name]
            h5[name] = value


def test_rows_of_a_file(tmp_path: Path) -> None:
    """Columns are frame, class, score and the box; classes stored as floats are rounded."""
    found = read_detections(stored(tmp_path, np.array([[2, 6.9999, 0.5, 1, 2, 3, 4], [1, 3, 0.25, 5, 6, 7, 8]])))
    assert (found.frames.tolist(), found.classes.tolist(), found.scores.tolist()) == ([2, 1], [7, 3], [0.5, 0.25])
    assert found.boxes.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert found.features is None and found.scene is None and found.sounding == ()


@pytest.mark.parametrize("bad", [[NAN] * 7, [-1, 0, 1, 0, 0, 1, 1], [1e300, 0, 1, 0, 0, 1, 1], [1, 0, 1, 0, NAN, 1, 1]])
def test_rows_without_frame_or_numbers_are_left_out(tmp_path: Path, bad: list[float]) -> None:
    """The others stay."""
    assert read_detections(stored(tmp_path, [bad, [1, 3, 0.5, 5, 6, 7, 8]])).frames.tolist() == [1]


@pytest.mark.parametrize("shape", [(0,), (0, 7), (0, 5)])
def test_a_file_without_rows(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Nothing was found, which is no error."""
    found = read_detections(stored(tmp_path, np.zeros(shape)))
    assert found.boxes.shape == (0, 4) and found.best(1.0) is None


@pytest.mark.parametrize("rows", [np.zeros((3, 6)), np.zeros((3, 8)), np.zeros(7), np.zeros((2, 7), complex), ["text"]])
def test_files_of_another_form(tmp_path: Path, rows: Any) -> None:
    """The error says what the file holds."""
    with pytest.raises(DataError, match=r"a\.npy' are .*; give rows of frame, class, score"):
        read_detections(stored(tmp_path, rows))


@pytest.mark.filterwarnings("ignore:Reading `.npy` or `.npz` file required additional header parsing")
@pytest.mark.parametrize("data", [b"", b"\x93NUMPY", b"text", b"\x80\x04\x95pickle"])
def test_damaged_files(tmp_path: Path, data: bytes) -> None:
    """Also ones cut short, and pickles, which are never read."""
    path = stored(tmp_path, np.ones((2, 7)))
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.npy' cannot be read"):
        read_detections(path)
    path = stored(tmp_path, np.ones((2, 7)))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DataError, match=r"a\.npy' cannot be read"):
        read_detections(path)
    np.save(path, np.array([{}], object), allow_pickle=True)
    with pytest.raises(DataError, match=r"a\.npy' cannot be read \(Object arrays"):
        read_detections(path)
    with pytest.raises(DataError, match=r"gone\.npy' cannot be read"):
        read_detections(tmp_path / "gone.npy")


def test_best_box_of_every_frame(tmp_path: Path) -> None:
    """The first of the highest score, at the middle of the frame's time; frames whose best has no area are left out."""
    rows = [
        (1, 7, 0.4, 0, 0, 9, 9),
        (1, 7, 0.9, 1, 2, 3, 4),
        (1, 7, 0.9, 0, 0, 5, 5),
        (2, 7, 0.8, 5, 5, 5, 9),
        (3, 7, 0.2, 1, 1, 8, 8),
    ]
    best = read_detections(stored(tmp_path, rows)).best(frame_rate=2.0)
    np.testing.assert_array_equal(best, [[0.25, 1, 2, 3, 4], [1.25, 1, 1, 8, 8]])


def test_boxes_with_features(scene: Path) -> None:
    """The n-th object of a frame is its n-th box; boxes beyond are padding; the first feature is the scene."""
    found = read_detections(scene)
    with h5py.File(scene / "Image_feature_20obj.h5") as h5:
        features, boxes = h5["features"][()], h5["boxes"][()]
    assert found.frames.tolist() == [0, 0, 0, 1, 1]
    assert (found.classes.tolist(), found.scores.tolist()) == ([7, 8, 9, 5, 6], [0.9, 0.5, 1, 0.4, 0.3])
    assert found.features is not None and found.features.dtype == np.float32
    np.testing.assert_array_equal(found.features, features.reshape(6, 4)[:5])
    np.testing.assert_array_equal(found.boxes, boxes.reshape(6, 4)[:5])
    np.testing.assert_array_equal(found.scene, features[0, 0])
    assert found.sounding == () and found.times is None


def test_row_of_a_box(scene: Path) -> None:
    """By frame and number in it; one that is not there is an error."""
    found = read_scene_detections(scene)
    assert [found.row(0, 2), found.row(1, 0), found.row(1, 1)] == [2, 3, 4]
    for frame, box in ((1, 2), (2, 0), (0, -1)):
        with pytest.raises(DataError, match=f"Frame {frame} has . detected boxes; number {box} "):
            found.row(frame, box)


@pytest.mark.parametrize(
    ("sets", "why"),
    [
        ({"features": np.zeros((2, 3), np.float32)}, "has features"),
        ({"features": np.zeros((2, 4, 4), np.float32)}, "has features"),
        ({"boxes": np.zeros((2, 3, 5))}, "and boxes"),
        ({"features": np.zeros((0, 3, 4), np.float32), "boxes": np.zeros((0, 3, 4))}, "has features"),
        ({"features": np.zeros((3, 3, 4), np.float32), "boxes": np.zeros((3, 3, 4))}, "do not fit"),
        ({"features": np.zeros((2, 2, 4), np.float32), "boxes": np.zeros((2, 2, 4))}, "do not fit"),
        ({"features": np.full((2, 3, 4), NAN, np.float32)}, "NaN or infinity"),
        ({"boxes": np.full((2, 3, 4), np.inf)}, "NaN or infinity"),
        ({"features": np.zeros((2, 3, 4), np.int64)}, "give numbers"),
        ({"features": h5py.ExternalLink("/etc/passwd", "x")}, "does not hold features and boxes itself"),
        ({"features": h5py.SoftLink("/boxes")}, "does not hold features and boxes itself"),
    ],
)
def test_boxes_that_make_no_sense(scene: Path, sets: dict[str, Any], why: str) -> None:
    """Shapes and values are checked, and nothing outside the file is followed."""
    change(scene, **sets)
    with pytest.raises(DataError, match=why):
        read_scene_detections(scene)


def test_a_small_file_that_claims_to_be_huge(scene: Path) -> None:
    """Shapes are checked before anything is read."""
    with h5py.File(scene / "Image_feature_20obj.h5", "w") as h5:
        h5.create_dataset("features", (10**6, 20, 2048), np.float32, chunks=(1, 20, 2048))
        h5.create_dataset("boxes", (10**6, 20, 4), np.float32, chunks=(1, 20, 4))
    with pytest.raises(DataError, match=r"has features \(1000000, 20, 2048\)"):
        read_scene_detections(scene)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[3, 4]",
        '[{"objects": [1]}, {"objects": [1]}]',
        '[{"objects": [1], "objects_conf": []}, {"objects": [], "objects_conf": []}]',
        '[{"objects": [-1], "objects_conf": [0.5]}, {"objects": [], "objects_conf": []}]',
        '[{"objects": [1.5], "objects_conf": [0.5]}, {"objects": [], "objects_conf": []}]',
        '[{"objects": [1], "objects_conf": [NaN]}, {"objects": [], "objects_conf": []}]',
        '[{"objects": [1], "objects_conf": ["0.5"]}, {"objects": [], "objects_conf": []}]',
        "[" * 100000,
    ],
)
def test_objects_that_make_no_sense(scene: Path, text: str) -> None:
    """Class ids are whole numbers from 0, confidences 0 to 1, as many as objects."""
    (scene / "Image_info_20obj.json").write_text(text)
    with pytest.raises(DataError, match=r"Image_info_20obj\.json"):
        read_scene_detections(scene)


def test_missing_or_damaged_boxes(scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a video, and the package that reads them."""
    with pytest.raises(DataError, match=r"Image_feature_20obj\.h5' cannot be read"):
        read_scene_detections(scene.parent)
    file = scene / "Image_feature_20obj.h5"
    file.write_bytes(file.read_bytes()[:700])
    with pytest.raises(DataError, match=r"Image_feature_20obj\.h5' cannot be read"):
        read_scene_detections(scene)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DataError, match=r"pip install h5py"):
        read_scene_detections(scene)


@pytest.mark.parametrize("text", ["1,8,0,1\n9,5,1,0\n1,7,0,0\n", "\ufeff1,8,0,1\r\n\r\n 9, 5,1,0\r\n1,7,0,0"])
def test_what_sounds_of_a_scene(scene: Path, text: str) -> None:
    """The boxes of the labels file with their classes, in its order; BOM, CRLF and blanks are fine."""
    (scene / "Vision_Text_Labels.csv").write_bytes(text.encode())
    assert read_sounding_objects(scene)[1] == SoundingObject(label=9, detector_class=5, frame=1, box=0)
    found = read_detections(scene)
    sheep = LABELS[9]
    assert found.sounding == (Sounding(1, "bell"), Sounding(3, sheep), Sounding(0, "bell"))
    assert sheep == "sheep/goat/chicken"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1,8,2,0\n", r"do not fit the boxes \(Frame 2 has 0 detected boxes"),
        ("1,8,1,2\n", r"do not fit the boxes \(Frame 1 has 2 detected boxes, number 2 is not"),
        ("1,8,0,1\n1,8,0,999999999\n", "do not fit the boxes"),
        ("", "cannot be used: it is empty"),
        ("1,8,0\n", "has 3 columns; give label,class,frame,box"),
        ("14,8,0,0\n", "has the label 14; labels are 0 to 13"),
        ("1,8,0,-1\n", "has '1,8,0,-1'; give whole numbers"),
        ("label,class,frame,box\n", "give whole numbers"),
        ("1,8,0,nan\n", "give whole numbers"),
        ('"1,8,0,0\n', "the row is no comma-separated one"),
    ],
)
def test_labels_that_make_no_sense(scene: Path, text: str, why: str) -> None:
    """A list of what sounds that is there has to be right: a wrong box would teach the wrong thing."""
    (scene / "Vision_Text_Labels.csv").write_text(text)
    with pytest.raises(DataError, match=why):
        read_detections(scene)


def test_boxes_of_one_time() -> None:
    """Those of the nearest frame; what sounds in it keeps its class and gets the row it has there."""
    found = timed()
    assert found.at(-5.0).frames.tolist() == [1, 1]
    late = found.at(1.3)
    assert (late.frames.tolist(), late.classes.tolist(), len(late)) == ([2], [9], 1)
    assert late.sounding == (Sounding(0, "dog"),) and late.names == found.names
    assert late.features is not None and late.features.tolist() == [[2.0]]
    assert replace(found, times=None).at(1.3).frames.tolist() == [1, 1, 2]
    assert len(found.take(np.zeros(0, np.int64)).at(0.0)) == 0


def test_some_rows() -> None:
    """In the order that is asked for."""
    found = timed().take(np.array([2, 0]))
    assert (found.classes.tolist(), found.scores.tolist()) == ([9, 7], [0.7, 0.9])
    assert found.times is not None and found.times.tolist() == [1.5, 0.5]
    assert found.sounding == (Sounding(0, "dog"), Sounding(1, "bell"))
    assert timed().take(np.array([1])).sounding == ()


@pytest.mark.parametrize(
    ("name", "number"), [("dog", 1), ("Cow Bell", 2), ("cow-bell", 2), (" DOG ", 1), ("cat", None), ("", None)]
)
def test_number_of_a_class(name: str, number: int | None) -> None:
    """Classes are numbered from 1; how a name is written does not matter."""
    assert timed().number(name) == number
    assert replace(timed(), names=()).number(name) is None


def timed() -> Detections:
    """Two boxes at 0.5 s and one at 1.5 s; a dog and a bell sound."""
    return Detections(
        frames=np.array([1, 1, 2]),
        classes=np.array([7, 8, 9]),
        scores=np.array([0.9, 0.8, 0.7]),
        boxes=np.arange(12.0).reshape(3, 4),
        features=np.arange(3, dtype=np.float32)[:, None],
        times=np.array([0.5, 0.5, 1.5]),
        names=("Dog", "cow_bell"),
        sounding=(Sounding(2, "dog"), Sounding(0, "bell")),
    )


def test_detections_compare_by_identity() -> None:
    """Arrays have no single truth value, so two readings are never "equal"."""
    empty = Detections(np.zeros(0), np.zeros(0), np.zeros(0), np.zeros((0, 4)))
    assert empty == empty and empty != Detections(empty.frames, empty.classes, empty.scores, empty.boxes)
