"""Rules of the published loader, worked out by hand: segments, drawn detections, clean-up, test mixtures."""

from __future__ import annotations

import random
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from avsep_ial_cms.detection_cleanup import EXCLUDED, clean_folder, clean_rows, video_of
from avsep_ial_cms.official_data import GAINS, drawn_segment
from avsep_zoo.data.detections import read_detections
from avsep_zoo.data.readers.duets import DETECTED, published_mixtures
from avsep_zoo.errors import DataError

INSTRUMENTS = {
    "acoustic_guitar": 4, "clarinet": 7, "saxophone": 9, "violin": 12, "flute": 13, "cello": 2, "trumpet": 11,
    "tuba": 15, "accordion": 14, "xylophone": 8,
}  # fmt: skip


def rows(*given: tuple[float, float, float]) -> np.ndarray:
    """Detections from frame, class and score; the box tells the number of the row."""
    return np.array([[*row, number, 0, number + 9, 9] for number, row in enumerate(given)], dtype=np.float32)


def kept(found: np.ndarray) -> list[int]:
    """Numbers of rows."""
    return found[:, 3].astype(int).tolist()


def test_the_start_of_a_segment_is_drawn_before_its_level() -> None:
    """Both of one generator of Python, whose numbers do not change from version to version."""
    sound = np.linspace(-0.5, 0.5, 200, dtype=np.float32)
    known = random.Random(3)
    start, factor = known.randint(0, 120), 0.5 + known.random()
    got = drawn_segment(sound, 80, random.Random(3), gains=GAINS)
    np.testing.assert_allclose(got, sound[start : start + 80] * factor, rtol=1e-6)
    assert got.dtype == np.float32
    plain = drawn_segment(sound, 80, random.Random(3))
    np.testing.assert_array_equal(plain, sound[start : start + 80])


def test_a_short_sound_has_silence_behind_it_and_a_loud_one_is_clipped() -> None:
    """In tests as in training."""
    got = drawn_segment(np.full(30, -3.0), 50, random.Random(0))
    assert got.tolist() == [-1.0] * 30 + [0.0] * 20
    with pytest.raises(DataError, match="The sound is empty"):
        drawn_segment(np.zeros(0), 50, random.Random(0))


@pytest.mark.parametrize(("instrument", "number"), INSTRUMENTS.items())
def test_an_instrument_is_found_as_its_class(instrument: str, number: int) -> None:
    """The best row of each frame is kept, where it is of the class of the instrument."""
    other = number % 15 + 1
    found = rows((5, number, 0.91), (5, other, 0.99), (3, other, 0.99), (5, number, 0.95), (5, number, 0.92))
    assert kept(clean_rows(found, instrument, "video")) == [3]


@pytest.mark.parametrize(
    ("instrument", "expected"), [("violin", [2]), ("xylophone", [2, 3]), ("erhu", [3]), ("tuba", [])]
)
def test_scores_that_are_kept(instrument: str, expected: list[int]) -> None:
    """From 0.9 for most, any for xylophones, up to 0.94 for what the detector does not know."""
    number = INSTRUMENTS.get(instrument, 3)
    found = rows((1, 1, 0.95), (2, 1, 0.95), (1, number, 0.98), (2, number, 0.3))
    assert kept(clean_rows(found if instrument != "tuba" else found[:2], instrument, "video")) == expected


def test_frames_keep_the_order_of_the_file() -> None:
    """That of their first rows, also where those are not kept."""
    found = rows((9, 12, 0.2), (4, 12, 0.97), (9, 1, 0.99), (9, 12, 0.93), (4, 12, 0.97))
    assert kept(clean_rows(found, "violin", "video")) == [3, 1]


def test_more_rows_of_a_frame_can_be_kept() -> None:
    """The best one of each of the best classes, the best last."""
    found = rows((1, 2, 0.5), (1, 3, 0.7), (1, 2, 0.6), (1, 4, 0.1), (2, 4, 0.2))
    assert kept(clean_rows(found, "erhu", "video", best=2)) == [2, 1, 4]
    assert kept(clean_rows(found, "erhu", "video", best=9)) == [3, 2, 1, 4]


@pytest.mark.parametrize(("instrument", "videos"), [("erhu", 7), ("xylophone", 4)])
def test_some_videos_are_dropped(instrument: str, videos: int) -> None:
    """The same video of another instrument is not."""
    found = rows((1, 8, 0.92), (1, 12, 0.92))
    assert len(EXCLUDED[instrument]) == videos
    for video in EXCLUDED[instrument]:
        assert clean_rows(found, instrument, video).shape == (0, 7)
        assert kept(clean_rows(found, "violin", video)) == [1]


def test_the_video_of_a_clip() -> None:
    """Ids may hold underscores and hyphens themselves."""
    names = ("_oUTOskOwXs_7", "-tY40Ev8IzE_12", "37HdHAzJrOQ_1", "a_b_c_0", "plain")
    assert [video_of(name) for name in names] == ["_oUTOskOwXs", "-tY40Ev8IzE", "37HdHAzJrOQ", "a_b_c", "plain"]


def test_detections_that_cannot_be_cleaned_up() -> None:
    """Wrong columns, and an instrument that there is no rule for."""
    with pytest.raises(DataError, match=r"the shape \(2, 6\)"):
        clean_rows(np.zeros((2, 6)), "cello", "video")
    with pytest.raises(DataError, match="no rule for detections of 'theremin'; give erhu, banjo"):
        clean_rows(rows((1, 2, 0.9)), "theremin", "video")


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Detections of six clips: two good ones, one of nothing, a damaged, a pickled and an unknown one."""
    files = {
        "cello/AbC_1": rows((3, 2, 0.95), (3, 2, 0.97), (8, 2, 0.99)),
        "erhu/DéF_x_2": rows((1, 5, 0.7), (1, 6, 0.9), (1, 6, np.nan)),
        "erhu/DlqCn_xrNRU_4": rows((1, 5, 0.7)),
        "theremin/GhI_1": rows((1, 5, 0.7)),
        "cello/pickled_1": np.array([{"a": 1}], dtype=object),
    }
    for name, found in files.items():
        path = tmp_path / "raw" / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, found, allow_pickle=True)
    (tmp_path / "raw/cello/cut_1.npy").write_bytes((tmp_path / "raw/cello/AbC_1.npy").read_bytes()[:-30])
    (tmp_path / "raw/cello/folder.npy").mkdir()
    return tmp_path / "raw"


def test_a_folder_is_cleaned_up(raw: Path, tmp_path: Path) -> None:
    """Good clips have a file that the readers take; the others are named with the reason."""
    out = tmp_path / "data/detect"
    stale = out / "erhu/DlqCn_xrNRU_4.npy"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"of an earlier time")
    skipped = clean_folder(raw, out)
    assert {clip.where: clip.why.split(" ")[0] for clip in skipped} == {
        "cello/cut_1": "The", "cello/pickled_1": "The", "erhu/DlqCn_xrNRU_4": "None", "theremin/GhI_1": "There",
    }  # fmt: skip
    written = {path.relative_to(out).as_posix(): read_detections(path) for path in out.rglob("*") if path.is_file()}
    assert set(written) == {"cello/AbC_1.npy", "erhu/DéF_x_2.npy"}
    cello, erhu = written["cello/AbC_1.npy"], written["erhu/DéF_x_2.npy"]
    assert (cello.frames.tolist(), cello.boxes[:, 0].tolist()) == ([3, 8], [1.0, 2.0])
    assert (erhu.frames.tolist(), erhu.boxes[:, 0].tolist()) == ([1], [1.0])
    assert len(list(raw.glob("*/*"))) == 7


def test_folders_that_cannot_be_cleaned_up(raw: Path, tmp_path: Path) -> None:
    """The raw detections are never written over, and a folder without any is an error."""
    for out in (raw, raw / "clean", tmp_path / "x/../raw/clean"):
        with pytest.raises(DataError, match="lies in the folder of the raw detections"):
            clean_folder(raw, out)
    with pytest.raises(DataError, match=r"has no detections <instrument>/<clip>\.npy"):
        clean_folder(tmp_path / "nothing", tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        clean_folder(raw, tmp_path / "file")


@pytest.mark.parametrize(("sources", "count"), [(2, 550), (3, 1650)])
def test_mixtures_of_eleven_instruments(sources: int, count: int) -> None:
    """Ten of every combination, instruments in alphabetical order however the list has them."""
    names = [*INSTRUMENTS, "erhu"]
    mixtures = published_mixtures({name: [f"{name}/{n}" for n in range(3)] for name in names}, sources)
    mixed = [tuple(clip.split("/")[0] for clip in mixture) for mixture in mixtures]
    assert len(mixed) == count
    assert Counter(mixed) == dict.fromkeys(combinations(sorted(names), sources), 10)


def test_classes_are_in_the_detectors_order() -> None:
    """Fifteen of them, ten of which instruments are found as."""
    assert len(DETECTED) == 15
    assert {name: DETECTED.index(name) + 1 for name in INSTRUMENTS} == INSTRUMENTS
