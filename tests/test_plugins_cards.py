"""Weights cards that travel in a plugin's package."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import avsep_zoo
from avsep_zoo.errors import PluginError, WeightsError
from avsep_zoo.model import SeparationModel
from avsep_zoo.plugins import plugin_reports, register_plugin
from avsep_zoo.recipe import PartConfig
from avsep_zoo.registry import registry
from avsep_zoo.weights.cards import card_folder, write_card


class WithCards:
    """A plugin object with a method and folders of cards."""

    def __init__(self, parts: dict[str, PartConfig], *folders: Any, name: str = "mine") -> None:
        self.recipe = replace(avsep_zoo.methods()["iquery"], **parts, name=name, variants={}, weights=f"{name}.small")
        self.folders = folders

    @avsep_zoo.hookimpl
    def avsep_register(self, register: Any) -> None:
        register.method(self.recipe)
        for folder in self.folders:
            register.cards(folder)


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    """Forget afterwards what a test registers."""
    registry.cache_clear()
    yield
    registry.cache_clear()


def test_a_method_loads_by_its_plugin_s_card(
    tmp_path: Path, tiny_model: SeparationModel, tiny_parts: dict[str, PartConfig]
) -> None:
    """From any of its folders, a string or a path, whether they exist or not; the report names them."""
    first, second = tmp_path / "first", tmp_path / "second"
    write_card(second / "mine.small", tiny_model, name="mine.small")
    register_plugin(WithCards(tiny_parts, first, str(second)), "mine")
    assert card_folder("mine.small") == second / "mine.small"
    assert avsep_zoo.load("mine").name == "mine.small"
    report = next(report for report in plugin_reports() if report.name == "mine")
    assert report.registered == ("method mine", f"cards {first}", f"cards {second}")


def test_a_plugin_has_no_card_for_a_method_of_another(
    tmp_path: Path, tiny_model: SeparationModel, tiny_parts: dict[str, PartConfig]
) -> None:
    """Neither under a new name nor under that of a card in the checkout, nor by a name that leads elsewhere."""
    for name in ("iquery.better", "iquery.mini", "other.small"):
        write_card(tmp_path / "cards" / name, tiny_model, name=name)
    bundled = card_folder("iquery.mini")
    register_plugin(WithCards(tiny_parts, tmp_path / "cards"), "mine")
    register_plugin(WithCards(tiny_parts, name="other"), "other")
    assert card_folder("iquery.better") is None
    assert card_folder("other.small") is None
    assert card_folder("iquery.mini") == bundled
    assert card_folder("mine.small/../iquery.better") is None
    with pytest.raises(WeightsError, match="no weights 'iquery\\.better' here"):
        avsep_zoo.load("iquery", weights="iquery.better")


@pytest.mark.parametrize("folder", ["cards", Path("cards"), "", None, 3])
def test_a_folder_of_cards_is_an_absolute_path(folder: Any, tiny_parts: dict[str, PartConfig]) -> None:
    text = f"Plugin 'mine' names {str(folder)!r} as its folder of weights cards; give an absolute path, "
    with pytest.raises(PluginError, match=re.escape(text)):
        register_plugin(WithCards(tiny_parts, folder), "mine")
    assert "mine" not in avsep_zoo.methods()
