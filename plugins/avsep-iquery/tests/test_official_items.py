"""Items of the published sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from avsep_iquery.official_data import audio_segment, frames_view
from avsep_iquery.official_items import OfficialItems, collate_items
from avsep_zoo.data.music import read_clips, read_mixtures
from avsep_zoo.errors import CueError, DataError


@pytest.fixture
def music(tmp_path: Path) -> Path:
    """Three clips of 9 s and 9 frames in the published layout; frames are 40 x 60."""
    rng = np.random.default_rng(0)
    for folder in ("audio", "frames", "detection_results", "motion_features"):
        for label in ("cello", "flute", "tuba"):
            (tmp_path / folder / label).mkdir(parents=True)
    for label in ("cello", "flute", "tuba"):
        sound = rng.uniform(-0.5, 0.5, 9 * 8000).astype(np.float32)
        soundfile.write(tmp_path / f"audio/{label}/a.wav", sound, 8000, subtype="FLOAT")
        (tmp_path / f"frames/{label}/a.mp4").mkdir()
        for number in range(1, 10):
            picture = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
            Image.fromarray(picture).save(tmp_path / f"frames/{label}/a.mp4/{number:06d}.jpg")
        np.save(tmp_path / f"detection_results/{label}/a.mp4.npy", np.array([[5, 1, 0.9, 10, 5, 40, 35]]))
        np.save(tmp_path / f"motion_features/{label}/a.mp4.npy", rng.standard_normal((6, len(label), 2, 2)))
    rows = [f"/{label}/a.wav,/{label}/a.mp4,9" for label in ("cello", "flute", "tuba")]
    (tmp_path / "train.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "testsep.csv").write_text('"/cello/a.wav"," /tuba/a.wav"\n')
    return tmp_path


def items(root: Path, model: Any, **settings: Any) -> OfficialItems:
    clips = read_clips(root, "train")
    front = model.front_end
    small = {"dataset": "music", "rate": front.rate, "length": front.length}
    return OfficialItems(clips, model.encoder, **(small | settings))


def test_items_of_the_test_list(music: Path, tiny_model: Any) -> None:
    """Sound and frames of the middle, cropped to the detection, and a forward pass of the method with them."""
    model = tiny_model(frames=3, motion=6)
    mixtures = read_mixtures(music, "testsep", read_clips(music, "train"))
    data = items(music, model, mixtures=mixtures, protocol="paper")
    assert len(data) == 1
    item = data[0]
    path = music / "audio/tuba/a.wav"
    sound = audio_segment(path, rate=8000, length=1023, centre=4.5, protocol="paper")
    assert np.array_equal(item["sources"][1].numpy(), sound)
    pictures = [np.asarray(Image.open(music / f"frames/tuba/a.mp4/{n:06d}.jpg")) for n in (4, 5, 6)]
    frames = frames_view(pictures, [None, (10, 5, 40, 35), None], size=32)
    assert np.array_equal(item["frames"][1].numpy(), frames)
    assert item["label"].tolist() == [0, 2]
    batch = collate_items([item, item])
    assert batch["cues"].get("motion").shape == (2, 2, 6, 5)
    assert model.waveforms({"mixture": batch["sources"].sum(dim=1), "cues": batch["cues"]}).shape == (2, 2, 960)


def test_training_items_are_of_different_classes(music: Path, tiny_model: Any) -> None:
    data = items(music, tiny_model(frames=3), sources=3, repeats=4, training=True)
    assert len(data) == 12
    drawn = [data[i] for i in range(6)]
    assert [int(item["label"][0]) for item in drawn] == [0, 1, 2, 0, 1, 2]
    assert all(sorted(item["label"].tolist()) == [0, 1, 2] for item in drawn)
    assert not torch.equal(drawn[0]["sources"], drawn[3]["sources"])
    assert torch.equal(data[4]["sources"], drawn[4]["sources"])
    assert torch.equal(data[4]["frames"], drawn[4]["frames"])
    assert "motion" not in drawn[0]


def test_validation_items_take_the_middle(music: Path, tiny_model: Any) -> None:
    data = items(music, tiny_model(frames=3))
    partners = {tuple(data[i]["label"].tolist()) for i in range(3)}
    assert {first for first, _ in partners} == {0, 1, 2} and all(a != b for a, b in partners)
    sound = audio_segment(music / "audio/cello/a.wav", rate=8000, length=1023, centre=4.5)
    assert np.array_equal(data[0]["sources"][0].numpy(), sound)


def test_an_item_that_cannot_be_read(music: Path, tiny_model: Any) -> None:
    """The paper makes it silent and black but keeps classes and motion; the default says what is wrong."""
    model = tiny_model(frames=3, motion=6)
    (music / "frames/cello/a.mp4/000005.jpg").unlink()
    with pytest.warns(UserWarning, match=r"Item 0 is silent and black: .*000005.jpg"):
        item = items(music, model, protocol="paper")[0]
    assert not item["sources"].any() and not item["frames"].any()
    assert item["label"][0] == 0 and item["motion"][0].shape == (6, 5)
    with pytest.raises(CueError, match=r"000005\.jpg"):
        items(music, model)[0]
    (music / "motion_features/cello/a.mp4.npy").unlink()
    with pytest.raises(DataError, match=r"motion_features"), pytest.warns(UserWarning, match="Item 0"):
        items(music, model, protocol="paper")[0]


def test_too_few_classes(music: Path, tiny_model: Any) -> None:
    with pytest.raises(DataError, match="have 3 classes; mixtures of 4"):
        items(music, tiny_model(), sources=4)
