"""Freezing by name: what stops, what goes on, and that what stops does not move at all."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from avsep_zoo.compose import build_part, compose_recipe
from avsep_zoo.contracts import CueBatch
from avsep_zoo.errors import DataError
from avsep_zoo.model import SeparationModel
from avsep_zoo.recipe import PartConfig
from avsep_zoo.training.freeze import freeze, train_mode
from avsep_zoo.training.start import starting_model


def moved(model: SeparationModel, cues: CueBatch, steps: int = 3) -> set[str]:
    """Train on noise with the objective's optimisers; names of the entries that are not what they were."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    objective = build_part("objective", PartConfig.parse(model.parts["objective"]))
    batch = {"sources": torch.randn(2, 3, 8191, generator=torch.Generator().manual_seed(3)), "cues": cues}
    optimisers = objective.optimisers(model, learning_rate=1e-2)["model"]
    train_mode(model)
    for _ in range(steps):
        loss = objective.loss(model, batch)["loss"]
        for optimiser in optimisers:
            optimiser.zero_grad()
        loss.backward()
        for optimiser in optimisers:
            optimiser.step()
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


def own(model: SeparationModel, prefix: str) -> set[str]:
    return {name for name, _ in model.named_parameters() if name.startswith(prefix)}


@pytest.mark.parametrize("slot", ["encoder", "conditioner", "separator", "front_end"])
def test_a_frozen_part_does_not_move_at_all(tiny_model: SeparationModel, tiny_cues: CueBatch, slot: str) -> None:
    """Neither weights nor the statistics of batch norms, while the other parts learn."""
    assert freeze(tiny_model, [slot]) == own(tiny_model, f"{slot}.")
    changed = {name.partition(".")[0] for name in moved(tiny_model, tiny_cues)}
    assert slot not in changed and changed


def test_attention_is_every_attention(tiny_model: SeparationModel, tiny_cues: CueBatch) -> None:
    """Those of torch by their class, those of others by its name."""

    class WindowAttention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.projection = nn.Linear(2, 2)

    tiny_model.separator.window = WindowAttention()
    tiny_model.separator.heads = nn.MultiheadAttention(4, 2)
    frozen = freeze(tiny_model, ["attention"])
    kinds = {name.rpartition("attn")[0] + "attn" if "attn" in name else name for name in frozen}
    layers = [f"conditioner.decoder_layers.{k}.{kind}_attn" for k in (0, 1) for kind in ("self", "cross")]
    others = ["separator.window.projection.weight", "separator.window.projection.bias"]
    others += [f"separator.heads.{name}" for name, _ in tiny_model.separator.heads.named_parameters()]
    assert kinds == {"conditioner.encoder_layers.0.self_attn", *layers, *others}
    changed = moved(tiny_model, tiny_cues)
    assert not changed & frozen
    assert {
        "conditioner.mask_embed.0.weight",
        "conditioner.query_embed.weight",
        "separator.down.0.conv.weight",
    } < changed


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        (
            "separator.down.1*",
            {"separator.down.1.conv.weight", "separator.down.1.norm.weight", "separator.down.1.norm.bias"},
        ),
        (
            "conditioner.mask_embed.[02]",
            {f"conditioner.mask_embed.{k}.{n}" for k in (0, 2) for n in ("weight", "bias")},
        ),
        ("encoder.fc.bias", {"encoder.fc.bias"}),
    ],
)
def test_patterns(tiny_model: SeparationModel, name: str, parameters: set[str]) -> None:
    assert freeze(tiny_model, [name]) == parameters
    assert {n for n, p in tiny_model.named_parameters() if not p.requires_grad} == parameters


def test_freezing_all_leaves_the_rows_of_new_classes(tiny_model: SeparationModel, tiny_cues: CueBatch) -> None:
    from avsep_iquery.expand import add_classes

    model = add_classes(tiny_model, ["harp"])
    freeze(model, ["all", "conditioner.query_embed"])
    cues = CueBatch({**tiny_cues.values, "label": torch.tensor([[3, 1, 2], [0, 3, 1]])})
    assert moved(model, cues) == {"conditioner.query_embed.weight", "encoder.class_vectors.weight"}


def test_what_is_frozen_adds_up_and_survives_a_copy(tiny_model: SeparationModel, tiny_cues: CueBatch) -> None:
    freeze(tiny_model, ["separator"])
    assert freeze(tiny_model, ["encoder.fc"]) == own(tiny_model, "encoder.fc")
    model = copy.deepcopy(tiny_model)
    assert model.frozen == own(model, "separator.") | own(model, "encoder.fc")
    assert not any(name.startswith(("separator.", "encoder.fc.")) for name in moved(model, tiny_cues))


def test_batch_norms_of_a_published_frozen_part_go_on(tiny_parts: dict[str, PartConfig], tiny_cues: CueBatch) -> None:
    """A part that its method freezes keeps collecting statistics, unless it is named here."""
    parts = {**tiny_parts, "encoder": tiny_parts["encoder"].changed({"frozen": True, "optional": []})}
    model = compose_recipe(parts, "iquery.tiny")
    other = copy.deepcopy(model)
    statistics = "encoder.features.bn1.running_mean"
    assert statistics in moved(model, tiny_cues)
    freeze(other, ["encoder.features"])
    assert not any(name.startswith("encoder.features") for name in moved(other, tiny_cues))


def test_nothing_is_dropped_in_a_frozen_part(tiny_parts: dict[str, PartConfig], tiny_cues: CueBatch) -> None:
    parts = {**tiny_parts, "conditioner": tiny_parts["conditioner"].changed({"dropout": 0.5})}
    model = compose_recipe(parts, "iquery.tiny")
    embedding, latent = model.encoder(tiny_cues), torch.randn(2, 16, 4, 4)

    def read() -> Tensor:
        train_mode(model)
        states: Tensor = model.conditioner.read(latent, embedding).layers  # type: ignore[operator]
        return states

    assert not torch.equal(read(), read())
    freeze(model, ["conditioner"])
    assert torch.equal(read(), read())


def test_parts_themselves_stay_in_training_mode(tiny_model: SeparationModel) -> None:
    """It decides what an encoder prepares; what is not frozen is in training mode, too."""
    freeze(tiny_model, ["encoder", "separator.down"])
    tiny_model.eval()
    train_mode(tiny_model)
    slots = dict(tiny_model.named_children())
    assert all(part.training for part in slots.values())
    assert not any(module.training for part in tiny_model.encoder.children() for module in part.modules())
    separator: Any = tiny_model.separator
    assert not separator.down[1].norm.training and separator.up[0].norm.training


@pytest.mark.parametrize("name", ["decoder", "separator.downs*", "", "conditioner.mask_embed.9"])
def test_a_name_of_nothing(tiny_model: SeparationModel, name: str) -> None:
    with pytest.raises(DataError, match=r"called .*; it has attention, all, .*separator, .*conditioner\.mask_embed"):
        freeze(tiny_model, ["encoder", name])
    assert tiny_model.frozen == frozenset() and all(p.requires_grad for p in tiny_model.parameters())


def test_attention_of_a_model_without_any(tiny_model: SeparationModel) -> None:
    tiny_model.conditioner = nn.Linear(2, 2)  # type: ignore[assignment]
    with pytest.raises(DataError, match="'attention'; it has all, "):
        freeze(tiny_model, ["attention"])


def test_freezing_the_published_method_in_full() -> None:
    """All of it by its parts is all of it."""
    model = starting_model("iquery.mini")
    assert freeze(model, ["encoder", "conditioner", "separator"]) == {name for name, _ in model.named_parameters()}
