"""Training and evaluation on ASIW as it was published: HDF5 detections, labels, ids in lists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import soundfile
import yaml
from typer.testing import CliRunner

from avsep_zoo.cli import app

RATE, FRAMES, BOXES, WIDTH = 11025, 2, 20, 16
# label id, detector class, frame, box of what sounds
VIDEOS = {
    "train": {
        "aaaaaaaaaaa": ((5, 117, 0, 3), (8, 50, 1, 4)), "bbbbbbbbbbb": ((2, 180, 1, 0),),
        "ccccccccccc": ((9, 161, 0, 7),),
    },
    "val": {"ddddddddddd": ((5, 117, 0, 3),), "eeeeeeeeeee": ((12, 663, 1, 2),)},
    "test": {"fffffffffff": ((5, 117, 0, 3), (13, 183, 0, 5)), "ggggggggggg": ((11, 70, 1, 2),)},
}  # fmt: skip
PARTS: dict[str, Any] = {
    "encoder": {"features": WIDTH, "hidden": 8, "width": 8},
    "conditioner": {"hidden": 8, "heads": 2, "width": 8},
    "separator": {"width": 2, "levels": 4},
    "front_end": {"length": 8191, "n_fft": 254, "hop_length": 128, "warp_rows": 64},
    "objective": {"classifier_width": 2},
}


@pytest.fixture
def asiw(tmp_path: Path) -> Path:
    """A data set of seven videos with sound, 20 boxes in each of two frames, and their labels."""
    root, rng = tmp_path / "asiw", np.random.default_rng(0)
    for split, videos in VIDEOS.items():
        (root / "Extracted_Audio" / split).mkdir(parents=True)
        for name, labels in videos.items():
            sound = 0.1 * rng.standard_normal(2 * RATE)
            soundfile.write(root / f"Extracted_Audio/{split}/{name}.aac", sound, RATE, "PCM_16", format="WAV")
            _write_scene(root / "Extracted_Frames" / split / name, labels, rng)
        (root / f"{split}.txt").write_text("".join(f"{name}\n" for name in videos))
    return root


def _write_scene(folder: Path, labels: tuple[tuple[int, ...], ...], rng: np.random.Generator) -> None:
    folder.mkdir(parents=True)
    corners = rng.uniform(0, 100, (FRAMES, BOXES, 2))
    classes = rng.integers(1000, 1500, (FRAMES, BOXES))
    for _, number, frame, box in labels:
        classes[frame, box] = number
    scores = rng.uniform(0.2, 1, (FRAMES, BOXES))
    with h5py.File(folder / "Image_feature_20obj.h5", "w") as file:
        file["features"] = rng.random((FRAMES, BOXES, WIDTH), dtype=np.float32)
        file["boxes"] = np.concatenate((corners, corners + rng.uniform(40, 80, (FRAMES, BOXES, 2))), axis=2)
    objects = [{"objects": c, "objects_conf": s} for c, s in zip(classes.tolist(), scores.tolist(), strict=True)]
    (folder / "Image_info_20obj.json").write_text(json.dumps(objects))
    rows = "".join(",".join(map(str, row)) + "\n" for row in labels)
    (folder / "Vision_Text_Labels.csv").write_text(rows)


@pytest.mark.parametrize("protocol", ["default", "paper"])
def test_asiw_trains_and_is_evaluated(asiw: Path, tmp_path: Path, protocol: str) -> None:
    """The official recipe made small, with graphs of two objects and the scene and all losses; its card is scored."""
    encoder = PARTS["encoder"] | {"protocol": protocol}
    training = {
        "steps": 2, "batch": 2, "workers": 0, "validation_mixtures": 1, "validate_every": 2, "protocol": protocol,
        "augmentation": {"factor": 0.5},
    }  # fmt: skip
    plan, run = tmp_path / "plan.yaml", tmp_path / "run"
    plan.write_text(
        yaml.safe_dump({"method": "avsgs.asiw", "parts": PARTS | {"encoder": encoder}, "training": training})
    )
    told = CliRunner().invoke(app, ["train", "--config", str(plan), "--data", str(asiw), "-o", str(run)])
    assert told.exit_code == 0, told.output
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    losses = [record for record in records if "loss" in record]
    assert {"co_separation", "class", "orthogonality"} <= set(losses[0]) and np.isfinite(losses[-1]["loss"])
    found = CliRunner().invoke(
        app, ["evaluate", str(run), "--data", str(asiw), "--list", "test", "-o", str(tmp_path / "scores"), "--json"]
    )
    assert found.exit_code == 0, found.output
    [model] = json.loads((tmp_path / "scores/results.json").read_text())["models"]
    assert model["lists"][0]["mixtures"] == 1 and model["lists"][0]["skipped"] == []
