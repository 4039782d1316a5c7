"""Official checkpoints in this project's names."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from avsep_avsgs.classifier import SpectrogramClassifier
from avsep_avsgs.convert import CONVERTER, convert_official, target
from avsep_avsgs.encoder import CropsEncoder
from avsep_avsgs.graph import GraphNet
from avsep_avsgs.plugin import RECIPE
from avsep_avsgs.separator import CoSeparationUNet
from avsep_zoo.compose import compose_recipe
from avsep_zoo.errors import WeightsError
from avsep_zoo.parity.case import load_case

CASES = Path(__file__).parents[3] / "tests" / "parity" / "avsgs"
LAYOUTS = ("graph_net", "graph_net_pyg14", "graph_net_pyg15", "graph_net_pyg17", "graph_net_pyg20")
State = dict[str, Tensor]
Parts = dict[str, State]


def layout(case: str) -> Parts:
    """State dicts in the official layout, without storage; what is tied is one tensor."""
    weights = json.loads((CASES / f"{case}.json").read_text())["weights"]
    parts: Parts = {}
    for part, entries in weights["parts"].items():
        state = {k: torch.empty(s, dtype=getattr(torch, d), device="meta") for k, s, d in entries}
        tied = weights["tied"].get(part, {})
        parts[part] = {key: state[tied.get(key, key)] for key in state}
    return parts


def filled(case: str, part: str) -> State:
    found = load_case(CASES / f"{case}.json")
    assert found is not None
    return found.state_dicts[part]


def attention(**entries: Tensor) -> Parts:
    """Some entries of the graph attention; dots in their names are written as two underscores."""
    return {"graph_net": {f"node_conv.{name.replace('__', '.')}": value for name, value in entries.items()}}


def shapes(state: Any) -> dict[str, Any]:
    return {name: (value.shape, value.dtype) for name, value in state.items()}


def under(prefix: str, state: State) -> State:
    assert all(name.startswith(prefix) for name in state)
    return {name.removeprefix(prefix): value for name, value in state.items()}


def build(case: str) -> tuple[str, nn.Module]:
    """The module a case of one official network is of, and its place."""
    kind = int(case[-1]) if "type" in case else 3
    return {
        "unet7": ("separator.", lambda: CoSeparationUNet(widths={"bottleneck": 1024})),
        "unet5": ("separator.", lambda: CoSeparationUNet(levels=5, widths={"bottleneck": 1024})),
        "classifier": ("objective.classifier.", lambda: SpectrogramClassifier(classes=15)),
        "visual_net": ("encoder.", CropsEncoder),
        "rnn_unroll": ("conditioner.rnn.", lambda: nn.GRU(512, 512)),
    }.get(case, ("conditioner.graph.", lambda: GraphNet(512, kind=kind)))  # fmt: skip


@pytest.mark.parametrize(
    "case",
    [
        *("unet7", "unet5", "classifier", "visual_net", "rnn_unroll", "graph_net_type0", "graph_net_type1"),
        *("graph_net_type2", *LAYOUTS),
    ],
)
def test_official_layout_fills_the_network(case: str) -> None:
    """Every entry is filled once, with its shape; what is left over is what was stored twice."""
    parts = layout(case)
    state, unused = convert_official(parts)
    prefix, network = build(case)
    with torch.device("meta"):
        expected = network().state_dict()
    assert shapes(under(prefix, state)) == shapes(expected)
    tied = json.loads((CASES / f"{case}.json").read_text())["weights"]["tied"]
    assert len(unused) == sum(len(keys) for keys in tied.values())


@pytest.mark.parametrize(("variant", "unet"), [("asiw", "e2e_train"), ("layers5", "unet5")])
def test_the_five_files_are_the_whole_method(variant: str, unet: str) -> None:
    """Every entry of the variant is filled once, with its shape and type, and only the classifier is no part of it."""
    parts = layout("e2e_train") | {"unet": layout(unet)["unet"]}
    state, unused = convert_official(parts)
    assert unused == ["classifier.feature_extraction.0.weight"]
    assert len(state) + len(unused) == sum(len(entries) for entries in parts.values())
    taught = {name: value for name, value in state.items() if name.startswith("objective.classifier.")}
    with torch.device("meta"):
        model = compose_recipe(RECIPE.parts(variant), f"avsgs.{variant}")
        classifier = SpectrogramClassifier(classes=15)
    assert shapes({name: state[name] for name in state.keys() - taught.keys()}) == shapes(model.state_dict())
    assert shapes(under("objective.classifier.", taught)) == shapes(classifier.state_dict())


def test_parts_are_told_by_their_entries() -> None:
    """Of the five files, in every layout of the attention, each is one part."""
    graphs = [(case, "graph_net") for case in (*LAYOUTS, "graph_net_type0", "graph_net_type1", "graph_net_type2")]
    for case, part in [*(("e2e_train", part) for part in CONVERTER.parts), ("unet5", "unet"), *graphs]:
        names = layout(case)[part]
        told = [found for found, start in CONVERTER.parts.items() if any(re.match(start, name) for name in names)]
        assert told == [part]


@pytest.mark.parametrize("case", LAYOUTS)
def test_attention_of_every_version(case: str) -> None:
    """Whatever its names, the same vectors meet the node that is told and the one that tells."""
    official = filled(case, "graph_net")
    state = under("conditioner.graph.node_conv.", {
        name: value for name, value in convert_official({"graph_net": official})[0].items() if "node_conv" in name
    })  # fmt: skip
    told, tells = {
        "graph_net": ("att_dst", "att_src"),
        "graph_net_pyg15": ("att_i", "att_j"),
        "graph_net_pyg17": ("att_r", "att_l"),
        "graph_net_pyg20": ("att_dst", "att_src"),
    }.get(case, ("att", "att"))
    half = 64 if case == "graph_net_pyg14" else 0
    assert torch.equal(state["att_dst"], official[f"node_conv.{told}"][..., :64])
    assert torch.equal(state["att_src"], official[f"node_conv.{tells}"][..., half:])
    weight = next(value for key, value in official.items() if key.startswith("node_conv") and key.endswith("weight"))
    assert torch.equal(state["lin.weight"], weight.T if case == "graph_net_pyg14" else weight)


@pytest.mark.parametrize(
    ("part", "one", "other"),
    [
        ("graph_net", "node_conv.lin_l.weight", "node_conv.lin_r.weight"),
        ("graph_net", "node_conv.lin_dst.weight", "node_conv.lin_src.weight"),
        ("classifier", "conv1.weight", "feature_extraction.0.weight"),
        ("visual", "conv1.weight", "feature_extraction.0.weight"),
    ],
)
def test_what_is_stored_twice(part: str, one: str, other: str) -> None:
    """Equal values are one entry, different ones are refused, and either name will do alone."""
    twice = {one: torch.ones(2, 3), other: torch.ones(2, 3)}
    state, unused = convert_official({part: twice})
    assert list(state) == [*target(part, one)]
    assert unused == [f"{part}.{other}"]
    for alone in (one, other):
        state, unused = convert_official({part: {alone: twice[alone]}})
        assert torch.equal(state[target(part, alone)[0]], torch.ones(2, 3)) and not unused
    with pytest.raises(WeightsError, match=f"{part}.{one} and {part}.{other} differ"):
        convert_official({part: {one: torch.ones(2, 3), other: torch.zeros(2, 3)}})


def test_two_versions_of_torch_geometric_in_one_file() -> None:
    with pytest.raises(WeightsError, match=r"att_src and graph_net\.node_conv\.att_l differ"):
        convert_official(attention(att_src=torch.ones(1, 4, 64), att_l=torch.zeros(1, 4, 64)))


@pytest.mark.parametrize("parts", [attention(att=torch.ones(1, 4, 127)), attention(weight=torch.ones(4))])
def test_a_shape_that_was_never_saved(parts: Parts) -> None:
    with pytest.raises(WeightsError, match=r"graph_net\.node_conv\.\w+ has the shape"):
        convert_official(parts)


@pytest.mark.parametrize(
    ("part", "key"),
    [
        ("unet", "audionet_convlayer0.0.weight"),
        ("unet", "audionet_convlayer1.2.weight"),
        ("unet", "audionet_upconvlayer1"),
        ("map_net", "1.weight"),
        ("rnn", "weight_ih"),
        ("graph_net", "node_conv.att_x"),
        ("graph_net", "edge_conv.nn.0.1.weight"),
        ("graph_net", "node_conv.lin"),
        ("classifier", "conv1x1.0.weight"),
        ("classifier", "feature_extraction.8.0.weight"),
        ("visual", "fc.scale"),
        ("sound", "0.weight"),
    ],
)
def test_an_unknown_entry_is_refused(part: str, key: str) -> None:
    with pytest.raises(KeyError, match=f"{part}.{key}"):
        convert_official({part: {key: torch.zeros(1)}})
