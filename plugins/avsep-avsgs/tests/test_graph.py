"""The network on graphs: its kinds, what a graph does not depend on, and graphs without nodes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from avsep_avsgs.graph import GraphNet, complete_graphs

KINDS = (0, 1, 2, 3)


def graphs(*sizes: int, most: int = 5, width: int = 6) -> tuple[Tensor, Tensor, Tensor, int]:
    """Arguments of a GraphNet: complete graphs of so many random nodes."""
    present = torch.arange(most)[None] < torch.tensor(sizes)[:, None]
    edges, graph = complete_graphs(present)
    return torch.randn(len(graph), width), edges, graph, len(sizes)


def small(kind: int = 3, **settings: Any) -> GraphNet:
    return GraphNet(6, hidden=8, heads=2, kind=kind, **settings).eval()


def test_complete_graphs_have_every_pair_and_loops() -> None:
    """Of the nodes that are there, numbered without gaps, the source of an edge slowest."""
    present = torch.tensor([[True, False, True], [False, False, False], [False, True, False]])
    edges, graph = complete_graphs(present)
    assert graph.tolist() == [0, 0, 2]
    assert edges.T.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [2, 2]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_vector_per_graph(kind: int) -> None:
    """Twice as wide as a layer; a graph without nodes has zeros, and every parameter learns."""
    net = small(kind).train()
    out = net(*graphs(3, 0, 1))
    assert out.shape == (3, 16) == (3, net.width)
    assert out[1].eq(0).all() and out[0].abs().sum() > 0
    out.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_graphs_do_not_see_each_other(kind: int) -> None:
    net, (nodes, edges, graph, count) = small(kind), graphs(3, 2)
    together = net(nodes, edges, graph, count)
    alone = net(nodes[3:], complete_graphs(torch.ones(1, 2, dtype=torch.bool))[0], graph[3:] - 1, 1)
    torch.testing.assert_close(alone[0], together[1])


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_nodes_does_not_matter(kind: int) -> None:
    net, (nodes, edges, graph, count) = small(kind), graphs(4)
    torch.testing.assert_close(net(nodes.flip(0), edges, graph, count), net(nodes, edges, graph, count))


def test_surroundings_count() -> None:
    """Another node changes the vector."""
    net, (nodes, _, _, _) = small(), graphs(3)
    one, two = (net(nodes[:k], *complete_graphs(torch.ones(1, k, dtype=torch.bool)), 1) for k in (1, 2))
    assert not torch.allclose(one, two)


def test_layers_by_name() -> None:
    """The layers as they are before their activation."""
    names = [["node_conv"], ["edge_conv1", "edge_conv2"], ["node_conv", "edge_conv"], ["node_conv", "edge_conv"]]
    for kind, wanted in zip(KINDS, names, strict=True):
        layers = small(kind).convolve(*graphs(3)[:2])
        assert list(layers) == wanted
        assert all(layer.shape == (3, 8) for layer in layers.values())
        assert kind == 1 or layers["node_conv"].min() < 0


@pytest.mark.parametrize("activation", ["relu", "gelu", "swish"])
def test_activations(activation: Any) -> None:
    net, given = small(0, activation=activation), graphs(2)
    layer = net.convolve(*given[:2])["node_conv"]
    act = {"relu": torch.relu, "gelu": torch.nn.functional.gelu, "swish": lambda x: x * torch.sigmoid(x)}[activation]
    torch.testing.assert_close(net(*given)[0, 8:], act(layer).mean(dim=0))


def test_published_sizes() -> None:
    """Numbers of parameters of the published kind, and its names."""
    net = GraphNet(512)
    assert sum(p.numel() for p in net.parameters()) == 263_680
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    assert shapes["node_conv.lin.weight"] == (256, 512) and shapes["node_conv.att_src"] == (1, 4, 64)
    assert shapes["edge_conv.nn.0.0.weight"] == (256, 512) and shapes["edge_conv.nn.0.2.running_mean"] == (256,)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"kind": 4}, "of kind 4; give 0, 1, 2 or 3"),
        ({"activation": "tanh"}, "'tanh'; give one of relu, gelu, swish"),
        ({"heads": 3}, "8 hidden features cannot be shared by 3 heads"),
        ({"heads": 0}, "cannot be shared by 0 heads"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        GraphNet(6, **{"hidden": 8, "heads": 2, **settings})
