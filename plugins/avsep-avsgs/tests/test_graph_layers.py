"""The layers on graphs against those of torch-geometric: the same entries, outputs and gradients."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from math import sqrt
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from avsep_avsgs.graph import GraphNet, complete_graphs
from avsep_avsgs.graph_layers import EdgeConvolution, GraphAttention, largest, mean

with warnings.catch_warnings():  # at its import it uses what torch has deprecated
    warnings.filterwarnings("ignore", message="`torch.jit.script", category=FutureWarning)
    from torch_geometric.nn import EdgeConv, GATConv, global_max_pool, global_mean_pool

NODES, FEATURES = 12, 6
EDGES = {
    "random, some twice": lambda: torch.randint(NODES, (2, 60)),
    "nodes without edges": lambda: torch.randint(NODES // 2, (2, 30)),
    "loops, some twice": lambda: torch.arange(NODES // 2).repeat(2, 2),
    "loops among others": lambda: torch.cat((torch.arange(NODES).repeat(2, 1), torch.randint(NODES, (2, 40))), dim=1),
    "one way": lambda: torch.tensor([[0, 0, 1], [1, 2, 2]]),
    "complete graphs": lambda: complete_graphs(torch.arange(7)[None] < torch.tensor([[5], [0], [7]]))[0],
    "none": lambda: torch.zeros(2, 0, dtype=torch.int64),
}


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2 * FEATURES, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(8, 5))


def outcome(layer: Callable[..., Tensor], nodes: Tensor, *rest: Any) -> list[Tensor]:
    """The output, and the gradients of the nodes and of every parameter at a loss that sees every number."""
    nodes = nodes.clone().requires_grad_()
    out = layer(nodes, *rest)
    (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
    learned = dict(layer.named_parameters()) if isinstance(layer, nn.Module) else {}
    return [
        value for value in (out, nodes.grad, *(learned[name].grad for name in sorted(learned))) if value is not None
    ]


@pytest.mark.parametrize("edges", EDGES)
def test_attention(edges: str) -> None:
    """Four heads, from the same weights."""
    theirs = GATConv(FEATURES, 3, heads=4, negative_slope=0.2).double()
    nn.init.normal_(theirs.bias)
    ours = GraphAttention(FEATURES, 3, heads=4).double()
    ours.load_state_dict(theirs.state_dict())
    nodes, links = 3 * torch.randn(NODES, FEATURES, dtype=torch.float64), EDGES[edges]()
    torch.testing.assert_close(outcome(ours, nodes, links), outcome(theirs, nodes, links))


@pytest.mark.parametrize("edges", [name for name in EDGES if name != "none"])
@pytest.mark.parametrize("train", [True, False])
def test_edge_convolution(edges: str, train: bool) -> None:
    """Batch normalisation has the statistics of the same edges, which move alike."""
    theirs = EdgeConv(network()).double().train(train)
    ours = EdgeConvolution(network()).double().train(train)
    ours.load_state_dict(theirs.state_dict())
    nodes, links = torch.randn(NODES, FEATURES, dtype=torch.float64), EDGES[edges]()
    torch.testing.assert_close(outcome(ours, nodes, links), outcome(theirs, nodes, links))
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_a_node_that_no_edge_leads_to_has_zeros() -> None:
    """Of the edge convolution; attention gives what the node is itself."""
    nodes, links = -1 - torch.rand(3, FEATURES), torch.tensor([[0, 0], [1, 1]])
    convolved = EdgeConvolution(nn.Linear(2 * FEATURES, 5))(nodes, links)
    assert torch.equal(convolved[[0, 2]], torch.zeros(2, 5)) and convolved[1].abs().min() > 0
    attention = GraphAttention(FEATURES, 3, heads=2)
    torch.testing.assert_close(attention(nodes, links)[[0, 2]], attention.lin(nodes)[[0, 2]])


@pytest.mark.parametrize(("ours", "theirs"), [(largest, global_max_pool), (mean, global_mean_pool)])
def test_pools(ours: Callable[..., Tensor], theirs: Callable[..., Tensor]) -> None:
    """Groups in any order, one of a single row, the last ones empty; where two rows are largest they share."""
    rows, group = torch.randn(9, 4, dtype=torch.float64), torch.tensor([3, 0, 0, 3, 1, 0, 3, 3, 0])
    rows[3] = rows[0]
    found, wanted = outcome(ours, rows, group, 6), outcome(theirs, rows, group, 6)
    torch.testing.assert_close(found, wanted)
    assert found[0][[2, 4, 5]].eq(0).all() and found[0][1].equal(rows[4])


def test_large_scores_stay_finite() -> None:
    """The softmax is taken from the largest score on; a node with a far larger score is all that is taken in."""
    attention = GraphAttention(1, 1, heads=1)
    for name, value in {"lin.weight": 1.0, "att_src": 1e4, "att_dst": 0.0}.items():
        nn.init.constant_(attention.get_parameter(name), value)
    found = attention(torch.tensor([[1.0], [2.0], [-3.0]]), torch.tensor([[0, 1, 2], [2, 2, 1]]))
    assert found[:, 0].tolist() == [1.0, 2.0, 2.0]


def test_first_weights() -> None:
    """Uniform between the bounds of Glorot; the bias is zero."""
    attention = GraphAttention(512, 64, heads=4)
    bounds = {"lin.weight": sqrt(6 / 768), "att_src": sqrt(6 / 68), "att_dst": sqrt(6 / 68), "bias": 0.0}
    for name, bound in bounds.items():
        value = attention.get_parameter(name)
        assert 0.95 * bound <= value.abs().max() <= bound and abs(value.mean()) <= 0.15 * bound


def test_export_and_compilation() -> None:
    """One graph of operations for any number of nodes and edges."""
    net = GraphNet(FEATURES, hidden=8, heads=2).eval()

    def graphs(*sizes: int) -> tuple[Tensor, Tensor, Tensor, int]:
        edges, graph = complete_graphs(torch.arange(5)[None] < torch.tensor(sizes)[:, None])
        return torch.randn(len(graph), FEATURES), edges, graph, len(sizes)

    any_number = torch.export.Dim.DYNAMIC
    shapes = {"nodes": {0: any_number}, "edges": {1: any_number}, "graph": {0: any_number}, "graphs": None}
    exported = torch.export.export(net, graphs(3, 2), dynamic_shapes=shapes).module()
    compiled = torch.compile(net, fullgraph=True, dynamic=True, backend="eager")
    for given in (graphs(3, 2), graphs(5, 0)):
        torch.testing.assert_close(exported(*given), net(*given))
        torch.testing.assert_close(compiled(*given), net(*given))
