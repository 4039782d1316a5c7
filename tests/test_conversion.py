"""From foreign files to a card: a small method of two files, and everything that can be wrong with them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor
from typer.testing import CliRunner

import avsep_zoo
from avsep_zoo.cli import app
from avsep_zoo.errors import PluginError, WeightsError
from avsep_zoo.model import SeparationModel
from avsep_zoo.plugins import register_plugin
from avsep_zoo.recipe import PartConfig, Recipe
from avsep_zoo.registry import registry
from avsep_zoo.weights.cards import read_card, write_card
from avsep_zoo.weights.conversion import convert
from avsep_zoo.weights.converter import Converter


def entries(parts: dict[str, dict[str, Tensor]]) -> tuple[dict[str, Tensor], list[str]]:
    """The made-up authors call every part's entries after their network; the tutor only teaches."""
    found: dict[str, Tensor] = {}
    for part, state in parts.items():
        for key, value in state.items():
            slot, _, name = key.partition("/")
            if slot not in ("ear", "eye", "tutor"):
                raise KeyError(f"{part}.{key}")
            found["objective.tutor." + name if slot == "tutor" else name] = value
    return found, []


CONVERTER = Converter(
    parts={"ear": r"ear/", "eye": r"eye/", "tutor": r"tutor/"}, entries=entries, optional=frozenset({"tutor"})
)


@pytest.fixture
def method(tiny_parts: dict[str, PartConfig]) -> Iterator[Recipe]:
    """A method ``small`` with a converter, and others: the variants of ``twins`` have the same shapes."""
    module = ModuleType("small_method_convert")
    module.CONVERTER = CONVERTER  # type: ignore[attr-defined]
    module.NONE = "nothing"  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    recipe = Recipe(
        name="small",
        summary="A small method.",
        paper="none",
        cues="a label",
        default_variant="first",
        variants={"wide": {"separator": {"width": 6}}},
        converter="small_method_convert:CONVERTER",
        **tiny_parts,
    )

    class Plugin:
        @avsep_zoo.hookimpl
        def avsep_register(self, register: Any) -> None:
            register.method(recipe)
            twin = {"twin": {"front_end": {"level": 1.0}}}
            register.method(replace(recipe, name="twins", variants=twin))
            register.method(replace(recipe, name="silent", converter=None))
            register.method(replace(recipe, name="broken", converter="small_method_convert:NONE"))

    registry.cache_clear()
    register_plugin(Plugin(), "small")
    yield recipe
    registry.cache_clear()
    del sys.modules[module.__name__]


@pytest.fixture
def files(tmp_path: Path, tiny_model: SeparationModel) -> dict[str, Path]:
    """What the authors of the small method publish: two files that separate and one that teaches."""
    state = tiny_model.state_dict()
    ear = {f"module.ear/{k}": v for k, v in state.items() if not k.startswith("encoder.")}
    eye = {f"eye/{k}": v for k, v in state.items() if k.startswith("encoder.")}
    contents = {
        "ear.pth": {"state_dict": ear, "epoch": 7, "optimizer": {"lr": 0.1}},
        "eye.pth": eye,
        "tutor.pth": {"model": {"tutor/weight": torch.zeros(3)}},
    }
    for name, content in contents.items():
        torch.save(content, tmp_path / name)
    return {name: tmp_path / name for name in contents}


def change(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Edit the state dict in a file of torch.save."""
    content = torch.load(path, weights_only=True)
    edit(content.get("state_dict", content))
    torch.save(content, path)


def test_files_become_a_card(
    method: Recipe, files: dict[str, Path], tiny_model: SeparationModel, tmp_path: Path
) -> None:
    """The variant is told by shapes; wrappers, prefixes and what only teaches are taken off; values survive."""
    done = convert("small", list(files.values()), tmp_path / "card")
    assert done.card.name == "small.first"
    assert [(f.name, f.part) for f in done.files] == [("ear.pth", "ear"), ("eye.pth", "eye"), ("tutor.pth", "tutor")]
    assert done.unused == ("objective.tutor.weight",)
    loaded = avsep_zoo.load(tmp_path / "card").state_dict()
    expected = tiny_model.state_dict()
    assert done.used == len(expected) == len(loaded)
    assert all(torch.equal(loaded[name], value) for name, value in expected.items())
    assert -1e-6 <= done.check.low < done.check.high <= 1 + 1e-6
    assert done.check.cues == "frames, label"
    said = yaml.safe_load((tmp_path / "card" / "README.md").read_text().split("---\n")[1])["avsep"]["converted"]
    assert [file["sha256"] for file in said["files"]] == [file.sha256 for file in done.files]
    assert sorted(p.name for p in (tmp_path / "card").iterdir()) == ["README.md", "model.safetensors"]


def test_the_same_files_make_the_same_bytes(method: Recipe, files: dict[str, Path], tmp_path: Path) -> None:
    """In whatever order they are given; half precision is another file."""
    given = [files["ear.pth"], files["eye.pth"]]
    one = convert("small.first", given, tmp_path / "one").card
    two = convert("small.first", given[::-1], tmp_path / "two").card
    half = convert("small.first", given, tmp_path / "half", half=True).card
    assert one.sha256 == two.sha256 != half.sha256
    assert half.manifest["bytes"] < 0.7 * one.manifest["bytes"]


def test_two_variants_that_fit_alike(method: Recipe, files: dict[str, Path], tmp_path: Path) -> None:
    """Nothing is guessed: the user says which one the files are of."""
    given = [files["ear.pth"], files["eye.pth"]]
    with pytest.raises(WeightsError, match=r"fit twins.first and twins.twin alike; say .* 'avsep convert twins.first'"):
        convert("twins", given, tmp_path / "card")
    assert convert("twins.twin", given, tmp_path / "card").card.name == "twins.twin"


@pytest.mark.parametrize(
    ("name", "edit", "text"),
    [
        (
            "small",
            lambda s: s.pop("module.ear/separator.up.4.conv.weight"),
            "fit none of small.first, small.wide; name",
        ),
        (
            "small.first",
            lambda s: s.pop("module.ear/separator.up.4.conv.weight"),
            "lack separator.up.4.conv.weight of small.first; give all of a run, or name their variant",
        ),
        ("small.first", lambda s: s.update({"ear/more": torch.ones(1)}), "small.first has no place for more; name"),
        ("small.wide", lambda s: None, r"The shape of .*, the first of \d+ that differ, is \(.*\) in the files and \("),
        ("small", lambda s: s.update({"nose/more": torch.ones(1)}), "entry ear.nose/more is none of small's"),
        (
            "small",
            lambda s: s["module.ear/separator.up.4.conv.weight"].fill_(float("nan")),
            "becomes separator.up.4.conv.weight holds numbers that are not finite; take another checkpoint",
        ),
        (
            "small",
            lambda s: [s[k].zero_() for k in s if k.startswith("module.ear/conditioner.mask_embed")],
            r"gives 0\.5 everywhere; take files of one training run",
        ),
    ],
    ids=["neither", "missing", "extra", "shape", "unknown", "nan", "constant"],
)
def test_files_that_do_not_fit(
    name: str,
    edit: Callable[[dict[str, Any]], Any],
    text: str,
    method: Recipe,
    files: dict[str, Path],
    tmp_path: Path,
) -> None:
    """One sentence says what is wrong, and nothing is written."""
    change(files["ear.pth"], edit)
    with pytest.raises(WeightsError, match=text):
        convert(name, [files["ear.pth"], files["eye.pth"]], tmp_path / "card")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(files)


def test_a_card_that_is_there_is_kept(
    method: Recipe, files: dict[str, Path], tiny_model: SeparationModel, tmp_path: Path
) -> None:
    """Only the card of the same name that has no weights yet gives way."""
    given = [files["ear.pth"], files["eye.pth"]]
    write_card(tmp_path / "other", tiny_model, name="iquery.mine")
    before = (tmp_path / "other" / "README.md").read_bytes()
    with pytest.raises(WeightsError, match=r"other' holds the card iquery.mine already; name another folder"):
        convert("small", given, tmp_path / "other")
    assert (tmp_path / "other" / "README.md").read_bytes() == before
    empty = tmp_path / "weights_cards" / "small.first"
    write_card(empty, tiny_model, name="small.first")
    (empty / "model.safetensors").unlink()
    text = (empty / "README.md").read_text()
    kept = [
        line for line in text.splitlines(keepends=True) if not line.startswith(("  file:", "  bytes:", "  sha256:"))
    ]
    (empty / "README.md").write_text("".join(kept))
    assert read_card(empty).sha256 is None
    assert convert("small", given, empty).card.sha256 is not None
    with pytest.raises(WeightsError, match=r"holds the card small.first already"):
        convert("small", given, empty)


def test_methods_without_a_converter(method: Recipe, files: dict[str, Path], tmp_path: Path) -> None:
    """Nobody publishes files for them, or the plugin is wrong."""
    with pytest.raises(WeightsError, match="silent has no converter"):
        convert("silent", [files["ear.pth"]], tmp_path / "card")
    with pytest.raises(WeightsError, match="is of the type str; report it to the author of the plugin small"):
        convert("broken", [files["ear.pth"]], tmp_path / "card")
    for parts, optional in (({}, frozenset[str]()), ({"ear": "ear/"}, frozenset({"eye"}))):
        with pytest.raises(PluginError, match="The converter has the parts"):
            Converter(parts=parts, entries=entries, optional=optional)  # type: ignore[arg-type]


def test_the_command(method: Recipe, files: dict[str, Path], tmp_path: Path) -> None:
    """Several files behind one --checkpoint; a table for people, one document for programs, usage errors apart."""
    run = CliRunner().invoke
    given = [str(files[name]) for name in ("ear.pth", "eye.pth", "tutor.pth")]
    done = run(app, ["convert", "small", "--checkpoint", *given, "-o", str(tmp_path / "card")])
    assert done.exit_code == 0, done.output
    assert "none is missing; 1 are not used" in done.stdout
    assert "not used: objective.tutor.weight" in done.stdout
    told = run(app, ["convert", "small", "--checkpoint", *given, "-o", str(tmp_path / "two"), "--json"])
    assert '"missing": []' in told.stdout and '"part": "ear"' in told.stdout
    assert run(app, ["convert", "small", "-o", str(tmp_path / "three")]).exit_code == 2
    assert run(app, ["convert", "small", "--checkpoint", given[0]]).exit_code == 2
    again = run(app, ["convert", "small", "--checkpoint", *given, "-o", str(tmp_path / "card")])
    assert (again.exit_code, again.stdout) == (1, "")
    assert len(again.stderr.splitlines()) == 1
