"""Training and evaluation on Synthetic-Duet as it was published: lists, frames at 8 per second, ``.npy`` detections."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml
from PIL import Image
from typer.testing import CliRunner

from avsep_zoo.cli import app
from avsep_zoo.data.reader import open_data
from avsep_zoo.data.readers.duets import DETECTED
from avsep_zoo.evaluation.bss import bss_eval

RATE, SAMPLES, FRAMES = 11025, 110250, 80
CLIPS = {"train": ("violin", "tuba", "erhu", "cello"), "val": ("violin", "cello"), "test": ("cello", "erhu", "tuba")}
PARTS: dict[str, Any] = {
    "encoder": {"width": 4, "pyramid": 4, "details": 4, "space": 8, "frozen": False, "image_size": 32},
    "conditioner": {"width": 8, "hidden": 8},
    "separator": {"width": 2, "levels": 3},
    "front_end": {"n_fft": 4094, "hop_length": 1024, "warp_rows": 64},  # 64 frames: the critic halves them six times
    "objective": {"critic_width": 2, "bank": 8},
}


def sound(label: str) -> np.ndarray:
    """Noise of its own for each instrument."""
    return np.random.default_rng(len(label)).uniform(-0.3, 0.3, SAMPLES).astype(np.float32)


@pytest.fixture(scope="module")
def duets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of 10 s of each instrument and list; the frames show the instrument where it was detected."""
    root = tmp_path_factory.mktemp("duets")
    for split, labels in CLIPS.items():
        lines = []
        for place, label in enumerate(labels):
            name = f"{label}/{split}_x_1"
            audio, frames, detections = (
                f"data/{kind}/{name}{end}" for kind, end in (("audio", ".wav"), ("frames", ""), ("detect", ".npy"))
            )
            for path in (audio, f"{frames}/x", detections):
                (root / path).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(root / audio, sound(label), RATE, "FLOAT")
            picture = np.zeros((40, 60, 3), dtype=np.uint8)
            picture[10:30, 20:50] = 40 + 50 * place
            for frame in range(1, FRAMES + 1):
                Image.fromarray(picture).save(root / frames / f"{frame:06d}.png")
            number = DETECTED.index(label) + 1 if label in DETECTED else 1
            found = [[frame, number, 0.93, 20, 10, 50, 30] for frame in range(1, FRAMES + 1, 3)]
            np.save(root / detections, np.array(found, dtype=np.float32))
            lines.append(f"{audio},{frames},{detections}\n")
        (root / f"{split}.csv").write_text("".join(lines))
    return root


def run_of(variant: str, duets: Path, folder: Path) -> Path:
    """Train for two steps of the model."""
    training = {"steps": 4, "batch": 2, "workers": 0, "validation_mixtures": 1, "validate_every": 4}
    plan, run = folder / "plan.yaml", folder / "run"
    plan.write_text(yaml.safe_dump({"method": f"ial_cms.{variant}", "parts": PARTS, "training": training}))
    told = CliRunner().invoke(app, ["train", "--config", str(plan), "--data", str(duets), "-o", str(run)])
    assert told.exit_code == 0, told.output
    return run


@pytest.mark.parametrize("variant", ["supervised", "unsupervised"])
def test_synthetic_duet_is_trained_on(variant: str, duets: Path, tmp_path: Path) -> None:
    """The official recipes made small; without solos the critic has its say."""
    run = run_of(variant, duets, tmp_path)
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    losses = [record for record in records if "separation" in record]
    assert losses and all(np.isfinite(record["separation"]) for record in losses)
    assert ("independence" in losses[0]) == (variant == "unsupervised")


def test_the_published_evaluation_runs(duets: Path, tmp_path: Path) -> None:
    """Windows over 10 s of the published list; a mixture by itself is worth what BSS Eval says of it."""
    run = run_of("supervised", duets, tmp_path)
    how = ["--data", str(duets), "--protocol", "ial_cms.music", "--limit", "1", "--json"]
    told = CliRunner().invoke(app, ["evaluate", str(run), *how])
    assert told.exit_code == 0, told.output
    results = json.loads(told.stdout)
    [scores] = results["models"][0]["lists"]
    assert (results["notes"], results["protocol"]["rate"], results["protocol"]["seconds"]) == ([], RATE, 10.0)
    assert (scores["name"], scores["mixtures"], scores["skipped"]) == ("test_2mix", 1, [])
    assert scores["published_mean"] is None and scores["reported"]  # no batch of eight is full
    [first, *_] = open_data(duets).mixtures("test_2mix")
    truth = np.stack([sound(str(clip.label)) for clip in first])
    blind = bss_eval(truth, np.stack([truth.sum(axis=0)] * 2)).sdr.mean()
    assert scores["mean"]["mixture_sdr"]["mean"] == pytest.approx(blind, abs=1e-3)
