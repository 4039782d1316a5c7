"""The network on scene graphs: graph attention and edge convolution, pooled to one vector per graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avsep_avsgs.graph_layers import EdgeConvolution, GraphAttention, largest, mean

__all__ = ["Activation", "GraphNet", "complete_graphs"]

Activation = Literal["relu", "gelu", "swish"]

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu, "swish": F.silu}


class GraphNet(nn.Module):
    """Graph attention on the nodes, edge convolution on their differences, and what is largest and usual in a graph.

    Source: Chatterjee et al., Visual Scene Graphs for Audio Source Separation, ICCV 2021, section 3.2; the layers:
    :mod:`avsep_avsgs.graph_layers`.

    Args:
        features: width D of a node.
        hidden: width of each layer's output; a graph's vector has twice as many.
        heads: of the attention.
        kind: 0: attention alone; 1: two edge convolutions; 2: both, averaged over the nodes; 3: both, the largest and
            the average over the nodes (the published one).
        activation: after each layer.
    """

    def __init__(
        self, features: int, *, hidden: int = 256, heads: int = 4, kind: int = 3, activation: Activation = "relu"
    ) -> None:
        super().__init__()
        if kind not in (0, 1, 2, 3):
            raise ValueError(f"The graph network is of kind {kind}; give 0, 1, 2 or 3.")
        if activation not in _ACTIVATIONS:
            raise ValueError(f"The activation is {activation!r}; give one of {', '.join(_ACTIVATIONS)}.")
        if hidden < 1 or heads < 1 or hidden % heads:
            raise ValueError(f"{hidden} hidden features cannot be shared by {heads} heads; give a multiple.")
        self.kind, self.width, self.activate = kind, 2 * hidden, _ACTIVATIONS[activation]
        if kind != 1:
            self.node_conv = GraphAttention(features, hidden // heads, heads=heads)
        if kind == 1:
            self.edge_conv1 = EdgeConvolution(
                nn.Sequential(_block(2 * features, 2 * hidden), _block(2 * hidden, hidden))
            )
            self.edge_conv2 = EdgeConvolution(nn.Sequential(_block(2 * hidden, hidden)))
        elif kind == 2:
            self.edge_conv = EdgeConvolution(
                nn.Sequential(_block(2 * features, 2 * hidden), _block(2 * hidden, hidden))
            )
        elif kind == 3:
            self.edge_conv = EdgeConvolution(nn.Sequential(_block(2 * hidden, hidden)))

    def forward(self, nodes: Tensor, edges: Tensor, graph: Tensor, graphs: int) -> Tensor:
        """Return one vector per graph (G, 2 hidden); zeros for a graph without nodes.

        Args:
            nodes: (M, D).
            edges: int64 (2, E), from (row 0) and to (row 1).
            graph: int64 (M,): the graph of each node, 0 to ``graphs`` - 1.
            graphs: G.
        """
        layers = [self.activate(layer) for layer in self.convolve(nodes, edges).values()]
        if self.kind == 2:
            return torch.cat([mean(layer, graph, graphs) for layer in layers], dim=1)
        if self.kind == 1:
            layers = [layers[0] + layers[1]]
        pooled = [torch.cat((largest(x, graph, graphs), mean(x, graph, graphs)), dim=1) for x in layers]
        return pooled[0] + pooled[1] if len(pooled) > 1 else pooled[0]

    def convolve(self, nodes: Tensor, edges: Tensor) -> dict[str, Tensor]:
        """Outputs (M, hidden) of the layers, by name, before the activation; arguments as :meth:`forward`."""
        if self.kind == 1:
            first = self.edge_conv1(nodes, edges)
            return {"edge_conv1": first, "edge_conv2": self.edge_conv2(self.activate(first), edges)}
        attended = self.node_conv(nodes, edges)
        if self.kind == 0:
            return {"node_conv": attended}
        entering = nodes if self.kind == 2 else self.activate(attended)
        return {"node_conv": attended, "edge_conv": self.edge_conv(entering, edges)}


def complete_graphs(present: Tensor) -> tuple[Tensor, Tensor]:
    """Complete directed graphs with self loops over the nodes that are there.

    Args:
        present: bool (G, K).

    Returns:
        Edges int64 (2, E) between the M nodes that are there, numbered graph by graph, and the graph of each (M,).
    """
    graph = torch.nonzero(present)[:, 0]
    edges = torch.nonzero(graph[:, None] == graph[None, :]).T
    return edges, graph


def _block(incoming: int, outgoing: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(incoming, outgoing), nn.ReLU(), nn.BatchNorm1d(outgoing))
