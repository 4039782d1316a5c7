"""The core's items with ``protocol="paper"`` are those of the published test set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from avsep_iquery.official_data import choose_box, collate_motion, frames_view, pool_motion
from avsep_zoo.data.collate import collate
from avsep_zoo.data.fixed_mixtures import FixedMixtures
from avsep_zoo.data.reader import open_data
from avsep_zoo.data.segment import published_segment
from avsep_zoo.errors import DataError

LABELS = ("cello", "flute", "tuba")
BOXES = np.array([[5, 1, 0.9, 10, 5, 40, 35], [5, 1, 0.95, 2.5, 3.5, 20.4, 80], [4, 2, 0.1, 30, 1, 50, 30]])


@pytest.fixture
def music(tmp_path: Path) -> Path:
    """Three clips of 9 s and 9 frames in the published layout; frames are 40 x 60."""
    rng = np.random.default_rng(0)
    for label in LABELS:
        for folder in ("audio", "frames", "detection_results", "motion_features"):
            (tmp_path / folder / label).mkdir(parents=True)
        sound = rng.uniform(-0.5, 0.5, 9 * 8000).astype(np.float32)
        soundfile.write(tmp_path / f"audio/{label}/a.wav", sound, 8000, subtype="FLOAT")
        (tmp_path / f"frames/{label}/a.mp4").mkdir()
        for number in range(1, 10):
            picture = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
            Image.fromarray(picture).save(tmp_path / f"frames/{label}/a.mp4/{number:06d}.jpg")
        np.save(tmp_path / f"detection_results/{label}/a.mp4.npy", BOXES)
        np.save(tmp_path / f"motion_features/{label}/a.mp4.npy", rng.standard_normal((6, len(label), 2, 2)))
    rows = [f"/{label}/a.wav,/{label}/a.mp4,9\n" for label in LABELS]
    (tmp_path / "train.csv").write_text(rows[0])
    (tmp_path / "test.csv").write_text("".join(rows))
    (tmp_path / "testsep.csv").write_text('"/cello/a.wav"," /tuba/a.wav"\n')
    return tmp_path


def items(root: Path, model: Any) -> FixedMixtures:
    mixtures = open_data(root, "music", protocol="paper").mixtures("testsep")
    front = model.front_end
    return FixedMixtures(
        mixtures,
        model.encoder.prepare,
        rate=front.rate,
        length=front.length,
        reads=model.encoder.reads,
        placement="frame",
        pictures=model.encoder.frames,
        protocol="paper",
    )


@pytest.mark.parametrize("frames", [3, 6])
def test_items_of_the_test_list(music: Path, tiny_model: Any, frames: int) -> None:
    """Sound and frames of the middle, each cropped to its own best detection, and a pass of the method with them."""
    model = tiny_model(frames=frames, motion=6)
    item = items(music, model)[0]
    sound = published_segment(music / "audio/tuba/a.wav", rate=8000, length=1023, centre=4.5)
    assert np.array_equal(item["sources"][1].numpy(), sound)
    numbers = [5 + offset for offset in range(-(frames // 2), frames - frames // 2)]
    pictures = [np.asarray(Image.open(music / f"frames/tuba/a.mp4/{n:06d}.jpg")) for n in numbers]
    boxes = [choose_box(BOXES, n, "music") for n in numbers]
    assert boxes.count(None) == frames - 2
    view = frames_view(pictures, boxes, size=model.encoder.image_size)
    assert np.array_equal(item["cues"].get("frames")[0, 1].numpy(), view)
    assert item["cues"].get("label").tolist() == [[0, 2]]
    batch = collate([item, item])
    estimates = model.waveforms({"mixture": batch["sources"].sum(dim=1), "cues": batch["cues"]})
    assert estimates.shape == (2, 2, 960)


def test_motion_of_an_item_is_pooled(music: Path, tiny_model: Any) -> None:
    """Within an item; what the published code does with the padding of a batch is for ``collate_motion`` to repeat."""
    cues = items(music, tiny_model(frames=3, motion=6))[0]["cues"]
    pooled = [pool_motion(np.load(music / f"motion_features/{label}/a.mp4.npy")) for label in ("cello", "tuba")]
    motion, mask = collate_motion([pooled])
    assert np.array_equal(cues.get("motion"), motion)
    assert np.array_equal(cues.get("motion_mask"), mask)


def test_item_that_cannot_be_read_keeps_classes_and_motion(music: Path, tiny_model: Any) -> None:
    model = tiny_model(frames=3, motion=6)
    (music / "frames/cello/a.mp4/000005.jpg").unlink()
    item = items(music, model)[0]
    assert not item["sources"].any() and not item["cues"].get("frames").any()
    assert item["cues"].get("label").tolist() == [[0, 2]] and item["cues"].get("motion").any()
    assert "000005.jpg" in item["skipped"][0].why
    (music / "motion_features/cello/a.mp4.npy").write_bytes(b"")
    with pytest.raises(DataError, match="motion_features"):
        items(music, model)[0]
