"""Files in the authors' layout become a card whose model gives the official numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import avsep_zoo
from avsep_avsgs.classifier import SpectrogramClassifier
from avsep_avsgs.conditioner import SceneGraph
from avsep_avsgs.convert import convert_official
from avsep_avsgs.parity import pooled
from avsep_avsgs.parity_method import separated_window
from avsep_avsgs.plugin import RECIPE
from avsep_zoo.compose import compose_recipe
from avsep_zoo.errors import WeightsError
from avsep_zoo.parity.case import Case, load_case
from avsep_zoo.parity.compare import compare
from avsep_zoo.weights.conversion import convert

CASES = Path(__file__).parents[3] / "tests" / "parity" / "avsgs"
PARTS = ("unet", "classifier", "graph_net", "map_net", "rnn")
LAYOUTS = ("graph_net", "graph_net_pyg14", "graph_net_pyg15", "graph_net_pyg17", "graph_net_pyg20")
TINY = {
    "encoder": {"features": 6, "hidden": 5},
    "conditioner": {"width": 16},
    "separator": {"width": 4, "levels": 3},
    "front_end": {"length": 2047, "n_fft": 126, "hop_length": 64, "warp_rows": 32},
}
State = dict[str, Tensor]


def golden(name: str) -> Case:
    case = load_case(CASES / f"{name}.json")
    assert case is not None
    return case


def saved(folder: Path, parts: dict[str, State], ending: str = "best") -> list[Path]:
    """The files of a training run: a bare state dict each."""
    for part, state in parts.items():
        torch.save(state, folder / f"{part}_{ending}.pth")
    return [folder / f"{part}_{ending}.pth" for part in parts]


def as_of_version_17(state: State) -> State:
    """The attention of torch-geometric 2.5 under the names that 1.7 gave it."""
    names = {"lin.weight": "lin_l.weight", "att_src": "att_l", "att_dst": "att_r"}
    old = {f"node_conv.{new}": f"node_conv.{name}" for new, name in names.items()}
    renamed = {old.get(name, name): value for name, value in state.items()}
    return renamed | {"node_conv.lin_r.weight": renamed["node_conv.lin_l.weight"]}


@pytest.fixture
def tiny_files(monkeypatch: pytest.MonkeyPatch) -> dict[str, State]:
    """A variant ``tiny`` with the published graph network, and its other files, in the official layout."""
    monkeypatch.setitem(RECIPE.variants, "tiny", TINY)  # type: ignore[arg-type]
    parts: dict[str, State] = {"unet": {}, "map_net": {}, "rnn": {}}
    for name, value in compose_recipe(RECIPE.parts("tiny"), "avsgs.tiny").state_dict().items():
        slot, place, *rest = name.split(".")
        if slot == "separator":
            layer = f"audionet_{'up' if place == 'up' else ''}convlayer{int(rest[0]) + 1}"
            parts["unet"][f"{layer}.{0 if rest[1] == 'conv' else 1}.{rest[2]}"] = value
        elif place in ("map", "rnn"):
            parts["map_net" if place == "map" else "rnn"][".".join(rest)] = value
    return parts


@pytest.mark.filterwarnings("ignore::avsep_zoo.errors.LicenceWarning")
def test_converted_files_give_the_official_numbers(tmp_path: Path) -> None:
    """The variant is told by the files; a window of the whole method is within its tolerances."""
    case = golden("e2e_test")
    parts = {part: case.state_dicts[part] for part in PARTS}
    parts["graph_net"] = as_of_version_17(parts["graph_net"])
    done = convert("avsgs", saved(tmp_path, parts, "15000"), tmp_path / "card")
    assert done.card.name == "avsgs.asiw"
    assert [file.part for file in done.files] == list(PARTS)
    assert done.used + len(done.unused) == sum(map(len, parts.values()))
    twice = {"graph_net.node_conv.lin_r.weight", "classifier.feature_extraction.0.weight"}
    assert {name for name in done.unused if not name.startswith("objective.classifier.")} == twice
    taught, _ = convert_official({"classifier": parts["classifier"]})
    classifier = SpectrogramClassifier(classes=15).eval()
    classifier.load_state_dict({name.removeprefix("objective.classifier."): v for name, v in taught.items()})
    errors = compare(case, separated_window(avsep_zoo.load(tmp_path / "card"), case, classifier))
    assert errors and all(error.passed for error in errors), [e for e in errors if not e.passed]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_attention_of_every_version(layout: str, tiny_files: dict[str, State], tmp_path: Path) -> None:
    """The graph network of the card gives what the torch-geometric gave that wrote the file, without a classifier."""
    case = golden(layout)
    files = saved(tmp_path, tiny_files | {"graph_net": case.state_dicts["graph_net"]})
    convert("avsgs.tiny", files, tmp_path / "card")
    conditioner = avsep_zoo.load(tmp_path / "card").conditioner
    assert isinstance(conditioner, SceneGraph)
    errors = compare(case, pooled(conditioner.graph, case))
    assert errors and all(error.passed for error in errors), [e for e in errors if not e.passed]


def test_files_that_cannot_be_converted(tiny_files: dict[str, State], tmp_path: Path) -> None:
    """A shared tensor with two values, half of the attention, another graph network, and a network on crops."""
    graph = golden("graph_net_pyg17").state_dicts["graph_net"]
    parts = tiny_files | {"graph_net": graph}

    def refused(match: str, **changed: State) -> None:
        with pytest.raises(WeightsError, match=match):
            convert("avsgs.tiny", saved(tmp_path, parts | changed), tmp_path / "card")
        assert not (tmp_path / "card").exists()

    other = graph | {"node_conv.lin_r.weight": graph["node_conv.lin_l.weight"] + 1}
    refused(r"node_conv\.lin_\w\.weight and graph_net\.node_conv\.lin_\w\.weight differ", graph_net=other)
    half = {name: value for name, value in graph.items() if name != "node_conv.att_r"}
    refused(r"The files lack conditioner\.graph\.node_conv\.att_dst of avsgs\.tiny", graph_net=half)
    another = golden("graph_net_type1").state_dicts["graph_net"]
    refused(r"The files lack conditioner\.graph\.edge_conv\.", graph_net=another)
    crops = {"conv1.weight": torch.zeros(1), "conv1x1.0.weight": torch.zeros(1)}
    refused(r"The entry classifier\.conv1x1\.0\.weight is none of avsgs's", classifier=crops)
