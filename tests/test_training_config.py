"""Settings of the trainer, its learning rates, and plans in YAML."""

from __future__ import annotations

import math
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import yaml

from avsep_zoo.errors import DataError
from avsep_zoo.load import methods
from avsep_zoo.training.config import TrainingConfig
from avsep_zoo.training.plan import Plan, merged, read_plan
from avsep_zoo.training.schedule import learning_rate_factor


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stepz": 1}, "no setting 'stepz'; did you mean 'steps'"),
        ({"xyz": 1}, "no setting 'xyz'; it has accumulate, augmentation, batch, "),
        ({"steps": 0}, "steps is 0; give at least 1"),
        ({"steps": "many"}, "steps is 'many'; give a whole number"),
        ({"steps": True}, "steps is True; give a whole number"),
        ({"steps": None}, "steps is None; give a whole number"),
        ({"batch": 2.5}, "batch is 2.5; give a whole number"),
        ({"sources": 1}, "sources is 1; give at least 2"),
        ({"workers": -1}, "workers is -1; give at least 0"),
        ({"seed": 2**63}, r"give less than 2\*\*63"),
        ({"accumulate": 0}, "accumulate is 0; give at least 1"),
        ({"batch": 6, "accumulate": 4}, "batch of 6 mixtures cannot be taken in 4 equal parts"),
        ({"learning_rate": 0}, "learning_rate is 0; give a number above 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan; give a number"),
        ({"learning_rate": "1e-x"}, "learning_rate is '1e-x'; give a number"),
        ({"clip_norm": -1}, "clip_norm is -1; give a number of at least 0"),
        ({"clip_norm": None}, "clip_norm is None; give a number"),
        ({"ema": 1}, "ema is 1; give a number of at least 0 and below 1"),
        ({"solos": 1.0}, "solos is 1.0; give a number of at least 0 and below 1"),
        ({"solos": -0.1}, "solos is -0.1; give a number of at least 0 and below 1"),
        ({"solos": "half"}, "solos is 'half'; give a number"),
        ({"solos": None}, "solos is None; give a number"),
        ({"decay": 0}, "decay is 0; give a number above 0, at most 1"),
        ({"schedule": "cosin"}, "schedule is 'cosin'; give cosine"),
        ({"schedule": ["step"]}, r"schedule is \['step'\]; give a text"),
        ({"schedule": "step"}, r"milestones is \[\]; give at least one step"),
        ({"milestones": [5, 3]}, r"milestones is \[5, 3\]; give steps in ascending order"),
        ({"milestones": 5}, "milestones is 5; give a list"),
        ({"precision": "fp8"}, "precision is 'fp8'; give "),
        ({"half": "yes"}, "half is 'yes'; give true or false"),
        ({"freeze": "separator"}, "freeze is 'separator'; give a list"),
        ({"freeze": [1]}, r"freeze is \[1\]; give a list of names"),
        ({"lora": 8}, "lora is 8; give a mapping with r"),
        ({"augmentation": [1]}, r"augmentation is \[1\]; give a mapping"),
        ({"augmentation": {"rom": 1}}, "augmentation has no setting 'rom'; did you mean 'room'"),
        ({"augmentation": {"gain": "loud"}}, "augmentation setting gain is 'loud'; give a number"),
        ({"augmentation": {"noise": -1}}, "augmentation setting noise is -1; give a number of at least 0"),
        ({"augmentation": {"noise": True}}, "augmentation setting noise is True; give a number"),
    ],
)
def test_settings_are_checked(values: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        TrainingConfig.from_mapping(values)
    assert "\n" not in str(caught.value)


def test_presets_of_all_methods_are_valid() -> None:
    presets = [settings for recipe in methods().values() for settings in recipe.training.values()]
    assert presets
    for settings in presets:
        config = TrainingConfig.from_mapping(settings)
        assert TrainingConfig.from_mapping(config.to_dict()) == config


@pytest.mark.parametrize(
    ("change", "factors"),
    [
        ({}, [1, 1, 1, 1, 1]),
        ({"warmup": 2}, [0.5, 1, 1, 1, 1]),
        ({"schedule": "cosine", "warmup": 1}, [1, 1, None, 0.505, None]),
        ({"schedule": "linear"}, [1, 0.8, 0.6, 0.4, 0.2]),
        ({"schedule": "step", "milestones": [1, 3], "decay": 0.5}, [1, 0.5, 0.5, 0.25, 0.25]),
    ],
)
def test_learning_rates(change: dict[str, Any], factors: list[float | None]) -> None:
    config = TrainingConfig.from_mapping({"steps": 5, **change})
    for step, factor in enumerate(factors):
        assert factor is None or learning_rate_factor(step, config) == pytest.approx(factor)


def test_cosine_ends_at_one_percent() -> None:
    config = TrainingConfig(steps=1000, schedule="cosine")
    assert learning_rate_factor(0, config) == 1
    assert learning_rate_factor(250, config) == pytest.approx(0.01 + 0.99 * (1 + math.cos(math.pi / 4)) / 2)
    assert learning_rate_factor(999, config) == pytest.approx(0.01, abs=1e-4)


def test_plan_is_read(tmp_path: Path) -> None:
    """Numbers as people write them, no as a text, texts for the card and the data, a byte order mark."""
    file = tmp_path / "plan.yaml"
    lines = (
        "\ufeffmethod: iquery.mini",
        "from: some/card",
        "data: {folder: Müsik, dataset: music}",
        "add_classes: [theremin]",
        "parts: {objective: {loss: l2}}",
        "training: {learning_rate: 1e-4, clip_norm: 2, precision: no, half: true}",
    )
    file.write_bytes("\r\n".join(lines).encode())
    assert read_plan(file) == Plan(
        method="iquery.mini",
        card="some/card",
        data="Müsik",
        dataset="music",
        add_classes=("theremin",),
        parts={"objective": {"loss": "l2"}},
        training={"learning_rate": 1e-4, "clip_norm": 2, "precision": "no", "half": True},
    )
    file.write_text("")
    assert read_plan(file) == Plan()


def test_written_settings_are_read_back(tmp_path: Path) -> None:
    """Small numbers, no as a precision, nothing, lists."""
    adapters = MappingProxyType({"r": 2, "targets": ("a", "b")})
    config = TrainingConfig(
        learning_rate=1e-5, precision="no", milestones=(3, 5), ema=1e-12, freeze=("a", "b"), lora=adapters
    )
    file = tmp_path / "plan.yaml"
    file.write_text(yaml.safe_dump({"training": config.to_dict()}))
    read = TrainingConfig.from_mapping(read_plan(file).training)
    assert (read.to_dict(), read.milestones, read.freeze) == (config.to_dict(), (3, 5), ("a", "b"))
    assert read.lora == {"r": 2, "targets": ["a", "b"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: 5", "has 'steps' at its top; put it under training"),
        ("objective: {loss: l2}", "has 'objective' at its top; put it under parts"),
        ("metod: iquery", "has 'metod' at its top; it can have method"),
        ("1: 2", "has 1 at its top; it can have method, from, "),
        ("- a", r"holds \['a'\]; give a mapping with method, "),
        ("training: 5", "has training 5; give a mapping"),
        ("parts: {objectiv: {loss: l2}}", "has parts.objectiv .*; give settings of objective"),
        ("parts: {objective: l2}", "has parts.objective 'l2'; give settings of objective"),
        ("from: [a]", r"has from \['a'\]; give a text, or a mapping with card, sha256"),
        ("from: {crad: a}", "has from.crad; it can have card"),
        ("data: {folder: 5}", "has data.folder 5; give a text"),
        ("add_classes: theremin", "has add_classes 'theremin'; give a list of names"),
        ("method: 5", "has method 5; give a name"),
        ("training: {steps: 5, batch: 2, steps: 6}", r"cannot be read \(steps is there twice"),
        ("false", "holds False; give a mapping"),
        ("a: " + "[" * 5000, "cannot be read"),
        ("a: [", "cannot be read"),
        ("!!python/object/apply:os.system [true]", "cannot be read"),
        ("a: \x00", "cannot be read"),
    ],
)
def test_plans_are_checked(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_plan(file)
    assert "\n" not in str(caught.value)


def test_plan_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_plan(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(DataError, match="cannot be read"):
        read_plan(tmp_path / "binary.yaml")


def test_later_settings_win() -> None:
    """Mappings entry by entry, unless another part is named."""
    base = {"steps": 5, "augmentation": {"room": 0.5, "noise": 0.1}, "objective": {"loss": "l1", "mixture": "sum"}}
    assert merged(base, {"augmentation": {"room": 1}})["augmentation"] == {"room": 1, "noise": 0.1}
    assert merged(base, {"augmentation": None})["augmentation"] is None
    assert merged(base, {"objective": {"name": "other"}})["objective"] == {"name": "other"}
    assert base["augmentation"] == {"room": 0.5, "noise": 0.1}
