"""Names: what may be registered, what is said about a wrong one, and recipes with their variants."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from avsep_zoo.errors import CompositionError, PluginError
from avsep_zoo.recipe import PartConfig, Recipe
from avsep_zoo.registry import Register, Registry, registry

RECIPE = Recipe(
    "mine",
    summary="One.",
    paper="None.",
    cues="a label",
    encoder=PartConfig("mine.cues", {"classes": ["a", "b"], "width": 8}),
    conditioner=PartConfig("mine.film"),
    separator=PartConfig("mask_unet", {"width": 8, "levels": 5}),
    front_end=PartConfig("stft", {"rate": 8000}),
    objective=PartConfig("mine.loss"),
    default_variant="base",
    variants={
        "wide": {"separator": {"width": 16}},
        "other": {"separator": {"name": "mine.net", "depth": 3}, "encoder": {"classes": ["c"]}},
    },
    weights="mine.wide",
)


def registered(*names: str) -> Registry:
    """A registry with encoders of these names and the method ``mine``."""
    register = Register("test")
    for name in names:
        register.encoder(name, "json:loads", "reads")
    register.method(RECIPE)
    result = Registry()
    result.add(register.entries)
    return result


@pytest.mark.parametrize("name", ["iquery.cues", "stft", "mask_unet", "a1.b_2"])
def test_part_names_that_are_taken(name: str) -> None:
    assert [e.name for e in registered(name).list("encoder")] == [name]


@pytest.mark.parametrize("name", ["", "Net", "my-net", "a.b.c", "1net", "net.", "net x"])
def test_part_names_that_are_refused(name: str) -> None:
    with pytest.raises(PluginError, match="use lower-case letters, digits"):
        Register("test").separator(name, "json:loads")


@pytest.mark.parametrize("target", ["json.loads", "a:b:c", json.loads])
def test_targets_that_are_refused(target: Any) -> None:
    """A target is a string, so that listing imports nothing."""
    for register in (Register("test").front_end, Register("test").objective):
        with pytest.raises(PluginError, match="give a string 'package"):
            register("net", target)


def test_a_method_is_a_recipe() -> None:
    with pytest.raises(PluginError, match="registers 'mine' as a method; give an avsep_zoo"):
        Register("test").method("mine")  # type: ignore[arg-type]


def test_entries_of_a_plugin_are_added_all_or_none() -> None:
    """One taken name takes back the others of the same plugin; the message names both owners."""
    target = registered("a.one")
    second = Register("second")
    second.separator("second.net", "json:loads")
    second.encoder("a.one", "json:dumps")
    with pytest.raises(PluginError, match=r"'second' registers encoder 'a\.one', which plugin 'test' has"):
        target.add(second.entries)
    assert target.list("separator") == []
    twice = Register("twice")
    twice.objective("mine", "json:loads")
    twice.objective("mine", "json:loads")
    with pytest.raises(PluginError, match="'twice' registers objective 'mine', which plugin 'twice' has"):
        target.add(twice.entries)


def test_the_same_name_may_mean_parts_of_different_kinds() -> None:
    register = Register("test")
    register.encoder("net", "json:loads")
    register.separator("net", "json:dumps")
    target = Registry()
    target.add(register.entries)
    assert target.part("encoder", "net") is json.loads
    assert target.part("separator", "net") is json.dumps


def test_unknown_names_get_a_suggestion_or_the_list_and_the_failed_plugins() -> None:
    target = registered("iquery.cues", "davis.clip")
    with pytest.raises(CompositionError, match=r"no encoder 'iquery.cue'; did you mean 'iquery.cues'\.$"):
        target.get("encoder", "iquery.cue")
    with pytest.raises(CompositionError, match=r"no encoder 'xyz'; known are davis.clip, iquery.cues\.$"):
        target.get("encoder", "xyz")
    with pytest.raises(CompositionError, match=r"no front end 'stft'; known are none\.$"):
        target.part("front_end", "stft")
    target.failures = {"avsgs": "ImportError: no graph"}
    with pytest.raises(CompositionError, match=r"plugin 'avsgs' failed to load \(ImportError: no graph\)\.$"):
        target.method("avsgs")


def test_targets_are_imported_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And whatever goes wrong in their import names part, plugin and target."""
    (tmp_path / "lazy_target.py").write_text("value = 7\n")
    (tmp_path / "broken_target.py").write_text("def net(:\n")
    (tmp_path / "failing_target.py").write_text("raise RuntimeError('no device')\n")
    monkeypatch.syspath_prepend(tmp_path)
    register = Register("demo")
    register.encoder("fine", "lazy_target:value")
    register.encoder("gone", "lazy_target:other")
    register.encoder("absent", "no_such_package:Net")
    register.encoder("broken", "broken_target:net")
    register.front_end("failing", "failing_target:net")
    target = Registry()
    target.add(register.entries)
    assert "lazy_target" not in sys.modules
    assert target.part("encoder", "fine") == 7
    for kind, name, text in (
        ("encoder", "gone", "has no attribute 'other'"),
        ("encoder", "absent", "No module named 'no_such_package'"),
        ("encoder", "broken", "SyntaxError: invalid syntax"),
        ("front_end", "failing", "RuntimeError: no device"),
    ):
        with pytest.raises(PluginError, match=text) as caught:
            target.part(kind, name)
        start = f"The {kind.replace('_', ' ')} {name!r} of plugin 'demo' cannot be imported from"
        assert str(caught.value).startswith(start)


def test_adapters() -> None:
    register = Register("test")
    register.adapter("mine", "unet", "json:loads")
    target = Registry()
    target.add(register.entries)
    assert target.adapter("mine", "unet") is json.loads
    assert target.adapter("mine", "losses") is None


def test_variants() -> None:
    """A variant changes settings of a part, or puts another part with its own settings in its place."""
    assert RECIPE.variant_names == ("base", "wide", "other")
    assert RECIPE.parts()["separator"] == PartConfig("mask_unet", {"width": 8, "levels": 5})
    assert RECIPE.parts("wide")["separator"] == PartConfig("mask_unet", {"width": 16, "levels": 5})
    assert RECIPE.parts("other")["separator"] == PartConfig("mine.net", {"depth": 3})
    assert RECIPE.parts("other")["encoder"] == PartConfig("mine.cues", {"classes": ["c"], "width": 8})
    assert set(RECIPE.parts()) == {"encoder", "conditioner", "separator", "front_end", "objective"}
    with pytest.raises(CompositionError, match=r"'huge'; it has mine.base, mine.wide, mine.other\.$"):
        RECIPE.parts("huge")


def test_recipes_cannot_be_changed_through_what_they_give() -> None:
    before = json.dumps(RECIPE.to_dict())
    for variant in RECIPE.variant_names:
        parts = RECIPE.parts(variant)
        parts["encoder"].config["classes"].append("z")  # type: ignore[index]
        parts["separator"].to_dict()["width"] = 0
    assert json.dumps(RECIPE.to_dict()) == before


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"name": "My-Method"}, "'My-Method' is not lower-case letters"),
        ({"default_variant": "no motion"}, "'no motion' is not lower-case letters"),
        ({"variants": {"V": {}}}, "'V' is not lower-case letters"),
        ({"variants": {"v": {"net": {}}}}, r"mine.v changes \['net'\]; it can change"),
        ({"name": "compose"}, "'compose' means something else in torch.hub"),
        ({"name": "lambda"}, "'lambda' means something else"),
    ],
)
def test_recipes_that_are_refused(change: dict[str, Any], text: str) -> None:
    with pytest.raises(PluginError, match=text):
        replace(RECIPE, **change)


def test_parts_as_text_mapping_and_config() -> None:
    whole = PartConfig("mask_unet", {"width": 8})
    assert PartConfig.parse("mask_unet") == PartConfig("mask_unet")
    assert PartConfig.parse({"name": "mask_unet", "width": 8}) == whole
    assert PartConfig.parse(whole) is whole
    assert PartConfig.parse(whole.to_dict()) == whole
    for wrong in (3, None, {"width": 8}, {"name": 3}, ["mask_unet"]):
        with pytest.raises(CompositionError, match="give its name, or a mapping with name and settings"):
            PartConfig.parse(wrong)


def test_every_registered_target_exists() -> None:
    """Of the core and of every plugin of this checkout: parts, adapters and converters."""
    for entry in registry().entries.values():
        assert callable(entry.resolve()) or isinstance(entry.target, Recipe), entry
    for name, recipe in registry().methods().items():
        for variant in recipe.variant_names:
            for slot, part in recipe.parts(variant).items():
                assert registry().get(slot, part.name).kind == slot, (name, variant)


@pytest.mark.parametrize(
    ("kind", "target", "why"),
    [
        ("reader", "json:loads", "is no class derived from avsep_zoo.data.reader.Reader"),
        ("detector", "json:JSONDecoder", "is no class derived from avsep_zoo.detection.Detector"),
        ("motion", "avsep_zoo.detection:MotionNet", "lacks __init__, features"),
        ("objective", "avsep_zoo.contracts:Objective", "lacks loss, mix, optimisers"),
    ],
)
def test_a_class_that_breaks_its_contract_is_refused(kind: str, target: str, why: str) -> None:
    """Where the part is asked for, with its plugin's name, and not as an error somewhere in its use."""
    register = Register("test")
    getattr(register, kind)("mine.part", target)
    result = Registry()
    result.add(register.entries)
    with pytest.raises(PluginError, match=f"'mine.part' of plugin 'test', '{target}', {why}"):
        result.part(kind, "mine.part")
