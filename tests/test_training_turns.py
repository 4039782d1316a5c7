"""An objective with a critic of its own, a bank and two turns: order, who is updated, and going on exactly."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avsep_zoo import hookimpl
from avsep_zoo.compose import compose_recipe
from avsep_zoo.contracts import Objective
from avsep_zoo.errors import DataError
from avsep_zoo.model import SeparationModel
from avsep_zoo.plugins import register_plugin
from avsep_zoo.recipe import PartConfig
from avsep_zoo.registry import Register, registry
from avsep_zoo.training.config import TrainingConfig
from avsep_zoo.training.loop import train

ROWS = 128
EVENTS: list[tuple[str, bool, bool, bool]] = []


class AdversarialMasks(Objective):
    """Masks that a critic cannot tell from ideal ones, by their mean over time; the bank keeps earlier estimates."""

    def __init__(self, *, turns: int = 2) -> None:
        super().__init__()
        self.both = turns == 2
        self.critic = nn.Sequential(nn.Linear(ROWS, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1))
        self.register_buffer("bank", torch.zeros(8, ROWS))
        self.register_buffer("filled", torch.zeros((), dtype=torch.long))
        self.bank: Tensor
        self.filled: Tensor

    def mix(self, sources: Tensor) -> tuple[Tensor, Tensor]:
        return sources.sum(dim=1), sources

    def turns(self, step: int) -> tuple[str, ...]:
        return ("critic", "model") if self.both else ("model", "nobody")

    def loss(self, model: Any, batch: Mapping[str, Any], turn: str = "model") -> dict[str, Tensor]:
        critics, others = list(self.critic.parameters()), list(model.parameters())
        fresh = all(p.grad is None for p in (critics if turn == "critic" else others))
        EVENTS.append((turn, critics[0].requires_grad, any(p.requires_grad for p in others), fresh))
        mixture, sources = self.mix(batch["sources"])
        spectrum = model.front_end.analyse(mixture)
        real = model.front_end.warp(model.front_end.stft(sources).abs()) / spectrum.warped.clamp_min(1e-3)
        fake = model.estimate(spectrum, batch["cues"]).values
        real, fake = (masks.clamp(0, 1).mean(dim=-1).flatten(0, 1) for masks in (real, fake))
        if turn == "critic":
            earlier = self.bank[: int(self.filled)] if self.filled else fake.detach()
            self.bank = torch.cat((fake.detach(), self.bank))[:8]
            self.filled = (self.filled + len(fake)).clamp_max(8)
            real_loss = F.softplus(-self.critic(real)).mean()
            return {"loss": real_loss + F.softplus(self.critic(earlier)).mean(), "real": real_loss}
        fooled = F.softplus(-self.critic(fake)).mean()
        return {"loss": F.l1_loss(fake, real) + 0.1 * fooled, "fooled": fooled}

    def optimisers(self, model: Any, *, learning_rate: float | None = None) -> dict[str, list[torch.optim.Optimizer]]:
        rate = learning_rate or 1e-3
        trained = [p for p in model.parameters() if p.requires_grad]
        heads, rest = trained[::2], trained[1::2]
        return {
            "model": [torch.optim.Adam(heads, rate), torch.optim.SGD(rest, rate, momentum=0.9)],
            "critic": [torch.optim.Adam(self.critic.parameters(), 10 * rate)],
        }


class Plugin:
    """What a package with this objective would register."""

    @hookimpl
    def avsep_register(self, register: Register) -> None:
        register.objective("adversarial.masks", f"{__name__}:AdversarialMasks", "masks that a critic cannot tell")


@pytest.fixture(scope="module", autouse=True)
def plugin() -> Iterator[None]:
    """The plugin, as long as the tests of this file run."""
    register_plugin(Plugin(), "adversarial")
    yield
    registry.cache_clear()


@pytest.fixture
def parts(tiny_parts: dict[str, PartConfig]) -> dict[str, PartConfig]:
    return {**tiny_parts, "objective": PartConfig("adversarial.masks")}


def model_of(parts: dict[str, PartConfig], seed: int = 0) -> SeparationModel:
    torch.manual_seed(seed)
    return compose_recipe(parts, "adversarial.tiny")


def config(**change: Any) -> TrainingConfig:
    small: dict[str, Any] = {
        "steps": 5, "batch": 2, "validate_every": 2, "validation_mixtures": 2, "workers": 0, "clip_norm": 0.5,
        "ema": 0.9, "accumulate": 2, "augmentation": {"noise": 0.5, "drop_frames": 0.5, "drop_label": 0.5},
    }  # fmt: skip
    return TrainingConfig.from_mapping({**small, **change})


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


def test_both_sides_are_updated_in_order(parts: dict[str, PartConfig], tones: Path, tmp_path: Path) -> None:
    """In each step the critic's parts first, then the model's; a turn sees gradients of its own side alone."""
    EVENTS.clear()
    model = model_of(parts)
    before = {name: value.clone() for name, value in model.named_parameters()}
    run = train(model, tones, tmp_path / "run", config(steps=2))
    critic, own = ("critic", True, False), ("model", False, True)
    assert [event[:3] for event in EVENTS] == [critic, critic, own, own] * 2
    assert [event[3] for event in EVENTS] == [True, False] * 4  # gradients start anew in each turn
    saved = torch.load(run / "checkpoint.pt", weights_only=True)
    assert all(not torch.equal(before[name], saved["model"][name]) for name in before if "query" in name)
    torch.manual_seed(0)
    assert not torch.equal(saved["objective"]["critic.0.weight"], AdversarialMasks().critic[0].weight)
    assert saved["objective"]["filled"] == 8 and saved["objective"]["bank"].any()
    (first, _) = (record for record in read_log(run) if "loss" in record)
    assert first.keys() > {"loss", "fooled", "gradient_norm", "learning_rate", "critic.loss", "critic.real"}
    assert (first["learning_rate"], first["critic.learning_rate"]) == (1e-3, pytest.approx(1e-2))


def test_interrupted_run_goes_on_exactly(parts: dict[str, PartConfig], tones: Path, tmp_path: Path) -> None:
    """Critic, bank, both kinds of optimisers, average and dropout are as if nothing had happened."""
    whole = train(model_of(parts), tones, tmp_path / "whole", config())

    def stop(record: Mapping[str, Any]) -> None:
        if record["step"] == 3:
            raise KeyboardInterrupt

    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(model_of(parts), tones, run, config(), progress=stop)
    train(model_of(parts, seed=7), tones, run, config())
    assert read_log(run) == read_log(whole)
    for name in ("model.safetensors", "last/model.safetensors"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()
    assert same(torch.load(run / "checkpoint.pt"), torch.load(whole / "checkpoint.pt"))


def test_turn_without_optimisers_is_named(parts: dict[str, PartConfig], tones: Path, tmp_path: Path) -> None:
    parts["objective"] = PartConfig("adversarial.masks", {"turns": 1})
    with pytest.raises(DataError, match="takes a turn 'nobody' and has optimisers for model, critic"):
        train(model_of(parts), tones, tmp_path / "run", config())


def test_method_that_needs_solos(parts: dict[str, PartConfig], tones: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"adversarial\.tiny cannot learn from mixtures only; set members to 1"):
        train(model_of(parts), tones, tmp_path / "run", config(members=2))
    assert not (tmp_path / "run").exists()
