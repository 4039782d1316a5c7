"""Looking at a video: which frames a detector sees, what is kept of what it finds, and features of boxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from avsep_zoo.detection import Detector
from avsep_zoo.detection.look import BATCH, detect
from avsep_zoo.errors import DataError, MediaError
from avsep_zoo.synth.files import write_mp4

FPS, WIDTH, HEIGHT = 8, 96, 64


class BrightColumn(Detector):
    """Finds the bright column of a picture, and below it the whole picture, with the mean colour as feature."""

    feature_width = 3

    def __init__(
        self,
        weights: Path | None = None,
        *,
        labels: Sequence[str] = ("column", "picture"),
        min_score: float | None = None,
        device: str = "cpu",
    ) -> None:
        self.labels, self.min_score = tuple(labels), 0.5
        self.calls: list[int] = []

    def detect(self, frames: np.ndarray) -> list[np.ndarray]:
        self.calls.append(len(frames))
        found = []
        for frame in frames:
            columns = np.flatnonzero(frame.mean(axis=(0, 2)) > 128)
            whole = (2, 0.5, 0, 0, frame.shape[1], frame.shape[0])
            box = (1, 0.9, columns[0], 0, columns[-1] + 1, frame.shape[0]) if len(columns) else whole
            found.append(np.array([box, whole] if len(columns) else [], np.float32).reshape(-1, 6))
        return found

    def features(self, frames: np.ndarray, boxes: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [
            np.array(
                [frame[int(y1) : int(y2), int(x1) : int(x2)].mean(axis=(0, 1)) for x1, y1, x2, y2 in mine], np.float32
            ).reshape(-1, 3)
            for frame, mine in zip(frames, boxes, strict=True)
        ]


def write_video(path: Path, seconds: int, *, sound: float | None = None) -> Path:
    """A dark video whose 8 bright pixels go 8 to the right every second; dark throughout in second 3."""
    video = np.full((seconds * FPS, HEIGHT, WIDTH, 3), 16, np.uint8)
    for number in range(len(video)):
        second = number // FPS
        if second != 3:
            video[number, :, 8 * (second % 12) : 8 * (second % 12) + 8] = 235
    write_mp4(path, video, np.zeros(round((sound or seconds) * 44100), np.float32))
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five seconds."""
    return write_video(tmp_path_factory.mktemp("video") / "ü [1].mp4", 5)


def test_frames_are_numbered_and_timed(video: Path) -> None:
    """A frame per second is looked at in its middle; a frame where nothing is found has no row."""
    found = detect(video, BrightColumn())
    assert list(found.frames) == [1, 1, 2, 2, 3, 3, 5, 5]
    assert found.times is not None and list(found.times) == [0.5, 0.5, 1.5, 1.5, 2.5, 2.5, 4.5, 4.5]
    assert list(found.classes) == [1, 2] * 4 and found.names == ("column", "picture")
    np.testing.assert_allclose(found.scores, [0.9, 0.5] * 4, atol=1e-6)
    np.testing.assert_allclose(found.boxes[::2, 0], [0, 8, 16, 32], atol=1)
    seen = found.at(1.8)
    assert list(seen.frames) == [2, 2] and seen.number("Column") == 1


def test_features_belong_to_their_boxes(video: Path) -> None:
    """Each row has the feature of its box; the scene has that of the whole first frame."""
    found = detect(video, BrightColumn())
    assert found.features is not None and found.features.dtype == np.float32 and found.features.shape == (8, 3)
    assert (found.features[::2] > 200).all() and (found.features[1::2] < 60).all()
    assert found.scene is not None
    np.testing.assert_array_equal(found.scene, found.features[1])


def test_features_can_be_left_out(video: Path) -> None:
    """Who doesn't want them has none, and no scene."""
    found = detect(video, BrightColumn(), features=False)
    assert found.features is None and found.scene is None and len(found) == 8


def test_a_part_of_the_video(video: Path) -> None:
    """Frames of a part are counted from its beginning, and timed as the media is."""
    found = detect(video, BrightColumn(), start=1.0, end=2.25, fps=2, most=1)
    assert found.times is not None
    assert list(found.frames) == [1, 2] and list(found.times) == [1.25, 1.75]
    np.testing.assert_allclose(found.boxes[:, 0], 8, atol=1)


def test_the_best_boxes_are_kept(video: Path) -> None:
    """``most`` counts boxes of a frame."""
    found = detect(video, BrightColumn(), most=1)
    assert list(found.classes) == [1] * 4 and found.features is not None and len(found.features) == 4


def test_frames_come_in_batches(tmp_path: Path) -> None:
    """A long video is looked at in portions that do not show in the result; progress counts its frames."""
    long = write_video(tmp_path / "a.mp4", 6)
    detector, done = BrightColumn(), []
    found = detect(long, detector, fps=8, progress=lambda *numbers: done.append(numbers))
    assert detector.calls == [BATCH, 48 - BATCH] and done == [(BATCH, 48), (48, 48)]
    assert sorted(set(found.frames.tolist())) == [n + 1 for n in range(48) if n // FPS != 3]
    np.testing.assert_allclose(found.boxes[found.classes == 1][-1, 0], 40, atol=1)


def test_looking_ends_with_the_pictures(tmp_path: Path) -> None:
    """Sound that goes on for long after the last picture is not looked at."""
    file = write_video(tmp_path / "a.mp4", 2, sound=20)
    detector = BrightColumn()
    found = detect(file, detector)
    assert sum(detector.calls) <= 3 and max(found.frames) <= 3 and {1, 2} <= set(found.frames.tolist())


def test_a_picture_is_a_video_of_one_frame(tmp_path: Path) -> None:
    """A PNG has no length and is seen once."""
    picture = np.zeros((20, 30, 3), np.uint8)
    picture[:, 10:12] = 255
    Image.fromarray(picture).save(tmp_path / "a.png")
    found = detect(tmp_path / "a.png", BrightColumn(), fps=25)
    assert [list(box) for box in found.boxes] == [[10, 0, 12, 20], [0, 0, 30, 20]]
    assert list(found.frames) == [1, 1]


def test_nothing_found_is_no_error(tmp_path: Path) -> None:
    """A dark picture gives detections without rows, with the scene."""
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "a.png")
    found = detect(tmp_path / "a.png", BrightColumn())
    assert len(found) == 0 and found.boxes.shape == (0, 4) and found.names == ("column", "picture")
    assert found.features is not None and found.features.shape == (0, 3)
    assert found.scene is not None and found.scene.shape == (3,)


def test_files_that_show_nothing_are_refused(tmp_path: Path, video: Path) -> None:
    """Sound only, a torn file, a missing file, and a start behind the end."""
    soundfile.write(tmp_path / "a.wav", np.zeros(800), 8000)
    (tmp_path / "torn.mp4").write_bytes(video.read_bytes()[:500])
    for name, why in (("a.wav", "no video track"), ("torn.mp4", "no media file"), ("gone.mp4", "does not exist")):
        with pytest.raises(MediaError, match=why):
            detect(tmp_path / name, BrightColumn())
    with pytest.raises(MediaError, match="nothing from 9 s on"):
        detect(video, BrightColumn(), start=9)


@pytest.mark.parametrize(
    "changes",
    [
        {"fps": 0},
        {"fps": float("nan")},
        {"most": 0},
        {"start": -1},
        {"start": float("nan")},
        {"start": 2, "end": 2},
        {"end": float("inf")},
    ],
)
def test_numbers_out_of_range(video: Path, changes: dict[str, float]) -> None:
    """Rates and times that mean nothing are refused."""
    with pytest.raises(DataError, match="give"):
        detect(video, BrightColumn(), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "rows, why",
    [
        (np.zeros((1, 5)), "no rows of 6"),
        (np.array([[1, np.nan, 0, 0, 1, 1]]), "NaN or infinity"),
        (np.array([[3, 0.5, 0, 0, 1, 1]]), "a class that has no label"),
        (np.array([[0, 0.5, 0, 0, 1, 1]]), "a class that has no label"),
    ],
)
def test_a_detector_that_breaks_its_contract_is_named(video: Path, rows: np.ndarray, why: str) -> None:
    """Wrong rows are found with the first frames."""

    class Wrong(BrightColumn):
        def detect(self, frames: np.ndarray) -> list[np.ndarray]:
            return [rows] * len(frames)

    with pytest.raises(DataError, match=f"Wrong gives .*{why}"):
        detect(video, Wrong())


def test_features_of_another_width_are_refused(video: Path) -> None:
    """A detector gives as many numbers as it says."""

    class Wrong(BrightColumn):
        feature_width = 4

    with pytest.raises(DataError, match="no 4 numbers per box"):
        detect(video, Wrong())


def test_a_detector_without_features_says_so() -> None:
    """Features are an ability that a detector may lack."""

    class Plain(BrightColumn):
        feature_width = 0
        features = Detector.features

    with pytest.raises(DataError, match="Plain gives no features"):
        Plain().features(np.zeros((1, 8, 8, 3), np.uint8), [np.zeros((0, 4))])
