"""Training with two turns through the trainer: steps without the model, and going on where a run stopped, exactly.

The data are solos of four classes, from which mixtures of two recordings of two sounds each are made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from avsep_zoo.cli import app
from avsep_zoo.compose import compose_recipe
from avsep_zoo.model import SeparationModel
from avsep_zoo.recipe import PartConfig
from avsep_zoo.synth.files import write_clip
from avsep_zoo.training.config import TrainingConfig
from avsep_zoo.training.loop import train

PARTS: dict[str, dict[str, Any]] = {
    "encoder": {
        "name": "ial_cms.deeplab", "width": 2, "pyramid": 4, "details": 2, "space": 6, "frozen": False,
        "image_size": 32,
    },
    "conditioner": {"name": "ial_cms.attention", "width": 4, "hidden": 8},
    "separator": {"name": "ial_cms.unet", "width": 2, "levels": 3},
    "front_end": {
        "name": "stft", "rate": 8000, "length": 4095, "n_fft": 126, "hop_length": 64, "warp_rows": 64,
        "pad_mode": "reflect", "align_corners": True, "log_offset": 1e-8,
    },
    "objective": {
        "name": "ial_cms.independency", "independence": 0.1, "independence_steps": [1, 3], "correspondence_steps": [0],
        "discarded": 2, "critic_width": 1, "bank": 5, "model_every": 2,
    },
}  # fmt: skip
SMALL: dict[str, Any] = {
    "steps": 6, "batch": 2, "accumulate": 2, "members": 2, "validate_every": 3, "validation_mixtures": 1, "workers": 0,
    "validate_first": False, "ema": 0.9, "clip_norm": 1.0, "precision": "no",
    "augmentation": {"factor": 0.5, "noise": 0.3},
}  # fmt: skip


@pytest.fixture(scope="module")
def solos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip to train with and one to validate with of four classes: tones, and squares of four colours."""
    root, rng = tmp_path_factory.mktemp("solos"), np.random.default_rng(0)
    time = np.arange(44100) / 44100
    boxes = np.tile(np.array([4, 4, 28, 28], np.float32), (8, 1))
    for number, (label, pitch) in enumerate({"cello": 110, "horn": 300, "flute": 800, "bell": 1900}.items(), 1):
        for name, split in (("a", "train"), ("b", "val")):
            video = np.full((8, 32, 32, 3), 60 * number, np.uint8)
            sound = 0.2 * np.sin(2 * np.pi * pitch * time) + 0.02 * rng.standard_normal(len(time))
            write_clip(root, label, number, name, video, boxes, sound.astype(np.float32))
            with (root / f"{split}.csv").open("a") as rows:
                rows.write(f"/{label}/{name}.wav,/{label}/{name}.mp4,8\n")
    return root


def model_of(seed: int = 0, **objective: Any) -> SeparationModel:
    torch.manual_seed(seed)
    parts = {**PARTS, "objective": PARTS["objective"] | objective}
    return compose_recipe({slot: PartConfig.parse(part) for slot, part in parts.items()}, "ial_cms.tiny")


def config(**change: Any) -> TrainingConfig:
    return TrainingConfig.from_mapping({**SMALL, **change})


def read_log(run: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if k not in ("seconds", "items_per_second")} for record in records]


def differences(a: Any, b: Any, name: str = "") -> list[str]:
    """Names of what is not equal to the bit in two trees of tensors."""
    if isinstance(a, dict):
        lone = [f"{name}.{k}" for k in a.keys() ^ b.keys()]
        return lone + [d for k in a.keys() & b.keys() for d in differences(a[k], b[k], f"{name}.{k}")]
    if isinstance(a, list):
        return [d for k, (v, w) in enumerate(zip(a, b, strict=True)) for d in differences(v, w, f"{name}.{k}")]
    same = torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
    return [] if same else [name]


def assert_same_run(run: Path, whole: Path) -> None:
    assert read_log(run) == read_log(whole)
    assert not differences(*(torch.load(r / "checkpoint.pt", weights_only=True) for r in (run, whole)))
    for name in ("model.safetensors", "last/model.safetensors"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()


def test_three_and_three_steps_are_six(solos: Path, tmp_path: Path) -> None:
    """Weights, critic with its power iteration, bank and pointer, both optimisers, schedules, to the bit."""
    whole = train(model_of(), solos, tmp_path / "whole", config())
    saved = torch.load(whole / "checkpoint.pt", weights_only=True)
    bank = saved["objective"]["_extra_state"]
    assert bank["rows"].shape == (5, 64, 64) and bank["pointer"] == (6 + 3) * 2 * 4 % 5
    steps = {t: o[0]["state"][0]["step"].item() for t, o in saved["optimisers"].items() if 0 in o[0]["state"]}
    assert steps == {"model": 3, "critic": 6}

    halves = train(model_of(), solos, tmp_path / "halves", config(steps=3))
    assert differences(saved, torch.load(halves / "checkpoint.pt", weights_only=True))
    train(model_of(seed=7), solos, halves, config())
    assert_same_run(halves, whole)

    def stop(record: Mapping[str, Any]) -> None:
        if record["step"] == 5:
            raise KeyboardInterrupt

    killed = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        train(model_of(), solos, killed, config(), progress=stop)
    train(model_of(seed=7), solos, killed, config())
    assert_same_run(killed, whole)


def test_log_says_who_had_a_turn(solos: Path, tmp_path: Path) -> None:
    run = train(model_of(critic_every=3), solos, tmp_path / "run", config(steps=4, validate_every=4, ema=0.0))
    steps = [record for record in read_log(run) if "validation_sdr" not in record]
    turns = [("critic.loss" in record, "loss" in record) for record in steps]
    assert turns == [(True, True), (False, False), (False, True), (True, False)]
    assert steps[1] == {"step": 2}
    assert {"separation", "correspondence", "independence", "interference", "artifacts"} <= steps[0].keys()
    assert steps[3].keys() >= {"critic.loss", "critic.distance", "critic.gradient_norm", "critic.learning_rate"}
    assert all(np.isfinite(value) for record in steps for value in record.values())


def test_half_precision_trains(solos: Path, tmp_path: Path) -> None:
    run = train(model_of(), solos, tmp_path / "run", config(steps=2, validate_every=2, precision="bf16"))
    first, second = (record for record in read_log(run) if "validation_sdr" not in record)
    assert all(np.isfinite(value) for value in (*first.values(), *second.values()))


def told(plan: Path, data: Path, run: Path, *options: object) -> str:
    """What ``avsep train`` says on stderr."""
    words = ["train", "--config", plan, "--data", data, "-o", run, *options]
    settings = {"COLUMNS": "120", "NO_COLOR": "1", "TERM": "dumb"}
    result = CliRunner().invoke(app, [str(word) for word in words], env=settings)
    assert result.exit_code == 0, result.output
    return result.stderr


def test_progress_of_steps_without_the_model(solos: Path, tmp_path: Path) -> None:
    """The last loss stays on show; a run goes on, and is told to, where its next steps are the critic's or nobody's."""
    plan, run = tmp_path / "plan.yaml", tmp_path / "run"
    parts = {**PARTS, "objective": PARTS["objective"] | {"model_every": 3, "critic_every": 2}}
    training = SMALL | {"validate_every": 2}
    plan.write_text(yaml.safe_dump({"method": "ial_cms.unsupervised", "parts": parts, "training": training}))
    assert "step 2 of 2  loss " in told(plan, solos, run, "--steps", 2)  # of step 1
    again = told(plan, solos, run, "--steps", 3)
    assert "Going on from the checkpoint of step 2." in again
    assert "step 3 of 3  validation SDR" in again and "already" not in again and "loss" not in again
    assert "The run has its 3 steps already" in told(plan, solos, run, "--steps", 3)
