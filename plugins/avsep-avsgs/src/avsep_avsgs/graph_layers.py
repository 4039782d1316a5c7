"""Layers on graphs that are given as lists of edges: attention over neighbours, edge convolution, and two pools.

Every shape that they make follows from the shapes that they are given, never from the edges' values. Names and shapes
of their entries are those of torch-geometric 2.5 and later.
"""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["EdgeConvolution", "GraphAttention", "largest", "mean"]


class GraphAttention(nn.Module):
    """Each node takes in the nodes that edges lead from, weighted by attention, and itself once.

    With z = W x of a node, an edge from u to v weighs softmax(leaky_relu(<a_src, z_u> + <a_dst, z_v>)), over the edges
    that lead to v; an edge that is listed twice counts twice. A loop in the list is left out and each node gets one.

    Source: Velickovic et al., Graph Attention Networks, ICLR 2018, equations 1 to 5; the heads are concatenated. The
    vector a of equation 3 is in two halves here, as in torch-geometric.

    Args:
        features: width D of a node.
        width: C of a head.
        heads: H.
        negative_slope: of the leaky ReLU.
    """

    def __init__(self, features: int, width: int, *, heads: int, negative_slope: float = 0.2) -> None:
        super().__init__()
        self.negative_slope = negative_slope
        self.lin = nn.Linear(features, heads * width, bias=False)
        self.att_src = nn.Parameter(torch.empty(1, heads, width))
        self.att_dst = nn.Parameter(torch.empty(1, heads, width))
        self.bias = nn.Parameter(torch.zeros(heads * width))
        nn.init.xavier_uniform_(self.lin.weight)
        for vector in (self.att_src, self.att_dst):
            nn.init.uniform_(vector, -sqrt(6 / (heads + width)), sqrt(6 / (heads + width)))

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        """(M, D) and int64 (2, E), from (row 0) and to (row 1) -> (M, H C)."""
        (tells, told), loop = edges.unbind(), edges[0] == edges[1]
        z = self.lin(nodes).unflatten(1, self.att_src.shape[1:])
        telling, hearing = (z * self.att_src).sum(dim=2), (z * self.att_dst).sum(dim=2)
        own = F.leaky_relu(telling + hearing, self.negative_slope)
        scores = F.leaky_relu(telling.index_select(0, tells) + hearing.index_select(0, told), self.negative_slope)
        scores = scores.masked_fill(loop[:, None], -torch.inf)
        highest = own.detach().scatter_reduce(0, told[:, None].expand_as(scores), scores.detach(), "amax")
        own, weights = (own - highest).exp(), (scores - highest.index_select(0, told)).exp()
        total = own.index_add(0, told, weights)
        taken = (own[:, :, None] * z).index_add(0, told, weights[:, :, None] * z.index_select(0, tells))
        return (taken / total[:, :, None]).flatten(1) + self.bias


class EdgeConvolution(nn.Module):
    """Each node has the largest of what a network makes of it and of how each node that tells it differs from it.

    Source: Wang et al., Dynamic Graph CNN for Learning on Point Clouds, ACM ToG 2019, section 3.1: the edge function of
    a node and of the difference to its neighbour.

    Args:
        nn: the network, (E, 2 D) -> (E, C).
    """

    def __init__(self, nn: nn.Module) -> None:
        super().__init__()
        self.nn = nn

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        """(M, D) and int64 (2, E), from (row 0) and to (row 1) -> (M, C), zeros where no edge leads to a node."""
        tells, told = edges.unbind()
        hearing = nodes.index_select(0, told)
        return largest(
            self.nn(torch.cat((hearing, nodes.index_select(0, tells) - hearing), dim=1)), told, nodes.shape[0]
        )


def largest(rows: Tensor, group: Tensor, groups: int) -> Tensor:
    """Rows (R, C), each of a group, int64 (R,) -> the largest values of each group (G, C); zeros for an empty one."""
    index = group[:, None].expand_as(rows)
    return rows.new_zeros(groups, rows.shape[1]).scatter_reduce(0, index, rows, "amax", include_self=False)


def mean(rows: Tensor, group: Tensor, groups: int) -> Tensor:
    """Rows (R, C), each of a group, int64 (R,) -> the mean of each group (G, C); zeros for an empty one."""
    count = rows.new_zeros(groups).index_add(0, group, rows.new_ones(group.shape[0]))
    return rows.new_zeros(groups, rows.shape[1]).index_add(0, group, rows) / count.clamp(min=1)[:, None]
