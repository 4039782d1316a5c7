"""Detections of a clip as its cue: which frame, what sounds in it, what the manifest names, and crops by class."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from avsep_zoo import Cue
from avsep_zoo.data.clip import Clip
from avsep_zoo.data.clip_cues import shown_cue
from avsep_zoo.data.detection_file import write_detections_file
from avsep_zoo.data.detections import Detections, Sounding
from avsep_zoo.data.frames import clip_detections, clip_frames
from avsep_zoo.data.reader import open_data
from avsep_zoo.errors import CueError, DataError

NAMES = ("violin", "flute", "lamp")
VIOLIN, FLUTE, LAMP = 1, 2, 3
BOTH = frozenset({"frames", "detections"})


def make(folder: Path, rows: Any, *labels: str, **known: Any) -> Clip:
    """A clip of three pictures, one per second, that are 80, 120 and 160 bright; rows of boxes if they are given."""
    folder.mkdir(exist_ok=True)
    for number in (1, 2, 3):
        Image.new("RGB", (40, 30), (40 + 40 * number,) * 3).save(folder / f"{number:06d}.png")
    if rows is not None:
        np.save(folder / "boxes.npy", np.asarray(rows, np.float64).reshape(-1, 7))
    known = {"detector_classes": NAMES, "frame_count": 3, **known}
    return Clip("a", folder / "a.wav", labels, frames=folder, detections=folder / "boxes.npy", **known)


def row(frame: int, number: int, score: float = 0.9, left: float = 0) -> list[float]:
    return [frame, number, score, left, 0, left + 10, 30]


def told(clip: Clip, time: float, at: float = 0.0) -> tuple[list[tuple[str | None, float]], float]:
    """What sounds, with the left side of its box, and how bright the picture is."""
    shown = shown_cue(clip, time, BOTH, pictures=1, at=at)
    found = shown["detections"]
    return [(one.label, found.boxes[one.row, 0]) for one in found.sounding], float(shown["frames"].mean())


def test_the_best_of_each_class_sounds(tmp_path: Path) -> None:
    """In the frame nearest in time, with times counted from where the segment is; others are what is around it."""
    rows = [row(1, VIOLIN), row(2, LAMP), row(2, VIOLIN, 0.5, 1), row(2, FLUTE, 0.7, 2), row(2, VIOLIN, 0.8, 3)]
    clip = make(tmp_path, rows, "violin", "flute")
    assert told(clip, 1.4) == ([("violin", 3), ("flute", 2)], 120)
    found = shown_cue(clip, 1.4, BOTH, pictures=1, at=5.0)["detections"]
    assert len(found) == 4 and found.times.tolist() == pytest.approx([5.1] * 4)
    assert Cue(**shown_cue(clip, 1.4, BOTH)).modalities == {"frames", "detections"}


@pytest.mark.parametrize(
    ("labels", "time", "sounding", "bright"),
    [
        (("violin",), 2.9, [("violin", 5)], 120),
        (("flute",), 0.1, [("flute", 6)], 120),
        (("violin", "flute"), 0.1, [("violin", 5), ("flute", 6)], 120),
        (("violin", "gong"), 0.1, [("violin", 4)], 80),
        (("gong",), 0.1, [("gong", 4)], 80),
        (("gong", "harp"), 0.1, [], 80),
        ((), 0.1, [], 80),
    ],
)
def test_the_frame_shows_as_much_of_what_sounds_as_any(
    tmp_path: Path, labels: tuple[str, ...], time: float, sounding: list[Any], bright: float
) -> None:
    """A detector misses objects in some frames; the picture goes with the boxes."""
    clip = make(
        tmp_path, [row(1, VIOLIN, 0.9, 4), row(2, VIOLIN, 0.9, 5), row(2, FLUTE, 0.9, 6), row(3, LAMP)], *labels
    )
    assert told(clip, time) == (sounding, bright)


def test_nothing_was_detected(tmp_path: Path) -> None:
    """The picture is the one at the time; without a file there are no detections."""
    empty = make(tmp_path / "empty", [], "violin")
    assert told(empty, 2.5) == ([], 160)
    none = make(tmp_path / "none", None, "violin")
    assert set(shown_cue(none, 2.5, BOTH)) == {"frames"}
    assert shown_cue(none, 2.5, frozenset({"detections"})) == {}


def test_files_that_say_what_sounds(tmp_path: Path) -> None:
    """In the frame with most of it, whatever the labels of the clip are; times and names are those of the file."""
    found = Detections(
        np.array([1, 1, 2]), np.array([1, 2, 1]), np.ones(3), np.array([[k, 0, 9, 9] for k in range(3)], np.float64),
        features=np.ones((3, 2), np.float32), times=np.array([0.2, 0.2, 0.9]), names=("dog", "cat"),
        sounding=(Sounding(0, "dog"), Sounding(1, "cat"), Sounding(2, "dog")),
    )  # fmt: skip
    clip = make(tmp_path, None, "violin")
    path = tmp_path / "seen.safetensors"
    write_detections_file(path, found)
    clip = Clip(
        "a", clip.audio, ("violin",), frames=clip.frames, frame_count=3, detections=path, detector_classes=NAMES
    )
    seen = shown_cue(clip, 2.5, frozenset({"detections"}))["detections"]
    assert [(one.row, one.label) for one in seen.sounding] == [(0, "dog"), (1, "cat")]
    assert seen.names == ("dog", "cat") and seen.features.shape == (2, 2)
    assert seen.times.tolist() == pytest.approx([-2.3, -2.3])


def test_detections_that_changed_are_read_again(tmp_path: Path) -> None:
    clip = make(tmp_path, [row(1, VIOLIN)])
    assert clip_detections(clip) is clip_detections(clip)
    np.save(tmp_path / "boxes.npy", np.array([row(1, VIOLIN), row(1, FLUTE)]))
    os.utime(tmp_path / "boxes.npy", ns=(1, 1))
    found = clip_detections(clip)
    assert found is not None and len(found) == 2 and found.names == NAMES


def test_damaged_detections(tmp_path: Path) -> None:
    clip = make(tmp_path, None, "violin")
    (tmp_path / "boxes.npy").write_bytes(b"no boxes")
    with pytest.raises(DataError, match=r"boxes\.npy' cannot be read"):
        shown_cue(clip, 0.0, BOTH)


def test_missing_pictures(tmp_path: Path) -> None:
    clip = make(tmp_path, [row(2, VIOLIN)], "violin")
    (tmp_path / "000002.png").unlink()
    with pytest.raises(CueError, match=r"000002\.png"):
        shown_cue(clip, 0.0, BOTH, pictures=1)


@pytest.mark.parametrize(
    ("names", "labels", "width"),
    [(NAMES, ("flute",), 20), (NAMES, ("gong",), 30), ((), ("flute",), 30), (NAMES, (), 30)],
)
def test_crops_are_of_the_class_of_the_clip(
    tmp_path: Path, names: tuple[str, ...], labels: tuple[str, ...], width: int
) -> None:
    """Where its number is known; otherwise the best box is taken."""
    boxes = [[1, LAMP, 0.9, 0, 0, 30, 30], [1, FLUTE, 0.4, 0, 0, 20, 30], [1, FLUTE, 0.3, 0, 0, 9, 30]]
    crops = clip_frames(make(tmp_path, boxes, *labels, detector_classes=names), 0.5, 1)
    assert crops is not None and crops.shape == (1, 30, width, 3)


def stored(root: Path, **manifests: Any) -> Path:
    """A data set of one clip in the layout of MUSIC, with manifests."""
    (root / "audio/cello").mkdir(parents=True)
    (root / "train.csv").write_text("/cello/a.wav,/cello/a.mp4,2\n")
    for name, content in manifests.items():
        (root / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return root


@pytest.mark.parametrize(
    ("manifests", "names"),
    [
        ({"prepare": {"settings": {"detector": {"labels": ["cello", "lamp"]}}}}, ("cello", "lamp")),
        ({"synth": {"classes": ["cello", "lamp"]}}, ("cello", "lamp")),
        ({"prepare": {"settings": {"detector": None}}, "synth": {"classes": ["cello"]}}, ("cello",)),
        ({}, ()),
        ({"synth": {"classes": []}}, ()),
        ({"synth": {"classes": "cello"}}, ()),
        ({"synth": {"classes": [1, 2]}}, ()),
        ({"synth": {"classes": {"cello": 1}}}, ()),
        ({"synth": [1]}, ()),
        ({"synth": "{"}, ()),
        ({"prepare": "[" * 100_000}, ()),
    ],
)
def test_manifests_name_the_classes_of_detections(
    tmp_path: Path, manifests: dict[str, Any], names: tuple[str, ...]
) -> None:
    """Of prepared and generated folders; a damaged one names none."""
    (clip,) = open_data(stored(tmp_path, **manifests), "music").clips("train")
    assert clip.detector_classes == names
