"""``avsep train``: what decides a run, in which order, and what a user reads."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner, Result

import avsep_zoo
from avsep_zoo.cli import app
from avsep_zoo.cli.train_options import adapter_settings, assigned, choose_preset, names
from avsep_zoo.recipe import PartConfig
from avsep_zoo.registry import registry
from avsep_zoo.weights.cards import read_card

SMALL = {
    "steps": 2, "batch": 2, "workers": 0, "validation_mixtures": 2, "validate_every": 1, "precision": "no",
    "warmup": 0, "augmentation": None,
}  # fmt: skip


def avsep(*arguments: object) -> Result:
    """Run a command in this process."""
    settings = {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    return CliRunner().invoke(app, [str(a) for a in arguments], env=settings, prog_name="avsep")


def train(*arguments: object) -> Result:
    """Run ``avsep train``, which must end well."""
    result = avsep("train", *arguments)
    assert result.exit_code == 0, result.output
    return result


def sentence(*arguments: object) -> str:
    """Return the line on stderr that ``avsep train`` ended with, with exit code 1."""
    result = avsep("train", *arguments)
    assert (result.exit_code, result.stdout) == (1, ""), result.output
    *before, line = result.stderr.splitlines()
    assert not before or before[0].startswith("Training ")
    return line


@pytest.fixture
def plan(tmp_path: Path, tiny_parts: dict[str, PartConfig]) -> Path:
    """A config file of the tiny iQuery with few steps."""
    parts = {slot: part.to_dict() for slot, part in tiny_parts.items()}
    file = tmp_path / "plan.yaml"
    file.write_text(yaml.safe_dump({"method": "iquery.mini", "parts": parts, "training": SMALL}))
    return file


def read_log(run: Path) -> list[Mapping[str, Any]]:
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if k not in ("seconds", "items_per_second")} for record in records]


def settings_of(run: Path) -> dict[str, Any]:
    saved: dict[str, Any] = yaml.safe_load((run / "training.yaml").read_text())
    return saved


def test_run_is_told_and_goes_on_by_its_folder_alone(plan: Path, tones: Path, tmp_path: Path) -> None:
    """One step, one more without saying the rest again, and none; then the run is told of."""
    run = tmp_path / "run"
    first = train("--config", plan, "--data", tones, "-o", run, "--steps", 1)
    assert f"Training iquery.mini for 1 steps of 2 mixtures into {run}" in first.stderr
    assert re.search(r"step 0 of 1  validation SDR -?\d+\.\d\d dB", first.stderr)
    assert re.search(r"step 1 of 1  loss 0\.\d+  validation SDR -?\d+\.\d\d dB", first.stderr)
    assert f"{run} holds iquery.run of step" in first.stdout

    second = train("-o", run, "--steps", 2)
    assert "Going on from the checkpoint of step 1." in second.stderr
    assert [record["step"] for record in read_log(run)] == [0, 1, 1, 2, 2]
    third = train("-o", run)
    assert "The run has its 2 steps already" in third.stderr
    told = json.loads(avsep("info", f"{run}/", "--json").stdout)["weights"]["training"]
    assert (told["batch"], told["clip_norm"], told["augmentation"]) == (2, 1.0, None)


def test_training_yaml_repeats_the_run(plan: Path, tones: Path, tmp_path: Path) -> None:
    """The same curve and weights, from the file alone; what was set by options is in it."""
    changed = ("--set", "conditioner.dropout=0.5", "--set", "augmentation.drop_frames=0.5", "--learning-rate", "1e-2")
    train("--config", plan, "--data", tones, "-o", tmp_path / "a", *changed)
    train("--config", tmp_path / "a/training.yaml", "-o", tmp_path / "b")
    assert read_log(tmp_path / "a") == read_log(tmp_path / "b")
    for name in ("model.safetensors", "last/model.safetensors", "training.yaml"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    saved = settings_of(tmp_path / "a")
    assert saved["parts"]["conditioner"]["dropout"] == 0.5
    assert (saved["training"]["learning_rate"], saved["training"]["augmentation"]) == (0.01, {"drop_frames": 0.5})


def test_precedence(plan: Path, tones: Path, tmp_path: Path) -> None:
    """Preset < config file < options < --set; a mapping in the file is the whole one, --set changes one entry."""
    document = yaml.safe_load(plan.read_text())
    document["training"] |= {"seed": 11, "batch": 4, "augmentation": {"room": 0.5}}
    plan.write_text(yaml.safe_dump(document))
    options = (
        "--batch",
        3,
        "--steps",
        5,
        "--set",
        "steps=1",
        "--set",
        "objective.loss=l2",
        "--set",
        "augmentation.gain=3",
    )
    train("--config", plan, "--data", tones, "-o", tmp_path / "run", *options)
    saved = settings_of(tmp_path / "run")
    training = saved["training"]
    assert (training["clip_norm"], training["seed"], training["batch"], training["steps"]) == (1.0, 11, 3, 1)
    assert training["augmentation"] == {"room": 0.5, "gain": 3}
    assert saved["parts"]["objective"] == {"name": "iquery.masks", "mixture": "sum", "loss": "l2"}


def test_fine_tuning_a_card_with_a_new_class(card: Path, tones: Path, tmp_path: Path) -> None:
    """METHOD is not needed; the run tells of the card it comes from, and a changed card is noticed."""
    run = tmp_path / "run"
    small = [word for name, value in SMALL.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    options = ("--from", card, "--data", tones, "--add-class", "tuba", "--freeze", "encoder", "--freeze", "attention")
    train(*options, "-o", run, *small)
    assert avsep_zoo.load(run).classes == ("violin", "flute", "drum", "tuba")
    saved, manifest = settings_of(run), read_card(run).manifest
    digest = read_card(card).manifest["sha256"]
    assert saved["from"] == {"card": str(card), "sha256": digest} and saved["add_classes"] == ["tuba"]
    assert saved["training"]["freeze"] == ["encoder", "attention"]
    assert manifest["started_from"] == {"name": "iquery.tiny", "sha256": digest}
    assert (manifest["name"], manifest["variant"]) == ("iquery.run", "iquery.tiny")
    train("-o", run, "--steps", 3)
    assert read_log(run)[-1]["step"] == 3

    readme = card / "README.md"
    readme.write_text(readme.read_text().replace(digest, "f" * 64))
    assert "has other weights now than the config says" in sentence("-o", run)


def test_run_of_a_run_keeps_the_variant(plan: Path, tones: Path, tmp_path: Path) -> None:
    """Its preset is that of the method's variant, whatever the cards are called."""
    train("--config", plan, "--data", tones, "-o", tmp_path / "first", "--steps", 1)
    small = [word for name, value in SMALL.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    train("--from", tmp_path / "first" / "last", "--data", tones, "-o", tmp_path / "second", *small)
    manifest = read_card(tmp_path / "second").manifest
    assert (manifest["name"], manifest["variant"]) == ("iquery.second", "iquery.mini")
    assert manifest["started_from"]["name"] == "iquery.first"
    training = settings_of(tmp_path / "second")["training"]
    assert (training["schedule"], training["clip_norm"]) == ("cosine", 1.0)


def test_adapters_by_option(card: Path, tones: Path, tmp_path: Path) -> None:
    small = [word for name, value in SMALL.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    train("iquery", "--from", card, "--data", tones, "--lora", "r=2,alpha=4", "-o", tmp_path / "run", *small)
    assert settings_of(tmp_path / "run")["training"]["lora"] == {"r": 2, "alpha": 4}
    assert avsep_zoo.load(tmp_path / "run").parts == avsep_zoo.load(card).parts


def test_skipped_files_are_mentioned(plan: Path, tones: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for path in [*tones.glob("*.csv"), *tones.glob("audio/*/*.wav")]:
        (data / path.relative_to(tones)).parent.mkdir(parents=True, exist_ok=True)
        (data / path.relative_to(tones)).write_bytes(path.read_bytes())
    with (data / "train.csv").open("a") as rows:
        rows.write("/../a.wav,/../a.mp4,1\n")
    result = train("--config", plan, "--data", data, "-o", tmp_path / "run")
    assert f"1 file was skipped, see {tmp_path / 'run' / 'skipped.jsonl'}" in result.stderr.splitlines()


def test_patience_is_told(plan: Path, tones: Path, tmp_path: Path) -> None:
    still = ("--freeze", "encoder,separator", "--learning-rate", 1e-12, "--set", "patience=1", "--steps", 3)
    result = train("--config", plan, "--data", tones, "-o", tmp_path / "run", *still)
    assert "Stopped at step 1, with no better validation for 1 in a row." in result.stderr
    assert "of step 0, the best one" in result.stdout
    assert "The run has its 3 steps, or its patience, already" in train("-o", tmp_path / "run").stderr


def test_interrupt_says_how_to_go_on(plan: Path, tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from avsep_zoo.training.logs import RunLog

    record = RunLog.record

    def interrupted(self: RunLog, *, step: int, **values: float) -> None:
        record(self, step=step, **values)
        if step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunLog, "record", interrupted)
    run = tmp_path / "run"
    result = avsep("train", "--config", plan, "--data", tones, "-o", run)
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == f"Stopped; 'avsep train -o {run}' goes on from its last checkpoint."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "r"], "Neither a method nor a card is given; name one to train"),
        (["iquery", "-o", "r"], "No data folder is given; name one with --data."),
        (["iqery", "--data", "d", "-o", "r"], "There is no method 'iqery'; did you mean 'iquery'."),
        (["iquery.mini", "--data", "no/where", "-o", "r"], "The data folder 'no/where' does not exist"),
        (["iquery", "--data", "d", "-o", "r", "--preset", "maxi"], "iquery has no preset 'maxi'"),
        (["iquery", "--data", "d", "-o", "r", "--config", "no.yaml"], "The config 'no.yaml' cannot be read"),
        (["iquery.mini", "--data", "d", "-o", "r", "--set", "stebs=1"], "no setting 'stebs'; did you mean 'steps'"),
        (["iquery.mini", "--data", "d", "-o", "r", "--set", "augmentation=1"], "is 1; give a mapping of its fields"),
        (["iquery.mini", "--data", "d", "-o", "r", "--set", "steps=few"], "is 'few'; give a whole number."),
        (["iquery.mini", "--data", "d", "-o", "r", "--set", "steps.a=1"], "is {'a': 1}; give a whole number."),
        (["iquery.mini", "--data", "d", "-o", "r", "--set", "objective.los=l2"], "did you mean 'loss'"),
        (["iquery.mini", "--data", "d", "-o", "r", "--add-class", "cello"], "The class 'cello' is there already"),
        (["iquery", "--from", "no/card", "--data", "d", "-o", "r"], "The card 'no/card/README.md' cannot be read"),
    ],
)
def test_errors_are_sentences(arguments: list[str], message: str) -> None:
    assert message in sentence(*arguments)


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("--set", "clip_norm", "KEY=VALUE"),
        ("--set", "=1", "KEY=VALUE"),
        ("--set", "a.b.c=1", "KEY=VALUE"),
        ("--set", "objective=l2", "names a part; give objective.KEY=VALUE"),
        ("--lora", "8", "give r=8,alpha=16"),
        ("--lora", "r=eight", "give r=8,alpha=16"),
        ("--steps", "0", "greater than or equal to 1"),
    ],
)
def test_a_wrong_call_ends_with_exit_code_2(option: str, value: str, reason: str) -> None:
    result = avsep("train", "iquery", "--data", "d", "-o", "r", option, value)
    assert (result.exit_code, result.stdout) == (2, "")
    assert reason in " ".join(result.stderr.replace("│", " ").split())


def test_presets_choose_the_variant() -> None:
    recipe = registry().method("iquery")
    variant, settings = choose_preset(recipe, None, "mini")
    assert (variant, settings["schedule"]) == ("mini", "cosine")
    assert choose_preset(recipe, "mini", None)[1] == settings
    assert choose_preset(recipe, None, "official")[0] == "music"
    assert choose_preset(recipe, "nomotion", None) == ("nomotion", {})
    settings["augmentation"]["room"] = 1.0
    assert recipe.training["mini"]["augmentation"]["room"] != 1.0


def test_options_are_read() -> None:
    texts = ["learning_rate=1e-3", "schedule=cosine", "augmentation.room=0.5", "conditioner.queries=5", "freeze=[]"]
    assert assigned(texts) == {
        "training": {"learning_rate": 0.001, "schedule": "cosine", "augmentation": {"room": 0.5}, "freeze": []},
        "parts": {"conditioner": {"queries": 5}},
    }
    deep, long = "[" * 99999, "9" * 5000  # neither is read as a number or list
    assert assigned([f"a={deep}", f"b={long}"])["training"] == {"a": deep, "b": long}
    with pytest.raises(typer.BadParameter, match="augmentation is no mapping"):
        assigned(["augmentation=null", "augmentation.room=1"])
    assert adapter_settings("r=8, alpha=16") == {"r": 8, "alpha": 16}
    assert names(["a, b", "c"]) == ("a", "b", "c") and names([]) is None
