"""The model a run starts from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from avsep_zoo.errors import AvsepError, CompositionError, DataError, PluginError, WeightsError
from avsep_zoo.load import methods
from avsep_zoo.model import SeparationModel
from avsep_zoo.recipe import PartConfig, Recipe
from avsep_zoo.registry import Entry, registry
from avsep_zoo.training.start import starting_model
from avsep_zoo.weights.cards import write_card


def same_weights(one: SeparationModel, other: SeparationModel) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_an_untrained_model_is_the_callers_draw() -> None:
    models = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        models.append(starting_model("iquery.mini"))
    assert same_weights(models[0], models[1]) and not same_weights(models[0], models[2])
    assert models[0].name == "iquery.mini" and not models[0].training
    assert models[0].parts["objective"]["recognition"] == 0.05


def test_settings_that_are_changed() -> None:
    """A setting of a part is changed, another part comes with these settings alone."""
    changes = {"conditioner": {"decoder_layers": 1}, "objective": {"loss": "l2"}, "separator": {"name": "mask_unet"}}
    changes["separator"] |= {"levels": 5}
    model = starting_model("iquery.mini", overrides=changes)
    assert model.parts["objective"] == {**methods()["iquery"].parts("mini")["objective"].to_dict(), "loss": "l2"}
    assert model.parts["separator"]["levels"] == 5 and model.parts["separator"]["width"] == 24
    assert len(model.conditioner.decoder_layers) == 1  # type: ignore[arg-type]
    assert methods()["iquery"].parts("mini")["conditioner"].config["decoder_layers"] == 2


def test_another_part_has_settings_of_its_own() -> None:
    part = PartConfig("mask_unet", {"width": 24})
    assert part.changed({"name": "davis_unet", "depth": 2}) == PartConfig("davis_unet", {"depth": 2})
    assert part.changed({"name": "mask_unet", "levels": 5}) == PartConfig("mask_unet", {"width": 24, "levels": 5})


@pytest.mark.parametrize("method", [None, "iquery", "iquery.music"])
def test_starting_from_a_card(card: Path, tiny_model: SeparationModel, method: str | None) -> None:
    model = starting_model(method, card=card)
    assert same_weights(model, tiny_model) and model.parts == tiny_model.parts


def test_a_card_with_settings_that_keep_its_shapes(card: Path, tiny_model: SeparationModel) -> None:
    changes = {"conditioner": {"dropout": 0.2}, "objective": {"loss": "l2"}}
    model = starting_model(None, card=card, overrides=changes)
    assert same_weights(model, tiny_model)
    assert model.conditioner.decoder_layers[0].dropout.p == 0.2  # type: ignore[index, union-attr]
    assert model.parts["objective"]["loss"] == "l2"


def test_a_card_with_settings_that_do_not_fit(card: Path) -> None:
    with pytest.raises(
        DataError, match=r"iquery.tiny do not fit a model with other conditioner.feedforward: \d+ entries"
    ):
        starting_model(None, card=card, overrides={"conditioner": {"feedforward": 8}})


def test_new_classes_behind_those_of_a_card(card: Path, tiny_model: SeparationModel) -> None:
    model = starting_model("iquery", card=card, add_classes=["theremin", "kalimba"])
    assert model.classes == (*tiny_model.classes, "theremin", "kalimba")
    rows, old = model.conditioner.query_embed, tiny_model.conditioner.query_embed
    assert torch.equal(rows.weight[:4], old.weight) and rows.trained_rows == (4, 5)  # type: ignore[index, union-attr]
    assert starting_model("iquery.mini", add_classes=["theremin"]).classes[-1] == "theremin"


@pytest.fixture
def registered() -> Iterator[dict[tuple[str, str], Entry]]:
    entries = registry().entries
    before = dict(entries)
    yield entries
    entries.clear()
    entries.update(before)


def recipe(name: str, parts: dict[str, PartConfig], **more: Any) -> Recipe:
    return Recipe(name, "One.", "Paper.", "Label.", **parts, **more)


def test_the_card_of_another_method_gives_its_weights(
    registered: dict[Any, Entry], tiny_parts: dict[str, PartConfig], card: Path, tiny_model: SeparationModel
) -> None:
    """The parts are those of the method that is named, with what is changed."""
    parts = tiny_parts | {"objective": tiny_parts["objective"].changed({"loss": "l2"})}
    registered["method", "twin"] = Entry("method", "twin", recipe("twin", parts), "", "test")
    model = starting_model("twin", card=card, overrides={"conditioner": {"dropout": 0.2}})
    assert model.name == "twin.default" and not model.training
    assert same_weights(model, tiny_model)
    assert model.parts["objective"]["loss"] == "l2" and model.parts["conditioner"]["dropout"] == 0.2


@pytest.mark.parametrize(
    ("slot", "change", "message"),
    [
        ("separator", {"width": 8}, r"of iquery.tiny do not fit odd.default: \d+ entries .* take a variant of odd"),
        ("encoder", {"classes": ["violin", "drum", "flute"]}, "iquery.tiny knows other classes than odd.default; take"),
    ],
)
def test_the_card_of_another_method_that_does_not_fit(
    registered: dict[Any, Entry],
    tiny_parts: dict[str, PartConfig],
    card: Path,
    slot: str,
    change: dict[str, Any],
    message: str,
) -> None:
    parts = tiny_parts | {slot: tiny_parts[slot].changed(change)}
    registered["method", "odd"] = Entry("method", "odd", recipe("odd", parts), "", "test")
    with pytest.raises(DataError, match=message):
        starting_model("odd", card=card)


def test_a_method_that_cannot_be_expanded(
    registered: dict[Any, Entry], tiny_parts: dict[str, PartConfig], tmp_path: Path, tiny_model: SeparationModel
) -> None:
    registered["method", "plain"] = Entry("method", "plain", recipe("plain", tiny_parts), "", "test")
    message = "cannot be given new classes; methods that can: iquery"
    with pytest.raises(DataError, match=f"plain.default {message}"):
        starting_model("plain", add_classes=["theremin"])
    write_card(tmp_path / "own", tiny_model, name="composed")
    with pytest.raises(DataError, match=f"composed {message}"):
        starting_model(None, card=tmp_path / "own", add_classes=["theremin"])


def test_an_expansion_that_cannot_be_imported(registered: dict[Any, Entry], tiny_parts: dict[str, PartConfig]) -> None:
    broken = recipe("broken", tiny_parts, add_classes="avsep_zoo.nowhere:add")
    registered["method", "broken"] = Entry("method", "broken", broken, "", "test")
    with pytest.raises(PluginError, match=r"plugin 'test' cannot be imported from 'avsep_zoo\.nowhere:add'"):
        starting_model("broken", add_classes=["theremin"])


@pytest.mark.parametrize("target", ["module", "a:b:c", print])
def test_an_expansion_that_is_no_target(tiny_parts: dict[str, PartConfig], target: Any) -> None:
    with pytest.raises(PluginError, match="adds classes by"):
        recipe("broken", tiny_parts, add_classes=target)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"method": None}, DataError, "Neither a method nor a card"),
        ({"method": "nothing"}, CompositionError, "no method 'nothing'"),
        ({"method": "iquery.nothing"}, CompositionError, "no variant 'nothing'"),
        (
            {"method": "iquery", "overrides": {"decoder": {}}},
            CompositionError,
            "no part 'decoder' to change; there are",
        ),
        ({"method": "iquery", "overrides": {"conditioner": {"query": 3}}}, CompositionError, "did you mean 'queries'"),
        ({"method": "iquery", "card": "no/where"}, WeightsError, "cannot be read"),
        ({"method": "other", "card": "CARD"}, CompositionError, "no method 'other'"),
    ],
)
def test_what_cannot_start(card: Path, arguments: dict[str, Any], error: type[AvsepError], message: str) -> None:
    given = {**arguments, "card": card} if arguments.get("card") == "CARD" else arguments
    with pytest.raises(error, match=message):
        starting_model(**given)
