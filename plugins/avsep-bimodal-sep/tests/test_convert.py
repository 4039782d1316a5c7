"""Official entries in this project's names."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from avsep_bimodal_sep.convert import CONVERTER, convert_official
from avsep_bimodal_sep.official_keys import CLAP, OfficialSettings, recognise, target
from avsep_zoo.errors import WeightsError

CASE = Path(__file__).parents[3] / "tests" / "parity" / "bimodal_sep" / "train_objective.json"
DEEPEST = "net_sound.unet_block." + "submodule." * 6
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def layout() -> State:
    """All entries of an official file, on the meta device."""
    entries = json.loads(CASE.read_text())["weights"]["parts"]["model"]
    return {k: torch.empty(shape, dtype=getattr(torch, dtype), device="meta") for k, shape, dtype in entries}


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("net_sound.bn0.running_var", "separator.input_norm.running_var"),
        ("net_sound.unet_block.downconv.weight", "separator.down.0.conv.weight"),
        ("net_sound.unet_block.upconv.bias", "separator.up.6.conv.bias"),
        ("net_sound.unet_block.submodule.upnorm.bias", "separator.up.5.norm.bias"),
        (f"{DEEPEST}upresblock.res_layers.0.1.weight", "separator.up.0.residual.norms.0.weight"),
        (f"{DEEPEST}downresblock.res_layers.0.0.bias", "separator.down.6.residual.convs.0.bias"),
        (f"{DEEPEST}ca_blocks.0.sa_block.attn.qkv.bias", "conditioner.layers.bottleneck.0.qkv.bias"),
        (f"{DEEPEST[:-10]}ca_blocks.0.ca_block.mlp.fc2.weight", "conditioner.layers.deep6.1.mlp.2.weight"),
        (f"{DEEPEST[:-20]}ca_blocks.1.ca_block.attn.kv.weight", "conditioner.layers.deep5.3.kv.weight"),
        (f"{DEEPEST}ca_blocks.0.norm1.weight", None),
        ("net_clap.fc.weight", "conditioner.heads.head.fc.weight"),
        ("net_synthesizer.scale", "conditioner.heads.head.scale"),
        (f"{CLAP}text_branch.pooler.dense.bias", "encoder.clap.text_model.pooler.dense.bias"),
        (f"{CLAP}text_branch.embeddings.position_ids", None),
        (f"{CLAP}audio_projection.0.weight", None),
        ("istft.ola_window", None),
    ],
)
def test_places(key: str, name: str | None) -> None:
    assert target(key, OfficialSettings(7, 1, "sca", 2)) == name


@pytest.mark.parametrize(
    "key",
    [
        f"{CLAP}vision.bias",
        "net_sound.extra",
        "net_sound.unet_block.ca_blocks.0.sa_block.norm1.bias",
        "net_sound.unet_block.upnorm.bias",
        "net_clap.fc.scale",
    ],
)
def test_an_unknown_entry_is_refused(key: str, layout: State) -> None:
    """Also known ones at a level that has none."""
    with pytest.raises(KeyError, match=re.escape(key)):
        convert_official(layout | {key: torch.zeros(1)})


@pytest.mark.parametrize("layer", ["sa", "ca", "cat"])
def test_layers_are_recognised(layer: str) -> None:
    """By what their entries are called, in whatever level."""
    entry = {"sa": "attn.qkv.weight", "ca": "attn.q.bias", "cat": "lin.bias"}[layer]
    keys = [f"net_sound.unet_block.submodule.submodule.submodule.submodule.ca_blocks.{n}.{entry}" for n in (0, 1)]
    assert recognise(keys) == OfficialSettings(5, 0, layer, 2)
    assert recognise(["net_sound.unet_block.downconv.weight"]) == OfficialSettings(1, 0, "identity", 1)


def refused(state: State, match: str) -> None:
    """In one sentence."""
    with pytest.raises(WeightsError, match=match) as error:
        CONVERTER.entries({"model": state})
    assert re.fullmatch(r"[^\n]+\.", str(error.value)) and ". " not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"unet_block.submodule.": "unet_block."}, "has 6 levels of the U-Net and the published networks have 7;"),
        ({".res_layers.0.": ".res_layers.1."}, "has 2 convolutions in a residual block .* have 1;"),
        ({".sa_block.": ".idle.", ".ca_block.": "."}, "has ca condition layers and the published networks have sca;"),
        ({".ca_blocks.": "."}, "has identity condition layers .* have sca;"),
        ({".ca_blocks.0.": ".ca_blocks.1."}, "has 2 condition layers at a level .* have 1;"),
    ],
)
def test_other_networks_are_refused(changes: dict[str, str], match: str, layout: State) -> None:
    """Their settings are named, not the many entries that are missing then."""
    for before, after in changes.items():
        layout = {key.replace(before, after): value for key, value in layout.items()}
    refused(layout, match)


def test_layers_of_several_kinds_are_refused(layout: State) -> None:
    refused(layout | {f"{DEEPEST}ca_blocks.0.attn.q.bias": torch.zeros(2)}, "layers of the kinds ca, sca; give")


@pytest.mark.parametrize(
    "name", ["istft.conv_imag.weight", "istft.conv_real.weight", "istft.ola_window", "stft.conv_real.weight"]
)
def test_constants_of_another_transform_are_refused(name: str, layout: State) -> None:
    half = torch.zeros([1 + n // 2 for n in layout[name].shape])
    refused(layout | {name: half}, rf"constant {re.escape(name)} has the shape .* transform of 1022 samples; give")


def test_constants_need_not_be_there(layout: State) -> None:
    kept = {key: value for key, value in layout.items() if not key.startswith(("stft.", "istft."))}
    (entries, unused), (all_entries, all_unused) = (CONVERTER.entries({"model": state}) for state in (kept, layout))
    assert entries.keys() == all_entries.keys() and len(unused) == len(all_unused) - 5
