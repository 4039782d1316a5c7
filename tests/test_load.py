"""From a name or a folder to a model, and never an untrained one in place of missing weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import avsep_zoo
from avsep_zoo.errors import CompositionError, WeightsError
from avsep_zoo.model import SeparationModel
from avsep_zoo.weights.cards import card_folder, write_card


def same_weights(first: SeparationModel, second: SeparationModel) -> bool:
    one, two = first.state_dict(), second.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


@pytest.fixture
def checkout(tmp_path: Path, tiny_model: SeparationModel, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with the cards iquery.mini and iquery.other of the tiny model, and one of another method."""
    for name in ("iquery.mini", "iquery.other", "davis.music"):
        write_card(tmp_path / "weights_cards" / name, tiny_model, name=name)
    monkeypatch.setattr("avsep_zoo.plugins.checkout_root", lambda: tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_by_path(card: Path, tiny_model: SeparationModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path object, a text with a separator, or the name of a folder here that no method is called after."""
    monkeypatch.chdir(card.parent)
    for path in (card, str(card), Path("card"), "./card", "card"):
        assert same_weights(avsep_zoo.load(path), tiny_model)
    untrained = avsep_zoo.load(card, weights=None)
    assert untrained.parts == tiny_model.parts
    assert not same_weights(untrained, tiny_model)
    with pytest.raises(WeightsError, match=r"Two cards are given, iquery.tiny and 'other'; give one of them"):
        avsep_zoo.load(card, weights="other")
    with pytest.raises(WeightsError, match=r"cannot be read .*; give the folder of a weights card"):
        avsep_zoo.load("./cards")
    card.rename(card.parent / "iquery")
    with pytest.raises(WeightsError, match=r"Nobody publishes weights iquery.music .* convert the files"):
        avsep_zoo.load("iquery.music")


def test_by_name(checkout: Path, tiny_model: SeparationModel) -> None:
    """A method means its published weights, a variant its own; ``weights`` may name another card."""
    for name, weights, expected in (
        ("iquery", "default", "iquery.mini"),
        ("iquery.mini", "default", "iquery.mini"),
        ("iquery", "iquery.other", "iquery.other"),
        ("iquery.music", checkout / "weights_cards" / "iquery.other", "iquery.other"),
    ):
        model = avsep_zoo.load(name, weights=weights)
        assert model.name == expected
        assert same_weights(model, tiny_model)
    assert avsep_zoo.load("iquery", device="meta").device == torch.device("meta")


@pytest.mark.parametrize("weights", ["default", "iquery.none", "no/such/folder"])
def test_missing_weights_are_an_error(weights: str, checkout: Path) -> None:
    """Never an untrained model in their place."""
    with pytest.raises(WeightsError, match=r"There are no weights .* here; there are weights for iquery.mini; give"):
        avsep_zoo.load("iquery.music", weights=weights)


def test_without_any_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avsep_zoo.plugins.checkout_root", lambda: tmp_path)
    with pytest.raises(WeightsError, match=r"no weights 'iquery.mini' here; give .* or weights=None for an untr"):
        avsep_zoo.load("iquery")
    monkeypatch.setattr("avsep_zoo.plugins.checkout_root", lambda: None)
    with pytest.raises(WeightsError, match=r"no weights 'iquery.mini' here"):
        avsep_zoo.load("iquery")


def test_a_card_of_another_method(checkout: Path) -> None:
    with pytest.raises(WeightsError, match=r"The card davis.music is not one of iquery; load it by its own name"):
        avsep_zoo.load("iquery", weights="davis.music")


@pytest.mark.parametrize("name", ["../iquery.mini", "iquery.mini/..", "iquery", "IQUERY.MINI", ""])
def test_names_that_are_no_cards(name: str, checkout: Path) -> None:
    assert card_folder(name) is None
    assert card_folder("iquery.mini") == checkout / "weights_cards" / "iquery.mini"


@pytest.mark.parametrize("weights", [None, "default"])
def test_unknown_names(weights: str | None) -> None:
    with pytest.raises(CompositionError, match="There is no method 'iqury'; did you mean 'iquery'"):
        avsep_zoo.load("iqury", weights=weights)
    with pytest.raises(CompositionError, match=r"no variant 'maxi'; it has iquery.music, .*iquery.mini\."):
        avsep_zoo.load("iquery.maxi", weights=weights)


def test_an_untrained_model_is_asked_for() -> None:
    """``weights=None`` builds the named variant, in eval mode."""
    model = avsep_zoo.load("iquery.mini", weights=None)
    assert (model.name, model.training) == ("iquery.mini", False)
    assert len(model.classes) > 1
    assert model.parts["objective"]["name"] == "iquery.masks"
