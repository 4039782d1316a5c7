"""The trainer on a folder of tones: what it learns, validates, averages, freezes and writes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml

import avsep_zoo
from avsep_zoo.compose import compose_recipe
from avsep_zoo.errors import DataError
from avsep_zoo.model import SeparationModel
from avsep_zoo.recipe import PartConfig
from avsep_zoo.training.average import Average
from avsep_zoo.training.config import TrainingConfig
from avsep_zoo.training.loop import train
from avsep_zoo.training.run_folder import card_name
from avsep_zoo.weights.cards import read_card

Make = Callable[..., SeparationModel]

SMALL: dict[str, Any] = {
    "steps": 2,
    "batch": 2,
    "validate_every": 2,
    "validate_first": False,
    "validation_mixtures": 2,
    "workers": 0,
    "seed": 5,
}
VARIED = {"semitones": 1.0, "gain": 3.0, "noise": 0.5, "drop_frames": 0.4, "drop_label": 0.4}
STILL = ("encoder", "separator")  # the parts with batch norms


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


def read_log(run: Path, *names: str) -> list[Any]:
    """The records of a run without their times, or of those that have it, one entry."""
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    if names:
        return [record[names[0]] for record in records if names[0] in record]
    return [{k: v for k, v in record.items() if k not in ("seconds", "items_per_second")} for record in records]


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


def test_tones_are_learned(make: Make, tones: Path, tmp_path: Path) -> None:
    """The loss falls by half and the validation SDR rises, with a weight in the card that does it."""
    settings = config(steps=40, batch=3, learning_rate=1e-2, validate_every=20, validate_first=True)
    run = train(make(), tones, tmp_path / "run", settings)
    losses, scores = read_log(run, "loss"), read_log(run, "validation_sdr")
    assert len(losses) == 40 and len(scores) == 3
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:5])
    assert max(scores) > 5 > scores[0]
    training = read_card(run).manifest["training"]
    assert training["validation_sdr"] == max(scores)
    assert training["step"] == 20 * scores.index(max(scores))
    last = read_card(run / "last").manifest["training"]
    assert (last["step"], last["validation_sdr"]) == (40, scores[-1])


def test_finished_run_is_left_alone_and_can_be_made_longer(make: Make, tones: Path, tmp_path: Path) -> None:
    """Going on gives what one longer run gives."""
    run = train(make(), tones, tmp_path / "run", config())
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    train(make(seed=1), tones, run, config())
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before
    train(make(seed=2), tones, run, config(steps=4))
    longer = train(make(), tones, tmp_path / "longer", config(steps=4))
    assert same(read_checkpoint(run), read_checkpoint(longer))
    assert yaml.safe_load((run / "training.yaml").read_text())["training"]["steps"] == 4


@pytest.mark.parametrize("half", [False, True])
def test_run_folder_is_a_card(make: Make, tones: Path, tmp_path: Path, half: bool) -> None:
    """It holds the parts and all settings, and loads like any other card."""
    model, settings = make(), config(half=half, augmentation=VARIED)
    run = train(model, tones, tmp_path / "run", settings)
    loaded = avsep_zoo.load(run)
    assert loaded.name == "iquery.run" and not loaded.training
    trained = {k: v.half().to(v.dtype) if half and v.is_floating_point() else v for k, v in model.state_dict().items()}
    assert same(dict(loaded.state_dict()), trained)
    assert loaded.separate(np.zeros(9000, np.float32), "drum", rate=8000).stems[0].name == "drum"
    told = read_card(run).manifest["training"]
    assert told.items() >= settings.to_dict().items() and told["step"] == 2
    assert not list(run.rglob("*.part"))


@pytest.mark.parametrize(
    ("folder", "name"),
    [("Mine-2.b", "iquery.mine_2_b"), ("ünder_1", "iquery._nder_1"), ("--", "iquery.run"), ("a/../b", "iquery.b")],
)
def test_cards_of_a_run_are_called_after_its_folder(make: Make, tmp_path: Path, folder: str, name: str) -> None:
    assert card_name(make(), tmp_path / folder) == name


def test_best_and_last_card_have_one_name(make: Make, tones: Path, tmp_path: Path) -> None:
    """In the manifest and in the heading."""
    run = train(make(), tones, tmp_path / "My run", config(steps=1))
    for card in (run, run / "last"):
        assert read_card(card).name == "iquery.my_run"
        assert read_card(card).text.startswith("# iquery.my_run\n")


def test_training_yaml_holds_what_decides_the_run(make: Make, tones: Path, tmp_path: Path) -> None:
    """Parts, data with a hash of its lists, and every setting."""
    model, settings = make(), config(steps=1, augmentation=VARIED)
    run = train(model, tones, tmp_path / "run", settings)
    saved = yaml.safe_load((run / "training.yaml").read_text())
    assert (saved["parts"], saved["training"]) == (model.parts, settings.to_dict())
    assert TrainingConfig.from_mapping(saved["training"]) == settings
    assert (saved["data"]["folder"], saved["data"]["dataset"], saved["data"]["clips"]) == (str(tones), "music", 6)
    assert len(saved["data"]["sha256"]) == 64


def test_progress_is_told_of_every_record(make: Make, tones: Path, tmp_path: Path) -> None:
    seen: list[Any] = []
    run = train(make(), tones, tmp_path / "run", config(), progress=seen.append)
    assert seen == [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert seen[0].keys() >= {"step", "loss", "learning_rate", "gradient_norm", "items_per_second", "seconds"}


def test_mixed_precision_after_full_precision(make: Make, tones: Path, tmp_path: Path) -> None:
    """Both in one process; the losses of the first step agree to the precision of bfloat16."""
    losses = []
    for precision in ("no", "bf16"):
        run = train(make(), tones, tmp_path / precision, config(steps=1, precision=precision))
        losses += read_log(run, "loss")
        weights = [v for v in read_checkpoint(run)["model"].values() if v.is_floating_point()]
        assert {v.dtype for v in weights} == {torch.float32}
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_precision_comes_from_accelerate(
    make: Make, tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the settings say nothing; float16 is refused without a GPU and leaves no run."""
    losses = [read_log(train(make(), tones, tmp_path / "a", config(steps=1, precision="bf16")), "loss")]
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    losses.append(read_log(train(make(), tones, tmp_path / "b", config(steps=1)), "loss"))
    assert losses[0] == losses[1]
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DataError, match="precision is fp16 and the device cpu; take bf16 or no"):
        train(make(), tones, tmp_path / "c", config(steps=1))
    assert not (tmp_path / "c").exists()


def test_accumulated_parts_are_one_batch(make: Make, tones: Path, tmp_path: Path) -> None:
    """Four mixtures in four parts give the curve of four at once, where no batch norm looks at the batch."""
    settings = {"steps": 3, "batch": 4, "freeze": STILL, "learning_rate": 1e-2}
    whole = read_log(train(make(), tones, tmp_path / "whole", config(**settings)))
    parts = read_log(train(make(), tones, tmp_path / "parts", config(**settings, accumulate=4)))
    for name in ("loss", "gradient_norm"):
        assert [r[name] for r in parts if name in r] == pytest.approx([r[name] for r in whole if name in r], rel=1e-4)
    with pytest.raises(DataError, match="batch of 4 mixtures cannot be taken in 3 equal parts"):
        config(batch=4, accumulate=3)


def test_average_is_what_is_validated_and_exported(make: Make, tones: Path, tmp_path: Path) -> None:
    """Cards hold the averaged weights, with the statistics of the trained model's batch norms."""
    run = train(make(), tones, tmp_path / "run", config(ema=0.5, learning_rate=1e-2))
    saved, card = read_checkpoint(run), dict(avsep_zoo.load(run / "last").state_dict())
    assert same(card, dict(saved["average"]))
    assert not same(saved["average"], saved["model"])
    statistics = [name for name in card if name.endswith("running_var")]
    assert statistics and all(torch.equal(card[name], saved["model"][name]) for name in statistics)


def test_average_weighs_steps_exponentially(make: Make) -> None:
    model, decay = make(), 0.2
    average = Average(model, decay)
    (weight,) = [p for name, p in model.named_parameters() if name == "conditioner.query_embed.weight"]
    mean = weight.detach().clone()
    for step in (1, 20):
        with torch.no_grad():
            weight.add_(1.0)
        average.update(model, step)
        kept = min(decay, (1 + step) / (10 + step))
        mean = kept * mean + (1 - kept) * weight.detach()
    torch.testing.assert_close(average.model.conditioner.query_embed.weight, mean)  # type: ignore[union-attr]
    assert not any(p.requires_grad for p in average.model.parameters())


def test_frozen_parts_keep_every_bit(make: Make, tones: Path, tmp_path: Path) -> None:
    """Weights and batch norms; freezing all is refused."""
    model = make()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train(model, tones, tmp_path / "run", config(freeze=STILL, learning_rate=1e-2))
    moved = {
        name.partition(".")[0] for name, value in model.state_dict().items() if not torch.equal(value, before[name])
    }
    assert moved == {"conditioner"}
    with pytest.raises(DataError, match="Nothing is left to train in the turn 'model' when all is frozen"):
        train(make(), tones, tmp_path / "none", config(freeze=["all"]))
    assert not (tmp_path / "none").exists()


def test_adapters_are_merged_in_cards_and_resumed(make: Make, tones: Path, tmp_path: Path) -> None:
    """The card loads as a model without adapters; going on is exact; without adapters it is refused."""
    settings = {"lora": {"r": 2, "dropout": 0.1}, "learning_rate": 1e-2}
    run = train(make(), tones, tmp_path / "run", config(**settings))
    train(make(), tones, run, config(steps=4, **settings))
    whole = train(make(), tones, tmp_path / "whole", config(steps=4, **settings))
    assert read_log(run) == read_log(whole)
    assert avsep_zoo.load(run).state_dict().keys() == make().state_dict().keys()
    with pytest.raises(DataError, match="was started with other frozen parts or adapters"):
        train(make(), tones, run, config(steps=6))


def test_patience_ends_a_run_that_gets_no_better(make: Make, tones: Path, tmp_path: Path) -> None:
    """A learning rate of nearly nothing never beats the start; running it again changes nothing."""
    settings = config(
        steps=9,
        freeze=STILL,
        learning_rate=1e-12,
        validate_every=1,
        validate_first=True,
        patience=2,
        checkpoint_every=5,
    )
    run = train(make(), tones, tmp_path / "run", settings)
    assert [record["step"] for record in read_log(run)] == [0, 1, 1, 2, 2]
    assert read_card(run).manifest["training"]["step"] == 0
    train(make(), tones, run, settings)
    assert len(read_log(run)) == 5


def test_loss_that_is_not_finite_costs_no_work(make: Make, tones: Path, tmp_path: Path) -> None:
    """The last checkpoint is kept, and going on with a lower learning rate works."""
    run = train(make(), tones, tmp_path / "run", config())
    before = (run / "checkpoint.pt").read_bytes(), (run / "model.safetensors").read_bytes()
    with pytest.raises(DataError, match=r"in step [34]; lower the learning rate") as caught:
        train(make(), tones, run, config(steps=4, learning_rate=1e30, validate_every=4))
    assert str(caught.value).count("\n") == 0
    assert (run / "checkpoint.pt").read_bytes() == before[0]
    assert (run / "model.safetensors").read_bytes() == before[1]
    train(make(), tones, run, config(steps=4, learning_rate=1e-4))
    assert [record["step"] for record in read_log(run)] == [1, 2, 2, 3, 4, 4]
    assert all(math.isfinite(loss) for loss in read_log(run, "loss"))


def test_validation_without_a_score(make: Make, tones: Path, tmp_path: Path, copied: Path) -> None:
    """Silent validation clips have no SDR: the run has a card all the same, and any score later beats it."""
    for path in copied.glob("audio/*/c.wav"):
        soundfile.write(path, np.zeros(22050), 22050)
    run = train(make(), copied, tmp_path / "run", config())
    assert read_log(run)[-1] == {"step": 2, "validation_sdr": None}
    assert read_card(run).manifest["training"]["step"] == 2
    train(make(), tones, run, config(steps=4))
    assert math.isfinite(read_log(run)[-1]["validation_sdr"])
    assert read_card(run).manifest["training"]["step"] == 4


def test_weight_that_does_not_fit_float16_says_what_to_change(make: Make, tones: Path, tmp_path: Path) -> None:
    """Nothing half-written is left, and going on without half works."""
    model = make()
    with torch.no_grad():
        next(model.conditioner.parameters())[0, 0] = 1e6
    settings = {"steps": 1, "validate_every": 1, "freeze": ["conditioner"]}
    with pytest.raises(DataError, match=r"as torch\.float16; set half to false, then run again"):
        train(model, tones, tmp_path / "run", config(half=True, **settings))
    assert not (tmp_path / "run" / "README.md").exists()
    run = train(model, tones, tmp_path / "run", config(**settings))
    assert read_card(run).manifest["training"]["half"] is False


@pytest.mark.parametrize("change", [{"seed": 6}, {"validation_mixtures": 3}, {"sources": 3}])
def test_run_keeps_what_its_scores_are_measured_on(
    make: Make, tones: Path, tmp_path: Path, change: dict[str, int]
) -> None:
    """Otherwise the best score so far would be of other mixtures; steps, batch and learning rate may change."""
    run = train(make(), tones, tmp_path / "run", config(steps=1))
    with pytest.raises(DataError, match="was started with other seed or validation mixtures"):
        train(make(), tones, run, config(**change))
    train(make(), tones, run, config(batch=3, learning_rate=1e-3))


def test_run_keeps_the_card_it_started_from(make: Make, tones: Path, tmp_path: Path) -> None:
    told = {"started_from": {"name": "iquery.a", "sha256": "a" * 64}}
    run = train(make(), tones, tmp_path / "run", config(steps=1), told=told)
    with pytest.raises(DataError, match="was started with other weights to start from"):
        train(make(), tones, run, config(), told={"started_from": {"name": "iquery.b", "sha256": "b" * 64}})
    assert read_card(run).manifest["started_from"]["name"] == "iquery.a"


def test_curves_for_tensorboard(make: Make, tones: Path, tmp_path: Path) -> None:
    """They hold what the log holds; a resumed run writes on behind its checkpoint."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train(make(), tones, tmp_path / "run", config(tensorboard=True))
    train(make(), tones, run, config(steps=3, tensorboard=True))
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    curve = [(event.step, event.value) for event in events.Scalars("loss")]
    assert curve == [(r["step"], pytest.approx(r["loss"])) for r in read_log(run) if "loss" in r]
    assert [event.step for event in events.Scalars("validation_sdr")] == [2, 3]


@pytest.fixture
def copied(tones: Path, tmp_path: Path) -> Path:
    """A copy of the lists and sounds."""
    to = tmp_path / "copied"
    for path in [*tones.glob("*.csv"), *tones.glob("audio/*/*.wav")]:
        target = to / path.relative_to(tones)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return to
