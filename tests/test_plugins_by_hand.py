"""Plugins registered by hand, as in a notebook."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import avsep_zoo
from avsep_zoo.errors import PluginError
from avsep_zoo.plugins import plugin_reports, register_plugin
from avsep_zoo.registry import Registry, registry


class ByHand:
    """A plugin object that registers one front end."""

    def __init__(self, part: str, api: Any = 1) -> None:
        self.part, self.avsep_zoo_api = part, api

    @avsep_zoo.hookimpl
    def avsep_register(self, register: Any) -> None:
        register.front_end(self.part, "avsep_zoo.front_end:StftFrontEnd")


class WrongArgument:
    """A plugin object whose hook asks for something that is not offered."""

    @avsep_zoo.hookimpl
    def avsep_register(self, registry: Any) -> None:
        raise AssertionError("never called")


@pytest.fixture
def fresh_registry() -> Iterator[Registry]:
    """A registry that forgets afterwards what a test registers."""
    registry.cache_clear()
    yield registry()
    registry.cache_clear()


def test_register_by_hand(fresh_registry: Registry) -> None:
    register_plugin(ByHand("hand.stft"), "hand")
    assert fresh_registry.get("front_end", "hand.stft").plugin == "hand"
    report = next(r for r in plugin_reports() if r.name == "hand")
    assert (report.origin, report.status, report.registered) == ("by hand", "ok", ("front_end hand.stft",))
    with pytest.raises(PluginError, match=r"There is a plugin 'hand' already \(ok\); choose another name"):
        register_plugin(ByHand("hand.other"), "hand")


@pytest.mark.parametrize(
    ("plugin", "text"),
    [
        (ByHand("stft"), "registers front_end 'stft', which plugin 'core' has"),
        (ByHand("hand.stft", api="2"), "declares avsep_zoo_api = '2'; give the number of an API, e.g. 1"),
        (ByHand("hand.stft", api=0), "declares avsep_zoo_api = 0; give the number of an API, e.g. 1"),
        (ByHand, "'hand' is the class ByHand; give an instance of it"),
        (object(), "implements no hook"),
        (None, "implements no hook"),
        (
            WrongArgument(),
            "Plugin 'hand' asks avsep_register for registry, which API 1 of avsep-zoo does not give",
        ),
    ],
)
def test_register_by_hand_can_be_tried_again(plugin: Any, text: str, fresh_registry: Registry) -> None:
    """A plugin that is refused leaves no trace, so that a corrected one can take its name."""
    before = dict(fresh_registry.entries)
    with pytest.raises(PluginError, match=text):
        register_plugin(plugin, "hand")
    assert fresh_registry.entries == before
    register_plugin(ByHand("hand.stft"), "hand")
    assert ("front_end", "hand.stft") in fresh_registry.entries


def test_one_object_is_one_plugin(fresh_registry: Registry) -> None:
    """A second name for it is refused, and the first one stays."""
    plugin = ByHand("hand.stft")
    register_plugin(plugin, "hand")
    with pytest.raises(PluginError, match="'again' cannot be registered: ValueError: Plugin already registered"):
        register_plugin(plugin, "again")
    assert ("front_end", "hand.stft") in fresh_registry.entries


class BrokenReader:
    """A plugin object whose reader is no reader."""

    @avsep_zoo.hookimpl
    def avsep_register(self, register: Any) -> None:
        register.reader("broken.data", "json:loads")


def test_a_broken_reader_does_not_keep_others_from_their_data(tmp_path: Path, fresh_registry: Registry) -> None:
    """It is named in a warning where data sets are recognised, and an error only where it is asked for."""
    from avsep_zoo.data.reader import open_data
    from avsep_zoo.data.readers.folder import FolderReader

    (tmp_path / "flute").mkdir()
    (tmp_path / "flute" / "a.wav").touch()
    register_plugin(BrokenReader(), "broken")
    with pytest.warns(UserWarning, match="The reader 'broken.data' was left out"):
        assert isinstance(open_data(tmp_path), FolderReader)
    with pytest.raises(PluginError, match="is no class derived from"):
        open_data(tmp_path, "broken.data")
