"""Detections in a .safetensors file: everything comes back, and what does not fit is refused in a sentence."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from avsep_zoo.data.detection_file import read_detections_file, write_detections_file
from avsep_zoo.data.detections import Detections, Sounding
from avsep_zoo.errors import DataError


def made(count: int = 3) -> Detections:
    """Boxes of two classes with features of four numbers."""
    draw = np.random.default_rng(0)
    return Detections(
        np.arange(count) // 2 + 1,
        np.arange(count) % 2 + 1,
        draw.random(count),
        draw.uniform(0, 90, (count, 4)),
        draw.random((count, 4)).astype(np.float32),
        draw.random(4).astype(np.float32),
        times=np.arange(count) // 2 + 0.5,
        names=("cello", "tūba, small"),
        sounding=(Sounding(0, "cello"), Sounding(2)) if count else (),
    )


def tensors() -> dict[str, Any]:
    """The least that a file needs, as another program may write it."""
    return {
        "frames": np.array([1, 2], np.int32),
        "classes": np.array([7, 0], np.int64),
        "scores": np.array([0.5, 1.0], np.float32),
        "boxes": np.zeros((2, 4), np.float32),
    }


@pytest.mark.parametrize("count", [3, 0])
def test_everything_comes_back(tmp_path: Path, count: int) -> None:
    """Arrays to the last bit in their types, names and what sounds; also without a box."""
    wanted = made(count)
    write_detections_file(tmp_path / "new" / "a.safetensors", wanted)
    found = read_detections_file(tmp_path / "new" / "a.safetensors")
    for field in fields(Detections):
        ours, theirs = getattr(found, field.name), getattr(wanted, field.name)
        if isinstance(theirs, np.ndarray):
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)
        else:
            assert ours == theirs
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.safetensors"]


def test_what_is_unknown_stays_unknown(tmp_path: Path) -> None:
    """A file of boxes only, written elsewhere in smaller types: no times, features or names; any class number."""
    save_file(tensors(), tmp_path / "a.safetensors")
    found = read_detections_file(tmp_path / "a.safetensors")
    assert (found.features, found.scene, found.times, found.names, found.sounding) == (None, None, None, (), ())
    assert found.frames.dtype == np.int64 and found.scores.dtype == found.boxes.dtype == np.float64
    assert list(found.classes) == [7, 0]


@pytest.mark.parametrize(
    "changes, why",
    [
        ({"boxes": np.zeros((3, 5))}, r"boxes \(3, 5\)"),
        ({"times": np.zeros(2)}, r"times \(2,\)"),
        ({"features": np.zeros((2, 4), np.float32)}, r"features \(2, 4\)"),
        ({"scene": np.zeros(5, np.float32)}, r"scene \(5,\)"),
        ({"scores": np.array([0.1, np.nan, 0.2])}, "NaN or infinity in scores"),
        ({"classes": np.array([1, 2, 3])}, "a class 3; give 1 to 2"),
        ({"frames": np.array([1, -1, 1])}, "frame -1"),
        ({"sounding": (Sounding(3),)}, "rows 0 to 2"),
    ],
)
def test_what_does_not_fit_is_not_written(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    """A wrong array leaves an earlier file as it was."""
    target = tmp_path / "a.safetensors"
    target.write_bytes(b"earlier")
    with pytest.raises(DataError, match=why):
        write_detections_file(target, replace(made(), **changes))
    assert target.read_bytes() == b"earlier" and len(list(tmp_path.iterdir())) == 1


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    """A name that readers would take for something else."""
    with pytest.raises(DataError, match=r"shall be a \.safetensors file"):
        write_detections_file(tmp_path / "a.npy", made())


@pytest.mark.parametrize("content", [None, b"", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0{}extra", b"\0" * 9])
def test_damaged_files_are_refused(tmp_path: Path, content: bytes | None) -> None:
    """Missing, empty, random: one sentence with the name."""
    file = tmp_path / "a.safetensors"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.safetensors' (cannot be read|lack frames)"):
        read_detections_file(file)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    """The header is whole and numbers are missing."""
    file = tmp_path / "a.safetensors"
    write_detections_file(file, made())
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(DataError, match="cannot be read"):
        read_detections_file(file)


@pytest.mark.parametrize(
    "changes, why",
    [
        ({"frames": np.array([1.0, 2.0])}, r"frames of F64 \(2,\)"),
        ({"boxes": np.zeros(8, np.float32)}, r"boxes of F32 \(8,\)"),
        ({"boxes": np.zeros((3, 4), np.float32)}, r"boxes \(3, 4\) with 2 frames"),
        ({"boxes": np.full((2, 4), np.inf, np.float32)}, "NaN or infinity in boxes"),
        ({"features": np.zeros((2, 3), bool)}, r"features of BOOL \(2, 3\)"),
        ({"classes": np.array([1, -1])}, "a class -1"),
        ({"scores": None}, "lack scores"),
    ],
)
def test_wrong_tensors_are_refused(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    """Types, shapes and values of a file from elsewhere are checked."""
    content = {name: value for name, value in (tensors() | changes).items() if value is not None}
    save_file(content, tmp_path / "a.safetensors")
    with pytest.raises(DataError, match=why):
        read_detections_file(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "metadata, why",
    [
        ({"names": "{"}, "names that are no JSON"),
        ({"names": "[" * 100_000}, "names that are no JSON"),
        ({"names": json.dumps({"a": 1})}, "give a JSON list of texts"),
        ({"names": json.dumps([1, 2, 3, 4, 5, 6, 7])}, "give a JSON list of texts"),
        ({"names": json.dumps(["a"])}, "a class 7; give 1 to 1"),
        ({"sounding": "3"}, "sounding '3'"),
        ({"sounding": "[[0]]"}, "give a JSON list of"),
        ({"sounding": "[[true, null]]"}, "give a JSON list of"),
        ({"sounding": "[[0, 5]]"}, "give a JSON list of"),
        ({"sounding": "[[2, null]]"}, "rows 0 to 1"),
    ],
)
def test_wrong_metadata_are_refused(tmp_path: Path, metadata: dict[str, str], why: str) -> None:
    """Names and what sounds are texts that anybody may have written."""
    save_file(tensors(), tmp_path / "a.safetensors", metadata=metadata)
    with pytest.raises(DataError, match=why):
        read_detections_file(tmp_path / "a.safetensors")
