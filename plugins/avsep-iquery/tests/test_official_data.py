"""Data rules of the published loaders."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from avsep_iquery.official_data import choose_box, collate_motion, frames_view, pool_motion
from avsep_iquery.official_metrics import batch_metrics
from avsep_zoo.errors import DataError
from avsep_zoo.evaluation import bss_eval
from avsep_zoo.pictures import IMAGENET_MEAN, IMAGENET_STD

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
