"""Official checkpoints in this project's names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

import avsep_zoo
from avsep_davis.convert import convert_official, official_view, target
from avsep_zoo.errors import WeightsError
from avsep_zoo.parity.case import load_case

CASES = Path(__file__).parents[3] / "tests" / "parity" / "davis"
State = dict[str, Tensor]
HEAD = "net_unet.downs.1.2.fn.attn_conv_{}.0.weight"


def layout(case: str, part: str) -> State:
    """A state dict in the official layout, on the meta device."""
    entries = json.loads((CASES / f"{case}.json").read_text())["weights"]["parts"][part]
    return {k: torch.empty(s, dtype=getattr(torch, d), device="meta") for k, s, d in entries}


@pytest.fixture(scope="module")
def official() -> State:
    """The whole U-Net, with values."""
    case = load_case(CASES / "unet_sharp.json")
    assert case is not None
    return case.state_dicts["unet"]


@pytest.mark.parametrize("method", ["davis", "davis_flow"])
@pytest.mark.parametrize(
    ("variant", "frame", "texts"),
    [("music", "frame_encoder", 150), ("ave", "frame_encoder", 150), ("resnet18", "frame_encoder_resnet18", 0)],
)
def test_official_layout_fills_the_model(method: str, variant: str, frame: str, texts: int) -> None:
    """Every entry is filled once, with its shape; the rest is never used, as CLIP's text tower."""
    parts = {"unet": layout("unet_music", "unet"), "frame": layout(frame, "frame")}
    state, unused = convert_official(parts)
    with torch.device("meta"):
        expected = avsep_zoo.load(f"{method}.{variant}", weights=None).state_dict()
    assert {name: value.shape for name, value in state.items()} == {n: v.shape for n, v in expected.items()}
    idle = [key.removeprefix("unet.") for key in unused if key.startswith("unet.")]
    assert len(idle) == 10
    assert sum(parts["unet"][key].numel() for key in idle) == 871_936
    assert len(unused) - len(idle) == texts
    assert not any(key.startswith(("frame.model.visual", "frame.temporal", "frame.features")) for key in unused)


def test_there_and_back(official: State) -> None:
    """Every used official entry can be read back out of the converted ones, value by value."""
    state, unused = convert_official({"unet": official})
    for key, value in official.items():
        if target("unet", key) is None:
            assert f"unet.{key}" in unused
            with pytest.raises(KeyError, match=key):
                official_view(state, "unet", key, value.shape)
        else:
            assert torch.equal(official_view(state, "unet", key, value.shape), value), key


def test_heads_are_rows(official: State) -> None:
    """Queries of all heads, keys of all heads, values of all heads."""
    state, _ = convert_official({"unet": official})
    rows = torch.cat([official[HEAD.format(f"{kind}_{head}")] for kind in "QKV" for head in range(4)])
    assert torch.equal(state["separator.downs.1.frames.project.weight"], rows)


@pytest.mark.parametrize(
    ("part", "key"),
    [
        ("unet", "net_unet.downs.5.0.res_conv.weight"),
        ("unet", "net_unet.downs.0.2.fn.attn_conv_Q_4.0.weight"),
        ("unet", "net_unet.downs.0.3.weight"),
        ("unet", "net_unet.ups.4.3.1.weight"),
        ("unet", "net_unet.mid_attn.fn.fn.to_out.0.weight"),
        ("unet", "net_unet.init_conv.scale"),
        ("unet", "net_unet.time_mlp.2.weight"),
        ("unet", "unet.init_conv.weight"),
        ("unet", "net_unet"),
        ("frame", "temporal.weight"),
    ],
)
def test_an_unknown_entry_is_refused(part: str, key: str) -> None:
    with pytest.raises(KeyError, match=f"{part}.{key}"):
        convert_official({part: {key: torch.zeros(1)}})


@pytest.mark.parametrize("missing", ["Q_0", "K_3", "V_3"])
def test_a_missing_head_is_named(missing: str) -> None:
    """Also the last one, without which the rest would be an entry too."""
    heads = [f"{kind}_{head}" for kind in "QKV" for head in range(4)]
    entries = {HEAD.format(head): torch.zeros(16 if "V" in head else 4, 64, 1, 1) for head in heads if head != missing}
    with pytest.raises(KeyError, match=f"unet.{HEAD.format(missing)}"):
        convert_official({"unet": entries})


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        (HEAD.format("K_1"), (5, 64, 1, 1)),
        ("net_unet.downs.0.2.fn.attn_concat_proj.2.gamma", (1, 256, 1, 64)),
        ("net_unet.downs.0.2.fn.attn_concat_proj.2.gamma", (3,)),
    ],
)
def test_a_shape_that_was_never_published(official: State, key: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(WeightsError, match=key.replace(".", r"\.")):
        convert_official({"unet": official | {key: torch.zeros(shape)}})
