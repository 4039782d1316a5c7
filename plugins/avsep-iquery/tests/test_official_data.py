"""Data rules of the published loaders."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from avsep_iquery.official_data import (
    audio_segment,
    choose_box,
    collate_motion,
    frame_numbers,
    frame_time,
    frames_view,
    pool_motion,
)
from avsep_iquery.official_metrics import batch_metrics
from avsep_zoo.errors import DataError
from avsep_zoo.evaluation import bss_eval
from avsep_zoo.pictures import IMAGENET_MEAN, IMAGENET_STD

RATE, LENGTH = 1000, 401


def write(path: Path, sound: np.ndarray, rate: int = RATE) -> Path:
    soundfile.write(path, sound, rate, subtype="FLOAT")
    return path


def segment(path: Path | str | None, centre: float, protocol: Any = "paper", **more: Any) -> np.ndarray:
    return audio_segment(path, rate=RATE, length=LENGTH, centre=centre, protocol=protocol, **more)


def ramp(samples: int) -> np.ndarray:
    """Every sample tells its place."""
    return np.arange(1, samples + 1, dtype=np.float32) / 10000


def test_the_middle_of_a_file(tmp_path: Path) -> None:
    path, wave = write(tmp_path / "a.wav", ramp(3000)), ramp(3000)
    paper, default = segment(path, 1.5), segment(path, 1.5, "default")
    assert np.array_equal(paper[:-1], wave[1300:1700]) and paper[-1] == 0
    assert np.array_equal(default, wave[1300:1701])
    even = audio_segment(path, rate=RATE, length=400, centre=1.5, protocol="paper")
    assert np.array_equal(even, wave[1300:1700])


def test_segments_over_an_end_keep_their_time(tmp_path: Path) -> None:
    path, wave = write(tmp_path / "a.wav", ramp(3000)), ramp(3000)
    start = segment(path, 0.05)
    assert start[:150].max() == 0 and np.array_equal(start[150:-1], wave[:250])
    end = segment(path, 2.9)
    assert np.array_equal(end[:300], wave[2700:]) and end[300:].max() == 0
    with pytest.raises(DataError, match=r"ends at 3.00 s, before its segment around 3.30 s"):
        segment(path, 3.3)


@pytest.mark.parametrize("protocol", ["paper", "default"])
def test_a_short_file_is_repeated(tmp_path: Path, protocol: str) -> None:
    path = write(tmp_path / "a.wav", ramp(150))
    got = segment(path, 0.2, protocol)
    assert np.array_equal(got[:400], np.tile(ramp(150), 3)[:400])


def test_files_below_the_rate(tmp_path: Path) -> None:
    """The paper takes 990 Hz for 1000 Hz; the default keeps pitch and time."""
    tone = np.sin(2 * np.pi * 99 * np.arange(990 * 4) / 990).astype(np.float32)
    path = write(tmp_path / "a.wav", tone, 990)
    for protocol, hertz in (("paper", 100.0), ("default", 99.0)):
        got = audio_segment(path, rate=RATE, length=2001, centre=2.0, protocol=protocol)  # type: ignore[arg-type]
        assert np.abs(np.fft.rfft(got[:2000])).argmax() / 2 == hertz


def test_files_above_the_rate_as_librosa_resamples_them(tmp_path: Path) -> None:
    import librosa

    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 22050 * 2).astype(np.float32)
    path = write(tmp_path / "a.wav", wave, 22050)
    resampled = librosa.resample(wave, orig_sr=22050, target_sr=11025)
    got = audio_segment(path, rate=11025, length=11025, centre=1.0, protocol="paper")
    assert np.array_equal(got[:-1], resampled[5513 : 5513 + 11024].clip(-1, 1))


def test_channels_clipping_and_training_level(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", np.stack([np.full(1000, 2.5), np.full(1000, 0.1)], axis=1))
    assert segment(path, 0.5)[:-1] == pytest.approx(1.0)
    assert segment(path, 0.5, "default") == pytest.approx(1.3)
    quiet = write(tmp_path / "b.wav", np.full(1000, 0.5))
    levels = [segment(quiet, 0.5, rng=np.random.default_rng(seed))[0] for seed in range(50)]
    assert 0.25 <= min(levels) < 0.35 and 0.65 < max(levels) <= 0.75
    assert segment(quiet, 0.5, rng=np.random.default_rng(3))[0] == levels[3]


def test_silence_and_files_that_cannot_be_used(tmp_path: Path) -> None:
    assert not segment(None, 1.0).any() and not segment("cello/silent", 1.0).any()
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    write(tmp_path / "empty.wav", np.zeros(0))
    for name, message in (("missing", "cannot be read"), ("broken", "cannot be read"), ("empty", "is empty")):
        with pytest.raises(DataError, match=message):
            segment(tmp_path / f"{name}.wav", 1.0)


def test_frame_numbers() -> None:
    assert frame_numbers(137, frames=3, frame_rate=1.0) == [68, 69, 70]
    assert frame_numbers(160, frames=6, frame_rate=25.0) == [78, 79, 80, 81, 82, 83]
    assert frame_numbers(9, frames=3, frame_rate=1.0, stride=2) == [3, 5, 7]
    assert frame_time(1, 25.0) == 0.02 and frame_time(69, 1.0) == 68.5
    with pytest.raises(DataError, match="takes 1 to 3"):
        frame_numbers(2, frames=3, frame_rate=1.0)


def test_frame_numbers_in_training_stay_off_the_ends() -> None:
    rng = np.random.default_rng(0)
    drawn = {frame_numbers(60, frames=6, frame_rate=25.0, rng=rng)[3] for _ in range(500)}
    assert drawn == set(range(26, 36))
    with pytest.raises(DataError, match="needs 51"):
        frame_numbers(50, frames=6, frame_rate=25.0, rng=rng)


ROWS = np.array(
    [
        [7, 4, 0.9, 10, 10, 20, 20],
        [7, 3, 0.1, 30, 30, 40, 40],
        [7, 3, 0.8, 50, 50, 60, 60],
        [7, 2, 0.9, 70, 70, 80, 80],
        [8, 9, 0.2, 11, 11, 21, 21],
        [8, 9, 0.3, 12, 12, 22, 22],
    ]
)


@pytest.mark.parametrize(
    ("dataset", "class_id", "frame", "corner"),
    [
        ("music", None, 7, 10),
        ("nomotion", 2, 7, 10),
        ("music21", 2, 7, 30),
        ("ave", 2, 7, 70),
        ("ave", 3, 7, 30),
        ("music21", 20, 7, 10),
        ("ave", 27, 8, 12),
        ("music", None, 9, None),
        ("music21", 2, 9, None),
    ],
)
def test_choice_of_a_box(dataset: str, class_id: int | None, frame: int, corner: int | None) -> None:
    box = choose_box(ROWS, frame, dataset, class_id)
    assert (box and box[0]) == corner


def test_detections_without_any_row() -> None:
    for rows in (np.zeros((1, 7)), np.zeros((0, 7))):
        assert all(choose_box(rows, 1, dataset, 0) is None for dataset in ("music", "music21", "ave"))


@pytest.mark.parametrize(
    ("rows", "dataset", "class_id", "message"),
    [
        (ROWS[:, :6], "music", None, "give .K, 7."),
        (ROWS, "coco", 1, "give music, nomotion, music21 or ave"),
        (ROWS, "ave", None, "give class_id"),
        (np.array([[7, 1, 1, 5, 5, 5.2, 9]]), "music", None, "without area"),
    ],
)
def test_detections_that_cannot_be_used(rows: np.ndarray, dataset: str, class_id: int | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        choose_box(rows, 7, dataset, class_id)


def gradient(height: int, width: int) -> np.ndarray:
    """Red tells the column, green the row."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns, rows, 0 * rows], axis=-1).astype(np.uint8)


def pixels(view: np.ndarray) -> np.ndarray:
    """Undo the normalisation: (3, K, S, S) -> (K, S, S, 3) in 0..255."""
    return (np.moveaxis(view, 0, -1) * IMAGENET_STD + IMAGENET_MEAN) * 255


def test_test_view_is_the_centre_of_the_resized_crop() -> None:
    picture, box = gradient(100, 200), (19.6, 10.4, 120.5, 60.2)
    view = frames_view([picture, picture], [box, None], size=32)
    assert view.shape == (3, 2, 32, 32) and view.dtype == np.float32
    cropped = Image.fromarray(picture[10:60, 20:120]).resize((64, 32), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(pixels(view)[0], np.asarray(cropped)[:, 16:48], atol=1e-3)


def test_training_view() -> None:
    """One position and one mirroring for all frames; black where a frame is smaller than the first."""
    wide, square = gradient(100, 200), gradient(100, 100)
    views = [frames_view([wide, wide], [None, None], size=40, rng=np.random.default_rng(s)) for s in range(20)]
    mirrored = [pixels(v)[0, 20, 0, 0] > pixels(v)[0, 20, -1, 0] for v in views]
    assert 4 <= sum(mirrored) <= 16
    assert all(np.array_equal(v[:, 0], v[:, 1]) for v in views)
    assert len({float(pixels(v)[0, 20, :, 0].mean().round()) for v in views}) > 10
    edges = [
        pixels(frames_view([wide, square], [None, None], size=40, rng=np.random.default_rng(s)))[1] for s in range(20)
    ]
    assert any(np.abs(edge).max() < 1e-2 for edge in edges)
    assert any(edge.max() > 20 for edge in edges)


def test_motion_is_pooled() -> None:
    features = np.random.default_rng(0).standard_normal((4, 3, 2, 5))
    assert np.array_equal(pool_motion(features), features.reshape(4, 3, 10).max(axis=2).astype(np.float32))
    for wrong in (features[..., 0], np.zeros((4, 0, 2, 2))):
        with pytest.raises(DataError, match=r"give .features, steps, rows, columns."):
            pool_motion(wrong)


def test_motion_masks_tell_slot_padding_from_batch_padding() -> None:
    steps = [[3, 1], [2, 4]]
    motion, mask = collate_motion([[np.ones((6, s), np.float32) for s in item] for item in steps])
    inf = math.inf
    assert mask.tolist() == [[[0, 0, 0, inf], [0, 1, 1, 1]], [[0, 0, 1, inf], [0, 0, 0, 0]]]
    assert motion.shape == (2, 2, 6, 4)
    assert torch.equal(motion.sum(dim=(2, 3)), 6.0 * torch.tensor(steps))
    with pytest.raises(DataError, match="same number"):
        collate_motion([[np.ones((6, 1), np.float32)], [np.ones((6, 1), np.float32)] * 2])
    with pytest.raises(DataError, match=r"\[5, 6\] rows"):
        collate_motion([[np.ones((6, 1), np.float32), np.ones((5, 1), np.float32)]])


def test_metrics_leave_silent_mixtures_out() -> None:
    rng = np.random.default_rng(0)
    sources = torch.from_numpy(rng.standard_normal((3, 2, 2000)))
    estimates = sources[..., :1990] + 0.1 * torch.from_numpy(rng.standard_normal((3, 2, 1990)))
    mixtures = sources.sum(dim=1)[:, :1990]
    sources[1, 0] = 1e-9
    estimates[2, 1] = 0
    got = batch_metrics(sources, estimates, mixtures)
    alone = bss_eval(sources[0, :, :1990], estimates[0])
    blind = bss_eval(sources[0, :, :1990], mixtures[0].expand(2, -1))
    wanted = [blind.sdr.mean(), alone.sdr.mean(), alone.sir.mean(), alone.sar.mean()]
    np.testing.assert_allclose(got, wanted, atol=1e-9)
    assert batch_metrics(sources[1:], estimates[1:], mixtures[1:]).tolist() == [0, 0, 0, 0]
