"""The trainer on a folder of tones: it learns, goes on exactly where it stopped, and writes a card."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml

import avsep_zoo
from avsep_zoo.cards import read_card
from avsep_zoo.compose import compose, compose_recipe
from avsep_zoo.errors import CueError, DataError
from avsep_zoo.model import SeparationModel
from avsep_zoo.recipe import PartConfig
from avsep_zoo.synth.files import write_clip
from avsep_zoo.training.config import TrainingConfig
from avsep_zoo.training.loop import train

Make = Callable[..., SeparationModel]

SMALL: dict[str, Any] = {
    "steps": 2,
    "batch": 2,
    "validate_every": 2,
    "validation_mixtures": 2,
    "workers": 0,
    "seed": 5,
}
VARIED = {"semitones": 1.0, "gain": 3.0, "noise": 0.5, "drop_frames": 0.4, "drop_label": 0.4}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two training clips and a validation clip of 2 s for each of three classes of tones and colours."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    time = np.arange(2 * 44100) / 44100
    for c, (label, base) in enumerate({"violin": 1500, "flute": 600, "drum": 150}.items()):
        for name, split in (("a", "train"), ("b", "train"), ("c", "val")):
            notes = sum(np.sin(2 * np.pi * base * rng.uniform(0.9, 1.1) * k * time) / k for k in (1, 2))
            video = np.zeros((16, 32, 32, 3), np.uint8)
            video[..., c] = 200
            boxes = np.tile(np.array([4, 4, 28, 28], np.float32), (16, 1))
            sound = 0.2 * notes + 0.01 * rng.standard_normal(len(time))  # pure tones are hard to score
            write_clip(root, label, c, name, video, boxes, sound.astype(np.float32))
            with (root / f"{split}.csv").open("a") as rows:
                rows.write(f"/{label}/{name}.wav,/{label}/{name}.mp4,2\n")
    return root


@pytest.fixture
def make(tiny_parts: dict[str, PartConfig]) -> Make:
    """A function that makes the tiny model with random weights and changed settings of the conditioner."""

    def build(seed: int = 0, **conditioner: Any) -> SeparationModel:
        part = tiny_parts["conditioner"]
        parts = {**tiny_parts, "conditioner": PartConfig(part.name, {**part.config, **conditioner})}
        torch.manual_seed(seed)
        return compose_recipe(parts, "iquery.tiny")

    return build


def config(**change: Any) -> TrainingConfig:
    return TrainingConfig.from_mapping({**SMALL, **change})


def read_log(run: Path) -> list[dict[str, Any]]:
    """The records of a run without their times."""
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if k != "seconds"} for record in records]


def read_checkpoint(run: Path) -> dict[str, Any]:
    saved: dict[str, Any] = torch.load(run / "checkpoint.pt", weights_only=True)
    return saved


def same(a: Any, b: Any) -> bool:
    """Whether two trees of tensors are equal to the bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(v, b[k]) for k, v in a.items())
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else bool(a == b)


def test_tones_are_learned(make: Make, data: Path, tmp_path: Path) -> None:
    """The loss falls by half and the validation SDR rises, with a weight in the card that does it."""
    run = train(make(), data, tmp_path / "run", config(steps=40, batch=3, learning_rate=1e-2, validate_every=20))
    losses = [record["loss"] for record in read_log(run) if "loss" in record]
    scores = [record["validation_sdr"] for record in read_log(run) if "validation_sdr" in record]
    assert len(losses) == 40 and len(scores) == 2
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:5])
    assert max(scores) > 5
    training = read_card(run).manifest["training"]
    assert training["validation_sdr"] == max(scores)
    assert training["step"] == 20 * (1 + scores.index(max(scores)))


KILLED = """
import json, os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from avsep_zoo.compose import compose_recipe
from avsep_zoo.recipe import PartConfig
from avsep_zoo.training.config import TrainingConfig
from avsep_zoo.training.loop import train

task = json.loads(sys.argv[1])
torch.manual_seed(0)
model = compose_recipe({k: PartConfig.parse(v) for k, v in task["parts"].items()}, "iquery.tiny")

def kill(record):
    if record["step"] == 5:
        os.kill(os.getpid(), signal.SIGKILL)

train(model, Path(task["data"]), Path(task["run"]), TrainingConfig(**task["config"]), progress=kill)
"""


def test_killed_run_goes_on_exactly(make: Make, data: Path, tmp_path: Path) -> None:
    """Killed in step 5 and resumed from step 3 by another process: the same log and weights, to the bit."""
    settings = {**SMALL, "steps": 6, "validate_every": 3, "clip_norm": 1.0, "augmentation": VARIED}
    whole = train(make(dropout=0.2), data, tmp_path / "whole", TrainingConfig(**settings))

    run, model = tmp_path / "killed", make(dropout=0.2)
    task = {"parts": model.parts, "data": str(data), "run": str(run), "config": settings}
    killed = subprocess.run([sys.executable, "-c", KILLED, json.dumps(task)], timeout=600)
    assert killed.returncode == -signal.SIGKILL
    assert [record["step"] for record in read_log(run)] == [1, 2, 3, 3, 4, 5]
    assert read_checkpoint(run)["step"] == 3
    with (run / "log.jsonl").open("a") as log:
        log.write('{"step": 6, "los')

    train(make(seed=9, dropout=0.2), data, run, TrainingConfig(**{**settings, "workers": 1}))
    assert read_log(run) == read_log(whole)
    assert [record["step"] for record in read_log(run)] == [1, 2, 3, 3, 4, 5, 6, 6]
    assert same(read_checkpoint(run), read_checkpoint(whole))
    assert (run / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert not list(run.glob("*.part"))


def test_finished_run_is_left_alone_and_can_be_made_longer(make: Make, data: Path, tmp_path: Path) -> None:
    run = train(make(), data, tmp_path / "run", config())
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    train(make(seed=1), data, run, config())
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
    train(make(seed=2), data, run, config(steps=4))
    longer = train(make(), data, tmp_path / "longer", config(steps=4))
    assert same(read_checkpoint(run)["model"], read_checkpoint(longer)["model"])
    assert yaml.safe_load((run / "training.yaml").read_text())["training"]["steps"] == 4


@pytest.mark.parametrize("half", [False, True])
def test_run_folder_is_a_card(make: Make, data: Path, tmp_path: Path, half: bool) -> None:
    """It holds the parts and all settings, and loads like any other card."""
    model, settings = make(), config(half=half, augmentation=VARIED)
    run = train(model, data, tmp_path / "run", settings)
    loaded = avsep_zoo.load(run)
    assert loaded.name == "iquery.tiny" and not loaded.training
    trained = {k: v.half().to(v.dtype) if half and v.is_floating_point() else v for k, v in model.state_dict().items()}
    assert same(dict(loaded.state_dict()), trained)
    assert loaded.separate(np.zeros(9000, np.float32), "drum", rate=8000).stems[0].name == "drum"
    saved = yaml.safe_load((run / "training.yaml").read_text())
    assert saved == {"parts": model.parts, "training": settings.to_dict()}
    assert TrainingConfig.from_mapping(saved["training"]) == settings
    told = read_card(run).manifest["training"]
    assert told.items() >= settings.to_dict().items() and told["step"] == 2


def test_progress_is_told_of_every_record(make: Make, data: Path, tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    run = train(make(), data, tmp_path / "run", config(), progress=seen.append)
    assert [{k: v for k, v in r.items() if k not in ("seconds", "steps")} for r in seen] == read_log(run)
    assert {record["steps"] for record in seen} == {2}


def test_schedule_warms_up_and_falls(make: Make, data: Path, tmp_path: Path) -> None:
    """The learning rate of the last step: half of the peak in the warm-up, 1 % at the end of the cosine."""

    def last_rate(name: str, **change: Any) -> float:
        run = train(make(), data, tmp_path / name, config(learning_rate=1e-3, validate_every=9, **change))
        groups = [g for o in read_checkpoint(run)["optimisers"] for g in o["param_groups"]]
        (rate,) = {group["lr"] for group in groups}
        return float(rate)

    assert last_rate("warm", steps=1, warmup=2) == pytest.approx(5e-4)
    assert last_rate("flat", steps=2, warmup=1) == pytest.approx(1e-3)
    half_way = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi / 2))
    assert last_rate("cosine", steps=2, schedule="cosine") == pytest.approx(1e-3 * half_way)


def test_mixed_precision_after_full_precision(make: Make, data: Path, tmp_path: Path) -> None:
    """Both in one process; the losses of the first step agree to the precision of bfloat16."""
    losses = []
    for precision in ("no", "bf16"):
        run = train(make(), data, tmp_path / precision, config(steps=1, precision=precision))
        losses.append(read_log(run)[0]["loss"])
        weights = [v for v in read_checkpoint(run)["model"].values() if v.is_floating_point()]
        assert {v.dtype for v in weights} == {torch.float32}
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_loss_that_is_not_finite_costs_no_work(make: Make, data: Path, tmp_path: Path) -> None:
    """The last checkpoint is kept, and going on with a lower learning rate works."""
    run = train(make(), data, tmp_path / "run", config())
    before = (run / "checkpoint.pt").read_bytes(), (run / "model.safetensors").read_bytes()
    with pytest.raises(DataError, match=r"in step [34]; lower the learning rate") as caught:
        train(make(), data, run, config(steps=4, learning_rate=1e30, validate_every=4))
    assert str(caught.value).count("\n") == 0
    assert (run / "checkpoint.pt").read_bytes() == before[0]
    assert (run / "model.safetensors").read_bytes() == before[1]
    train(make(), data, run, config(steps=4, learning_rate=1e-4))
    assert [record["step"] for record in read_log(run)] == [1, 2, 2, 3, 4, 4]
    assert all(math.isfinite(record["loss"]) for record in read_log(run) if "loss" in record)


def copied(data: Path, to: Path) -> Path:
    """A copy of a data folder's lists and sounds."""
    for path in [*data.glob("*.csv"), *data.glob("audio/*/*.wav")]:
        target = to / path.relative_to(data)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return to


def test_validation_without_a_score(make: Make, data: Path, tmp_path: Path) -> None:
    """Silent validation clips have no SDR: the run has a card all the same, and any score later beats it."""
    quiet = copied(data, tmp_path / "data")
    for path in quiet.glob("audio/*/c.wav"):
        soundfile.write(path, np.zeros(22050), 22050)
    run = train(make(), quiet, tmp_path / "run", config())
    assert read_log(run)[-1] == {"step": 2, "validation_sdr": None}
    assert read_card(run).manifest["training"]["step"] == 2
    train(make(), data, run, config(steps=4))
    assert math.isfinite(read_log(run)[-1]["validation_sdr"])
    assert read_card(run).manifest["training"]["step"] == 4


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_file_is_named_in_one_sentence(make: Make, data: Path, tmp_path: Path, workers: int) -> None:
    """Also from a data-loading process, and what was learned before stays."""
    bad = copied(data, tmp_path / "data")
    (bad / "audio/flute/a.wav").write_bytes(b"no sound")
    with pytest.raises(DataError) as caught:
        train(make(), bad, tmp_path / "run", config(steps=20, validate_every=1, workers=workers))
    message = str(caught.value)
    assert message.startswith(f"The sound '{bad}/audio/flute/a.wav' cannot be read")
    assert message.endswith("check it or remove its row.") and "\n" not in message
    steps = read_log(tmp_path / "run")[-1]["step"] if read_log(tmp_path / "run") else 0
    if steps:
        assert read_checkpoint(tmp_path / "run")["step"] == steps


def test_class_the_model_does_not_know(make: Make, data: Path, tmp_path: Path) -> None:
    other = copied(data, tmp_path / "data")
    (other / "audio/tuba").mkdir()
    (other / "audio/tuba/a.wav").write_bytes((other / "audio/drum/a.wav").read_bytes())
    (other / "train.csv").write_text("/tuba/a.wav,/tuba/a.mp4,2\n/drum/a.wav,/drum/a.mp4,2\n")
    with pytest.raises(CueError, match="no class 'tuba'"):
        train(make(), other, tmp_path / "run", config())


def test_folders_that_are_no_run_of_this_model(make: Make, data: Path, tmp_path: Path) -> None:
    run = train(make(), data, tmp_path / "run", config(steps=1))
    with pytest.raises(DataError, match="was started with other parts"):
        train(make(dropout=0.5), data, run, config())
    checkpoint = run / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"The checkpoint in .* cannot be used"):
        train(make(), data, run, config())

    (tmp_path / "home").mkdir()
    (tmp_path / "home/thesis.tex").write_text("Chapter 1")
    (tmp_path / "file").write_text("")
    for wrong in ("home", "file"):
        with pytest.raises(DataError, match="neither an empty folder nor a training run"):
            train(make(), data, tmp_path / wrong, config())
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["thesis.tex"]


def test_data_that_cannot_be_used_leaves_no_run(make: Make, data: Path, tmp_path: Path) -> None:
    lists = copied(data, tmp_path / "data")
    (lists / "val.csv").write_text("/drum/c.wav,/drum/c.mp4,2\n")
    with pytest.raises(DataError, match=r"val\.csv has fewer than 2 classes"):
        train(make(), lists, tmp_path / "run", config())
    with pytest.raises(DataError, match=r"train\.csv' cannot be read"):
        train(make(), tmp_path, tmp_path / "run", config())
    parts = make().parts
    given: dict[str, Any] = {slot: part for slot, part in parts.items() if slot != "objective"}
    bare = compose(**given)
    with pytest.raises(DataError, match="composed has no objective"):
        train(bare, data, tmp_path / "run", config())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stepz": 1}, "no setting 'stepz'; it has augmentation, batch, "),
        ({"steps": 0}, "steps is 0; give at least 1"),
        ({"steps": "many"}, "steps is 'many'; give a whole number"),
        ({"batch": 2.5}, "batch is 2.5; give a whole number"),
        ({"sources": 1}, "sources is 1; give at least 2"),
        ({"workers": -1}, "workers is -1; give at least 0"),
        ({"learning_rate": 0}, "learning_rate is 0; give a number above 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan; give a number"),
        ({"clip_norm": -1}, "clip_norm is -1; give a number of at least 0"),
        ({"frame_rate": None}, "frame_rate is None; give a number"),
        ({"schedule": "linear"}, "schedule is 'linear'; give cosine or constant"),
        ({"precision": "fp16"}, "precision is 'fp16'; give no or bf16"),
        ({"half": "yes"}, "half is 'yes'; give true or false"),
        ({"augmentation": [1]}, r"augmentation is \[1\]; give a mapping"),
        ({"augmentation": {"echo": 1}}, "augmentation has no setting 'echo'; it has semitones, "),
        ({"augmentation": {"gain": "loud"}}, "augmentation setting gain is 'loud'; give a number"),
        ({"augmentation": {"noise": -1}}, "augmentation setting noise is -1; give a number of at least 0"),
    ],
)
def test_settings_are_checked(values: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        TrainingConfig.from_mapping(values)
