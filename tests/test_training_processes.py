"""Training in processes of its own: killed at any moment, two at once, and one that fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml

from avsep_zoo.errors import DataError
from avsep_zoo.folder_lock import LOCK
from avsep_zoo.recipe import PartConfig
from avsep_zoo.training import logs
from avsep_zoo.training.config import TrainingConfig
from avsep_zoo.training.loop import train
from avsep_zoo.training.start import starting_model
from avsep_zoo.weights.cards import read_card

ROOT = Path(__file__).resolve().parents[1]
ACCELERATE = (
    "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
    "--main_process_port", "0", "--mixed_precision", "no", "--dynamo_backend", "no",
)  # fmt: skip
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
MOVING = {
    "steps": 5, "batch": 4, "accumulate": 2, "validate_every": 2, "validation_mixtures": 2, "workers": 1, "seed": 5,
    "ema": 0.9, "clip_norm": 1.0, "warmup": 1, "learning_rate": 1e-2, "schedule": "cosine", "precision": "no",
    "augmentation": {"semitones": 1.0, "gain": 3.0, "noise": 0.5, "drop_frames": 0.4, "drop_label": 0.4},
}  # fmt: skip
STILL = {
    "steps": 4, "batch": 4, "validate_every": 2, "validation_mixtures": 2, "workers": 0, "seed": 5,
    "learning_rate": 1e-2, "warmup": 0, "precision": "no", "freeze": ["encoder", "separator"],
    "augmentation": None,  # with cues dropped, a loss may be a mean over those that a process has
}  # fmt: skip


@pytest.fixture
def parts(tiny_parts: dict[str, PartConfig]) -> dict[str, Any]:
    """The tiny parts with dropout."""
    conditioner = tiny_parts["conditioner"]
    tiny_parts["conditioner"] = PartConfig(conditioner.name, {**conditioner.config, "dropout": 0.2})
    return {slot: part.to_dict() for slot, part in tiny_parts.items()}


class Started:
    """``avsep train`` in a process of its own; its children end with it, whatever happens."""

    def __init__(self, launcher: tuple[str, ...], config: Path, data: Path, run: Path) -> None:
        self.run, self.said = run, (run.with_suffix(".out"), run.with_suffix(".err"))
        command = [sys.executable, *launcher, "-m", "avsep_zoo", "train", "--config", config, "--data", data, "-o", run]
        path = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
        with self.said[0].open("w") as out, self.said[1].open("w") as errors:
            self.process = subprocess.Popen(
                [str(word) for word in command], env={**os.environ, "PYTHONPATH": path}, stdout=out, stderr=errors
            )

    def kill(self, *, lines: int, launcher_only: bool = False) -> None:
        """Kill it as soon as its log has so many lines."""
        log, end = self.run / "log.jsonl", time.monotonic() + 120
        while not log.exists() or log.read_text().count("\n") < lines:
            assert self.process.poll() is None, self.said[1].read_text()
            assert time.monotonic() < end
            time.sleep(0.01)
        children = [] if launcher_only else psutil.Process(self.process.pid).children(recursive=True)
        for process in (self.process, *children):
            process.kill()
        self.process.wait()

    def end(self) -> tuple[int, str, str]:
        """Wait; return exit code, stdout, stderr."""
        code = self.process.wait(timeout=240)
        out, errors = (file.read_text() for file in self.said)
        return code, out, errors


@pytest.fixture
def written(tmp_path: Path, parts: dict[str, Any]) -> Iterator[Any]:
    """A function that writes a plan."""

    def write(name: str, training: dict[str, Any]) -> Path:
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump({"method": "iquery.mini", "parts": parts, "training": training}))
        return file

    yield write


def in_this_process(parts: dict[str, Any], data: Path, run: Path, training: dict[str, Any]) -> Path:
    config = TrainingConfig.from_mapping(training)
    torch.manual_seed(config.seed)
    return train(starting_model("iquery.mini", overrides=parts), data, run, config)


def settings_of(run: Path) -> dict[str, Any]:
    """All settings of a run: those of the plan and of the method's preset."""
    settings: dict[str, Any] = yaml.safe_load((run / "training.yaml").read_text())["training"]
    return settings


def read_log(run: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if k not in ("seconds", "items_per_second")} for record in records]


def same(a: Any, b: Any) -> bool:
    """Whether two trees of tensors are equal to the bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(v, b[k]) for k, v in a.items())
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else bool(a == b)


def assert_same_run(run: Path, whole: Path) -> None:
    """The same log, checkpoint and cards, to the bit, and nothing half-written."""
    assert read_log(run) == read_log(whole)
    assert same(torch.load(run / "checkpoint.pt"), torch.load(whole / "checkpoint.pt"))
    for card in (".", "last"):
        assert (run / card / "model.safetensors").read_bytes() == (whole / card / "model.safetensors").read_bytes()
        manifests = [dict(read_card(folder / card).manifest) for folder in (run, whole)]
        assert [manifest.pop("name") for manifest in manifests] == [f"iquery.{folder.name}" for folder in (run, whole)]
        assert manifests[0] == manifests[1]
    assert not list(run.rglob("*.part"))


def test_killed_run_goes_on_exactly(parts: dict[str, Any], written: Any, tones: Path, tmp_path: Path) -> None:
    """Killed twice, before its first checkpoint and after one, with half a line in its log."""
    plan, run = written("plan", MOVING), tmp_path / "run"
    Started((), plan, tones, run).kill(lines=2)
    Started((), plan, tones, run).kill(lines=6)
    assert torch.load(run / "checkpoint.pt")["state"]["step"] in (2, 4)
    with (run / "log.jsonl").open("a") as log:
        log.write('{"step": 5, "los')
    in_this_process(parts, tones, run, settings_of(run))
    whole = in_this_process(parts, tones, tmp_path / "whole", settings_of(run))
    assert_same_run(run, whole)


def test_two_killed_processes_go_on_exactly(written: Any, tones: Path, tmp_path: Path) -> None:
    """Only the launcher is killed: the orphans end by themselves and leave the run to the next ones."""
    plan = written("plan", MOVING)
    whole = Started(ACCELERATE, plan, tones, tmp_path / "whole")
    code, out, errors = whole.end()
    assert code == 0, errors
    assert out.count("holds iquery.whole of step") == 1
    assert errors.count("Training iquery.mini for 5 steps") == 1 and "reducer.cpp" not in errors

    run = tmp_path / "run"
    Started(ACCELERATE, plan, tones, run).kill(lines=6, launcher_only=True)
    code, out, errors = Started(ACCELERATE, plan, tones, run).end()
    assert code == 0, errors
    assert_same_run(run, tmp_path / "whole")


def test_two_processes_train_like_one(parts: dict[str, Any], written: Any, tones: Path, tmp_path: Path) -> None:
    """The same mixtures, averaged gradients: the same curve but for the order of sums.

    The parts with batch norms are frozen here; in training mode each process normalises by its own mixtures, and
    the curves are only alike.
    """
    parts["conditioner"]["dropout"] = 0.0
    code, _, errors = Started(TORCHRUN, written("plan", STILL), tones, tmp_path / "two").end()
    assert code == 0, errors
    two = read_log(tmp_path / "two")
    one = read_log(in_this_process(parts, tones, tmp_path / "one", settings_of(tmp_path / "two")))
    assert [record["step"] for record in two] == [record["step"] for record in one] == [0, 1, 2, 2, 3, 4, 4]
    for a, b in zip(one, two, strict=True):
        assert a == pytest.approx(b, rel=1e-3, abs=2e-3 if "validation_sdr" in a else 0)


def test_failure_of_one_process_ends_both_with_one_sentence(
    parts: dict[str, Any], written: Any, tones: Path, tmp_path: Path
) -> None:
    """A class without a usable file is met by the process that draws it; only the main one says so."""
    data = tmp_path / "data"
    for path in [*tones.glob("*.csv"), *tones.glob("audio/*/*.wav")]:
        (data / path.relative_to(tones)).parent.mkdir(parents=True, exist_ok=True)
        (data / path.relative_to(tones)).write_bytes(b"" if path.match("flute/[ab].wav") else path.read_bytes())
    training = {**STILL, "batch": 2, "steps": 50}
    code, _, errors = Started(TORCHRUN, written("plan", training), data, tmp_path / "run").end()
    assert code != 0
    said = [line for line in errors.splitlines() if line.startswith("None of 2 clips of flute can be used")]
    assert len(said) == 1
    assert "Error" not in errors.partition("ChildFailedError")[0].partition(said[0])[0]


def test_run_that_another_process_trains_is_left_alone(
    parts: dict[str, Any], tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_PATIENCE", 0.0)
    run = in_this_process(parts, tones, tmp_path / "run", {**STILL, "steps": 1})
    before = [(run / name).read_bytes() for name in ("log.jsonl", "training.yaml")]
    holds = "import filelock as f, sys; lock = f.FileLock(sys.argv[1]); lock.acquire(); print(); sys.stdin.read()"
    command = [sys.executable, "-u", "-c", holds, str(run / LOCK)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None and other.stdout is not None
        other.stdout.readline()
        with pytest.raises(DataError, match="Another process writes into"):
            in_this_process(parts, tones, run, {**STILL, "steps": 2})
        other.stdin.close()
    assert [(run / name).read_bytes() for name in ("log.jsonl", "training.yaml")] == before
