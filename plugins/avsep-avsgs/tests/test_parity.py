"""Golden cases of the published code, and configurations of it that no golden case covers.

The largest ones are left to ``avsep parity tests/parity``: gradients of the whole network (``train_step``, here on a
small one) and whole recordings (``sliding_window``). The others take about 10 s of one core.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from avsep_zoo.errors import DataError
from avsep_zoo.parity.case import Case, load_case
from avsep_zoo.parity.compare import OutputError, compare
from avsep_zoo.registry import registry

CASES = Path(__file__).parents[3] / "tests" / "parity" / "avsgs"
NAMES = sorted(path.stem for path in CASES.glob("*.json"))
LEFT_OUT = {"sliding_window", "train_step"}
Outputs = dict[str, Any]


def read(name: str) -> Case:
    case = load_case(CASES / f"{name}.json")
    assert case is not None
    return case


def outputs(case: Case) -> Outputs:
    adapter = registry().adapter("avsgs", case.adapter)
    assert adapter is not None, case.adapter
    return dict(adapter(case))


def errors(case: Case) -> list[OutputError]:
    return compare(case, outputs(case))


def test_every_case_has_an_adapter() -> None:
    """Also those that are left out here."""
    assert len(NAMES) == 22
    assert all(registry().adapter("avsgs", read(name).adapter) for name in NAMES)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in LEFT_OUT])
def test_golden_case(name: str) -> None:
    found = errors(read(name))
    assert found
    assert all(error.passed for error in found), [error for error in found if not error.passed]


@pytest.mark.parametrize(
    ("name", "part", "key"),
    [
        ("graph_net", "graph_net", "node_conv.att_dst"),
        ("graph_net_pyg14", "graph_net", "node_conv.att"),
        ("graph_net_pyg15", "graph_net", "node_conv.att_j"),
        ("graph_net_type1", "graph_net", "edge_conv1.nn.0.2.running_var"),
        ("graph_net_type2", "graph_net", "edge_conv.nn.1.0.bias"),
        ("map_net", "map_net", "0.bias"),
        ("rnn_unroll", "rnn", "bias_hh_l0"),
        ("unet5", "unet", "audionet_upconvlayer2.1.running_mean"),
        ("classifier", "classifier", "feature_extraction.6.0.downsample.1.weight"),
        ("visual_net", "visual", "conv1x1.1.bias"),
    ],
)
def test_a_wrong_weight_fails(name: str, part: str, key: str) -> None:
    """Cases are sensitive: one entry that is a tenth too large is noticed."""
    case = read(name)
    case.state_dicts[part][key].mul_(1.1)
    assert not all(error.passed for error in errors(case))


def test_attention_the_wrong_way_round_fails() -> None:
    """The vector of the node that tells and that of the node that is told are exchanged."""
    case = read("graph_net")
    state = case.state_dicts["graph_net"]
    state["node_conv.att_src"], state["node_conv.att_dst"] = state["node_conv.att_dst"], state["node_conv.att_src"]
    assert {error.name for error in errors(case) if not error.passed} == {"node_conv_out", "edge_conv_out", "embedding"}


def variation(name: str, config: Outputs, inputs: dict[str, Any] | None = None, weights: Any = None) -> Case:
    """A golden case with other settings, inputs (rules or expressions) and entries of weights."""
    spec = copy.deepcopy(read(name).spec)
    spec["config"] |= config
    for key, rule in (inputs or {}).items():
        spec["inputs"][key] = {**spec["inputs"].get(key, {}), "expr": rule} if isinstance(rule, str) else rule
    if weights is not None:
        spec["weights"] = {"parts": weights, "tied": {"classifier": {"feature_extraction.0.weight": "conv1.weight"}}}
    return Case(CASES / f"{name}.json", spec)


@pytest.mark.parametrize(
    ("name", "activate"),
    [
        ("gelu", lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))),
        ("swish", lambda x: x * torch.sigmoid(x)),
        ("relu", lambda x: x.clamp_min(0)),
    ],
)
def test_activations(name: str, activate: Callable[[Tensor], Tensor]) -> None:
    """The embedding is the largest and the mean of the activated layer; row 0 is that of padded nodes."""
    case = variation("graph_net_type0", {"hidden_act": name})
    got = outputs(case)
    active, graph = activate(got["node_conv_out"]), torch.as_tensor(case.inputs["batch_vec"])
    rows = [active[graph == number] for number in range(int(graph.max()) + 1)]
    expected = torch.stack([torch.cat((row.amax(dim=0), row.mean(dim=0))) for row in rows])
    torch.testing.assert_close(got["embedding"], expected)


def test_graphs_without_padded_nodes_are_numbered_from_one() -> None:
    plain = outputs(read("graph_net"))["embedding"]
    shifted = read("graph_net")
    shifted.inputs["batch_vec"] = shifted.inputs["batch_vec"] + 1
    assert torch.equal(outputs(shifted)["embedding"], plain)


def test_edges_of_any_kind() -> None:
    """A node that no edge leads to attends to itself and has no edge features."""
    case = read("graph_net")
    case.inputs["edge_index"] = case.inputs["edge_index"][:, case.inputs["edge_index"][1] != 2]
    got, whole = outputs(case), outputs(read("graph_net"))
    assert torch.equal(got["edge_conv_out"][2], torch.zeros(256))
    state = case.state_dicts["graph_net"]
    alone = torch.as_tensor(case.inputs["nodes"][2]) @ state["node_conv.lin.weight"].T + state["node_conv.bias"]
    torch.testing.assert_close(got["node_conv_out"][2], alone)
    torch.testing.assert_close(got["node_conv_out"][1], whole["node_conv_out"][1])


def test_the_state_a_recurrent_network_starts_from() -> None:
    """Going on from the state after two steps gives what the third step gives."""
    case = read("rnn_unroll")
    three = outputs(case)["source_embeddings"].unflatten(0, (-1, 3))
    case.inputs["h0"] = three[:, 1][None].numpy()
    torch.testing.assert_close(outputs(case)["source_embeddings"].unflatten(0, (-1, 3))[:, 0], three[:, 2])


def small(name: str, *, recordings: int = 2, **config: Any) -> Case:
    """A whole method of few features, with graphs of three nodes that are all joined."""
    layers, kind, sounds = config.get("unet_num_layers", 5), config.get("gnet_type", 3), config.get("unroll_steps", 3)
    settings = {
        "ngf": 8, "unet_num_layers": layers, "nhid": 8, "heads": 2, "feat_dim": 6, "map_hidden": 5, "rnn_hidden": 16,
        "visual_dim": 16, "audio_window": 2047, "stft_frame": 126, "stft_hop": 64, "log_bins": 32, "unroll_steps": 3,
        "number_of_classes": 5, **config, "sources_per_video": sounds,
    }  # fmt: skip
    parts: dict[str, list[list[Any]]] = {
        "map_net": [[f"{layer}.{kind}", shape, "float32"] for layer, kind, shape in (
            (0, "weight", [5, 6]), (0, "bias", [5]), (2, "weight", [7, 5]), (2, "bias", [7])
        )],
        "rnn": [[f"{entry}_l0", [48, 16] if "weight" in entry else [48], "float32"] for entry in (
            "weight_ih", "weight_hh", "bias_ih", "bias_hh"
        )],
        "graph_net": [],
        "unet": [],
    }  # fmt: skip

    def norm(part: str, stem: str, width: int) -> None:
        for entry in ("weight", "bias", "running_mean", "running_var"):
            parts[part].append([f"{stem}.{entry}", [width], "float32"])
        parts[part].append([f"{stem}.num_batches_tracked", [], "int64"])

    def dense(stem: str, incoming: int, outgoing: int) -> None:
        parts["graph_net"] += [[f"{stem}.0.weight", [outgoing, incoming], "float32"]]
        parts["graph_net"] += [[f"{stem}.0.bias", [outgoing], "float32"]]
        norm("graph_net", f"{stem}.2", outgoing)

    if kind != 1:
        attention = {"lin.weight": [8, 7], "att_src": [1, 2, 4], "att_dst": [1, 2, 4], "bias": [8]}
        parts["graph_net"] += [[f"node_conv.{entry}", shape, "float32"] for entry, shape in attention.items()]
    if kind in (1, 2):
        stem = "edge_conv1" if kind == 1 else "edge_conv"
        dense(f"{stem}.nn.0", 14, 16)
        dense(f"{stem}.nn.1", 16, 8)
    if kind in (1, 3):
        dense("edge_conv2.nn.0" if kind == 1 else "edge_conv.nn.0", 16, 8)
    widths = [1, *(8 * min(2**level, 8) for level in range(layers))]
    for number in range(1, layers + 1):
        up_in = widths[-1] + 16 if number == 1 else 2 * widths[-number]
        for stem, shape in (
            (f"audionet_convlayer{number}", [widths[number], widths[number - 1], 4, 4]),
            (f"audionet_upconvlayer{number}", [up_in, widths[-number - 1], 4, 4]),
        ):
            out = shape[1] if "up" in stem else shape[0]
            parts["unet"] += [[f"{stem}.0.weight", shape, "float32"], [f"{stem}.0.bias", [out], "float32"]]
            if out > 1:
                norm("unet", f"{stem}.1", out)
    official = read("classifier").spec["weights"]["parts"]["classifier"]
    shape = {"fc.weight": [5, 512], "fc.bias": [5]}
    parts["classifier"] = [[key, shape.get(key, usual), dtype] for key, usual, dtype in official]
    nodes, rows = 3 * recordings, recordings * sounds
    joined = [(u, v) for u in range(nodes) for v in range(nodes) if u // 3 == v // 3]
    values: dict[str, Any] = {
        "nodes": f"draw('nodes', [{nodes}, 6], 'abs')",
        "edge_index": {"value": [list(row) for row in zip(*joined, strict=True)]},
        "batch_vec": {"expr": f"np.arange({nodes}) // 3 + 1", "dtype": "int64"},
        "rnn_init": f"np.zeros([1, {recordings}, 16])",
    }
    if name == "e2e_test":
        values |= {"batch_vec": {"expr": f"np.zeros([{nodes}])", "dtype": "int64"}, "mixture": "draw('m', [2047])"}
        return variation(name, settings, values, parts)
    members = settings.get("num_per_mix", 2)
    values |= {
        "waves": f"0.1 * draw('waves', [{recordings}, 2047])",
        "mixtures": f"np.repeat(np.sum(waves.reshape(-1, {members}, 2047), axis=1) / {members}, {members}, axis=0)",
        "labels": {"expr": f"np.arange({rows}) % 5", "dtype": "int64"},
        "loss_ind": f"np.ones([{rows}])",
        "video_index": {"expr": f"np.arange({recordings}).repeat({sounds})", "dtype": "int64"},
    }
    return variation(name, settings, values, parts)


@pytest.mark.parametrize(
    "config",
    [
        {"gnet_type": 0, "hidden_act": "gelu"},
        {"gnet_type": 1, "hidden_act": "swish"},
        {"gnet_type": 2, "mask_loss_type": "L2"},
        {"unet_num_layers": 4, "mask_loss_type": "BCE", "gt_mask_clamp": [0, 1]},
        {"unroll_steps": 4, "num_object_per_video": 3},
        {"num_per_mix": 3, "recordings": 6},
        {"log_freq": False, "log_bins": 0},
    ],
)
def test_other_settings_of_training(config: Any) -> None:
    """The losses add up, masks are masks, and a mixture is not seen by the mixtures beside it."""
    recordings = config.get("recordings", 4)
    got = outputs(small("e2e_train", **{"recordings": recordings, **config}))
    total = got["coseparation_loss"] + got["orthogonality_loss"] + got["class_loss_reordered"]
    torch.testing.assert_close(got["total_loss"], total)
    assert got["class_loss_reordered"] <= got["class_loss_plain"]
    sounds = config.get("unroll_steps", 3)
    assert got["mask"].shape[0] == recordings * sounds == len(got["gt_mask"]) == len(got["source_embeddings"])
    assert got["mask"].shape == got["pred_spectrogram"].shape and got["mask"].std() > 0
    half = outputs(small("e2e_train", **{**config, "recordings": recordings // 2}))
    for name in ("mask_logits", "decoder1", "gt_mask"):
        assert not torch.equal(got[name][: len(half[name])], got[name][-len(half[name]) :])
    torch.testing.assert_close(got["graph_embedding"][: recordings // 2], half["graph_embedding"])


def test_weights_of_the_losses() -> None:
    one = outputs(small("e2e_train"))
    other = outputs(
        small("e2e_train", classifier_loss_weight=0.1, coseparation_loss_weight=3, orthogonality_loss_weight=2)
    )
    for name, factor in (("class_loss_plain", 2), ("coseparation_loss", 3), ("orthogonality_loss", 2)):
        torch.testing.assert_close(other[name], factor * one[name])


def test_a_training_step_of_a_small_network() -> None:
    """Every part gets a gradient, statistics move, and what a setting takes away is left out."""
    case = small("train_step", unet_num_layers=4)
    got = outputs(case)
    norms = [name for name in read("train_step").spec["outputs"] if name.startswith("grad_norm")]
    assert len(norms) == 5 and all(got[name] > 0 for name in norms)
    before = case.state_dicts["unet"]["audionet_convlayer1.1.running_mean"]
    assert not torch.allclose(got["bn_running_mean_unet_down1"].float(), before)
    assert "grad_gat_bias" not in outputs(small("train_step", unet_num_layers=4, gnet_type=1))


def test_several_objects_in_one_mixture() -> None:
    """Rows are objects and their sounds; the waveform of one is as long as the window."""
    got = outputs(small("e2e_test", recordings=1, unroll_steps=2))
    assert got["mask"].shape == got["pred_spectrogram"].shape == (2, 1, 32, 32)
    assert got["wave"].shape == (2, 2047)
    assert got["logits"].shape == (2, 5)


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("e2e_train", {"weighted_loss": False}),
        ("e2e_train", {"loss_weight_clamp": [0, 10]}),
        ("e2e_test", {"stft_window": "hamming"}),
        ("map_net", {"negative_slope": 0.01}),
        ("rnn_unroll", {"num_layers": 2}),
        ("classifier", {"input_channel": 3}),
    ],
)
def test_settings_the_method_cannot_have(name: str, setting: Any) -> None:
    with pytest.raises(DataError, match=next(iter(setting))):
        outputs(variation(name, setting))
