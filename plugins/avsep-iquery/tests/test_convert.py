"""Official checkpoints in this project's names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

import avsep_zoo
from avsep_iquery.convert import convert_official, rename

CASES = Path(__file__).parents[3] / "tests" / "parity" / "iquery"
Parts = dict[str, dict[str, Tensor]]


def official(case: str) -> Parts:
    """State dicts in the official layout, on the meta device."""
    parts = json.loads((CASES / f"{case}.json").read_text())["weights"]["parts"]
    return {
        part: {k: torch.empty(s, dtype=getattr(torch, d), device="meta") for k, s, d in entries}
        for part, entries in parts.items()
    }


@pytest.mark.parametrize(("case", "variant"), [("e2e_music", "music"), ("e2e_nomotion", "nomotion")])
def test_official_layout_fills_the_variant(case: str, variant: str) -> None:
    """Every entry of the model is filled once, with its shape; the rest is what the forward pass never uses."""
    parts = official(case)
    state, unused = convert_official(parts)
    expected = avsep_zoo.load(f"iquery.{variant}", weights=None).state_dict()
    assert {name: value.shape for name, value in state.items()} == {n: v.shape for n, v in expected.items()}
    assert {name: value.dtype for name, value in state.items()} == {n: v.dtype for n, v in expected.items()}
    assert len(state) + len(unused) == sum(len(entries) for entries in parts.values())
    unused_layers = {tuple(key.split(".")[4:6]) for key in unused}
    motion_layer = {("0", m) for m in ("self_attn", "multihead_attn", "norm1", "norm2")}
    others = {(layer, m) for layer in "123" for m in ("cross_attn_motion", "norm4")}
    assert unused_layers == (motion_layer | others if variant == "music" else set())


def test_there_and_back() -> None:
    """The entry behind each new name is the official one it was made of."""
    parts = official("e2e_music")
    state, unused = convert_official(parts)
    for part, entries in parts.items():
        for key, value in entries.items():
            name = rename(part, key, motion=True)
            if name is None:
                assert f"{part}.{key}" in unused
            elif key in ("upobj.weight", "down.weight"):
                assert state[name].shape == value.shape[:-1]
            else:
                assert state[name] is value


def test_values_survive() -> None:
    kernel = torch.arange(6.0).reshape(2, 3, 1)
    state, _ = convert_official({"maskformer": {"upobj.weight": kernel}})
    assert torch.equal(state["conditioner.object_projection.weight"][..., None], kernel)


def test_some_of_the_files() -> None:
    state, unused = convert_official({"sound": official("e2e_music")["sound"]})
    assert len(state) == 74 and not unused
    assert all(name.startswith("separator.") for name in state)


@pytest.mark.parametrize(
    ("part", "key"),
    [
        ("sound", "upconv1.scale.weight"),
        ("frame", "features.8.weight"),
        ("maskformer", "transformer.decoder.scale"),
        ("motion", "fc.weight"),
    ],
)
def test_an_unknown_entry_is_refused(part: str, key: str) -> None:
    with pytest.raises(KeyError, match=f"{part}.{key}"):
        convert_official({part: {key: torch.zeros(1)}})
