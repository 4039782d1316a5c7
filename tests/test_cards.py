"""Weights cards: written, read, damaged in every way."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import avsep_zoo
from avsep_zoo.compose import compose
from avsep_zoo.contracts import CueBatch
from avsep_zoo.errors import CompositionError, WeightsError
from avsep_zoo.model import SeparationModel
from avsep_zoo.recipe import PartConfig
from avsep_zoo.weights.cards import file_sha256, read_card, write_card
from avsep_zoo.weights.download import read_weights


def same_weights(first: SeparationModel, second: SeparationModel) -> bool:
    one, two = first.state_dict(), second.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the front matter of a card."""
    _, head, text = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    front = yaml.safe_load(head)
    change(front)
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(front)}---\n{text}", encoding="utf-8")


def vouch(folder: Path) -> None:
    """Make the card say what its weights file is."""
    weights = folder / "model.safetensors"
    edit(folder, lambda f: f["avsep"].update(sha256=file_sha256(weights), bytes=weights.stat().st_size))


def test_round_trip(card: Path, tiny_model: SeparationModel) -> None:
    """Same parts, weights, name, mode and answer; the card leaves nothing else in its folder."""
    assert sorted(p.name for p in card.iterdir()) == ["README.md", "model.safetensors"]
    model = avsep_zoo.load(card)
    assert not model.training
    assert (model.name, model.parts) == ("iquery.tiny", tiny_model.parts)
    assert same_weights(model, tiny_model)
    mixture = 0.1 * torch.randn(1, 8191, generator=torch.Generator().manual_seed(0))
    batch = {"mixture": mixture, "cues": CueBatch({"label": torch.tensor([[0, 2]])})}
    assert torch.equal(model(batch).values, tiny_model(batch).values)


def test_the_front_matter_is_the_manifest(tmp_path: Path, tiny_model: SeparationModel) -> None:
    folder = tmp_path / "runs" / "tiny"
    written = write_card(
        folder,
        tiny_model,
        name="iquery.first",
        manifest={"training": {"steps": 5, "seed": 0}},
        front={"license": "apache-2.0", "tags": ["sound-separation"]},
        text="# A title\n\n---\n\nA text.\n",
    )
    read = read_card(folder)
    assert read == written
    assert read.name == "iquery.first"
    assert read.weights == folder / "model.safetensors"
    assert read.text == "# A title\n\n---\n\nA text.\n"
    assert read.front["license"] == "apache-2.0"
    assert (read.front["library_name"], read.front["pipeline_tag"]) == ("avsep-zoo", "audio-to-audio")
    content = read.weights.read_bytes()
    assert read.manifest == {
        "format": 1,
        "name": "iquery.first",
        "parts": tiny_model.parts,
        "sample_rate": 8000,
        "classes": ["violin", "flute", "drum"],
        "file": "model.safetensors",
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "training": {"steps": 5, "seed": 0},
    }


def test_the_same_model_makes_the_same_bytes(tmp_path: Path, tiny_model: SeparationModel) -> None:
    digests = {write_card(tmp_path / str(k), tiny_model).manifest["sha256"] for k in range(4)}
    assert len(digests) == 1


def test_line_ends_of_another_system(card: Path) -> None:
    """A checkout may turn the card's line ends into CR LF."""
    readme = card / "README.md"
    readme.write_bytes(readme.read_bytes().replace(b"\n", b"\r\n"))
    assert avsep_zoo.load(card).name == "iquery.tiny"


def test_half_precision_loads_as_float32(tmp_path: Path, tiny_model: SeparationModel) -> None:
    """Half the bytes, counters untouched, values within the precision of float16."""
    whole = write_card(tmp_path / "whole", tiny_model)
    half = write_card(tmp_path / "half", tiny_model, half=True)
    assert half.manifest["bytes"] < 0.8 * whole.manifest["bytes"]
    kinds = {v.dtype for k, v in load_file(half.weights).items() if not k.endswith("num_batches_tracked")}
    assert kinds == {torch.float16}
    model = avsep_zoo.load(tmp_path / "half")
    expected = tiny_model.state_dict()
    for name, value in model.state_dict().items():
        assert value.dtype == expected[name].dtype
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize(("value", "half"), [(float("nan"), False), (float("inf"), False), (7e4, True)])
def test_weights_that_are_not_finite_are_not_written(
    value: float, half: bool, tmp_path: Path, tiny_model: SeparationModel
) -> None:
    """And the card that was there stays as it was."""
    before = write_card(tmp_path / "card", tiny_model)
    with torch.no_grad():
        tiny_model.get_submodule("separator.input_norm").weight[0] = value  # type: ignore[index,operator]
    with pytest.raises(WeightsError, match=r"weight 'separator.input_norm.weight' has values that are not finite"):
        write_card(tmp_path / "card", tiny_model, half=half)
    assert read_card(tmp_path / "card") == before
    read_weights(before)


def test_a_model_of_modules_has_no_card(tmp_path: Path, tiny_model: SeparationModel) -> None:
    """A card of it could not be built again."""
    front_end = tiny_model.front_end
    parts = {slot: PartConfig.parse(part) for slot, part in tiny_model.parts.items() if slot != "objective"}
    model = compose(**parts | {"front_end": front_end})  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match="The front end of composed was given as a module; compose it from"):
        write_card(tmp_path / "card", model)
    assert not (tmp_path / "card").exists()


def test_a_composed_model_needs_no_objective(tmp_path: Path, tiny_parts: dict[str, PartConfig]) -> None:
    model = compose(**{slot: part for slot, part in tiny_parts.items() if slot != "objective"})  # type: ignore[arg-type]
    write_card(tmp_path, model)
    loaded = avsep_zoo.load(tmp_path)
    assert loaded.name == "composed"
    assert "objective" not in loaded.parts
    assert same_weights(loaded, model)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (flip, "has sha256 .* and its card says otherwise; do not use it"),
        (
            lambda path: path.write_bytes(path.read_bytes()[:-7]),
            "bytes and its card says [0-9]+; fetch it again",
        ),
        (
            lambda path: path.unlink(),
            "The card iquery.tiny has no model.safetensors in .*; fetch or convert it",
        ),
    ],
    ids=["tampered", "truncated", "missing"],
)
def test_damaged_weights(damage: Callable[[Path], Any], text: str, card: Path) -> None:
    damage(card / "model.safetensors")
    with pytest.raises(WeightsError, match=text):
        avsep_zoo.load(card)


def test_weights_the_card_vouches_for_but_nobody_can_read(card: Path) -> None:
    (card / "model.safetensors").write_bytes(b"no tensors at all")
    vouch(card)
    with pytest.raises(WeightsError, match="is no safetensors file"):
        avsep_zoo.load(card)


@pytest.mark.parametrize("kind", ["missing", "unknown", "shape"])
def test_weights_of_other_parts(kind: str, card: Path) -> None:
    """Loading is strict: nothing stays random, nothing is left over."""
    path = card / "model.safetensors"
    tensors = load_file(path)
    name = "separator.mask_conv.weight" if kind == "unknown" else "conditioner.query_embed.weight"
    if kind == "missing":
        del tensors[name]
    else:
        tensors[name] = torch.zeros(1)
    save_file(tensors, path)
    vouch(card)
    with pytest.raises(WeightsError, match=f"do not fit its parts: 1 entries are .* the first is '{name}'"):
        avsep_zoo.load(card)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda f: f.pop("avsep"), "has no front matter with an 'avsep' block"),
        (lambda f: f.update(avsep=[1, 2]), "has no front matter with an 'avsep' block"),
        (lambda f: f["avsep"].pop("format"), "has avsep.format None and this version reads 1"),
        (lambda f: f["avsep"].update(format=2), "has avsep.format 2 and this version reads 1"),
        (lambda f: f["avsep"].pop("sha256"), "has no avsep.sha256; take the card as it was published"),
        (lambda f: f["avsep"].update(sha256="abc"), "has avsep.sha256 'abc'"),
        (lambda f: f["avsep"].update(bytes="many"), "has avsep.bytes 'many'"),
        (lambda f: f["avsep"].update(name=3), "has avsep.name 3"),
        (lambda f: f["avsep"].update(parts=["stft"]), r"has avsep.parts \['stft'\]"),
        (lambda f: f["avsep"]["parts"].pop("encoder"), "has avsep.parts {'conditioner'"),
        (
            lambda f: f["avsep"].update(file="../secret.safetensors"),
            r"has avsep.file '\.\./secret.safetensors'",
        ),
        (
            lambda f: f["avsep"].update(file="/etc/model.safetensors"),
            "has avsep.file '/etc/model.safetensors'",
        ),
        (lambda f: f["avsep"].update(file="a\\b.safetensors"), "has avsep.file "),
        (lambda f: f["avsep"].update(file=".."), r"has avsep.file '\.\.'"),
        (lambda f: f["avsep"].update(file="model.pth"), "has avsep.file 'model.pth'"),
    ],
)
def test_wrong_front_matter(change: Callable[[dict[str, Any]], Any], text: str, card: Path) -> None:
    edit(card, change)
    with pytest.raises(WeightsError, match=text):
        avsep_zoo.load(card)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "has no front matter"),
        (b"# A title\n", "has no front matter"),
        (b"---\nno mapping\n---\n", "has no front matter with an 'avsep' block"),
        (b"---\na: [1\n---\n", "is no YAML .*; correct it"),
        (b"---\nday: 2024-13-45\n---\n", "is no YAML"),
        (b"---\na: !!python/object/apply:os.getcwd []\n---\n", "is no YAML .*could not determine"),
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_readmes_that_are_no_cards(content: bytes, text: str, card: Path) -> None:
    (card / "README.md").write_bytes(content)
    with pytest.raises(WeightsError, match=text):
        avsep_zoo.load(card)


def test_unknown_parts_of_a_card(card: Path) -> None:
    edit(card, lambda f: f["avsep"]["parts"]["encoder"].update(name="iquery.cue"))
    with pytest.raises(CompositionError, match=r"no encoder 'iquery.cue'; did you mean 'iquery.cues'"):
        avsep_zoo.load(card)
