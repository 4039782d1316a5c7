"""The network that makes maps of pictures: sizes, each step written out plainly, what training moves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avsep_ial_cms.deeplab import DeepLab


def small(**settings: Any) -> DeepLab:
    """In evaluation mode, with statistics of batch norms that are not those of a fresh network."""
    network = DeepLab(**{"width": 3, "pyramid": 4, "details": 5, "space": 6, **settings}).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_(0.0, 0.2)
                module.running_var.uniform_(0.5, 2.0)
    return network


def test_published_sizes() -> None:
    with torch.device("meta"):
        network = DeepLab()
        assert network(torch.empty(2, 3, 224, 224)).shape == (2, 512, 28, 28)
    assert sum(p.numel() for p in network.parameters()) == 18_751_184
    assert sum(p.numel() for p in network.parameters() if not p.requires_grad) == 11_176_512


def test_vectors_have_length_one() -> None:
    """At every place, of pictures that are not square, too."""
    maps = small()(torch.randn(2, 3, 48, 32))
    assert maps.shape == (2, 6, 6, 4)
    torch.testing.assert_close(maps.norm(dim=1), torch.ones(2, 6, 4))


def test_pictures_do_not_see_each_other() -> None:
    network, images = small(), torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(network(images)[1:2], network(images[1:2]))


def normed(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    """Batch norm in evaluation mode."""
    mean, variance, scale, offset = (
        state[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (variance + 1e-5).sqrt() * scale + offset


def test_the_pyramid_by_hand() -> None:
    """Every point of every branch is a sum over the points around it, as far away as its dilation says."""
    network = small(dilations=(1, 2, 3))
    state, deep = network.state_dict(), torch.randn(2, 24, 4, 3)
    branches = []
    for number, dilation in enumerate((1, 2, 3)):
        weight = state[f"branches.{number}.conv.weight"]
        around = 0 if dilation == 1 else 1
        assert weight.shape == (4, 24, 2 * around + 1, 2 * around + 1)
        padded = F.pad(deep, [around * dilation] * 4)
        out = torch.zeros(2, 4, 4, 3)
        for row in range(4):
            for column in range(3):
                for i in range(2 * around + 1):
                    for j in range(2 * around + 1):
                        seen = padded[:, :, row + i * dilation, column + j * dilation]
                        out[:, :, row, column] += seen @ weight[:, :, i, j].T
        out = normed(out, state, f"branches.{number}.norm")
        branches.append(torch.where(out > 0, out, 0.01 * out))
    mean = deep.sum(dim=(2, 3)) / 12
    overall = normed((mean @ state["overall.0.weight"][:, :, 0, 0].T)[:, :, None, None], state, "overall.1").relu()
    joined = torch.cat((*branches, overall.expand(-1, -1, 4, 3)), dim=1)
    merged = torch.einsum("oi,nihw->nohw", state["merge.0.weight"][:, :, 0, 0], joined)
    torch.testing.assert_close(network.pool(deep), normed(merged, state, "merge.1").relu())


def test_the_decoder_by_hand() -> None:
    """Corners of what is upsampled stay where they are; rectifiers come before batch norms."""
    network = small()
    state, pooled, shallow = network.state_dict(), torch.randn(1, 8, 2, 2), torch.randn(1, 6, 4, 4)
    steps = torch.linspace(0, 1, 4)
    down, across = steps[:, None], steps[None, :]
    corner = pooled[..., None, None]
    upper = corner[:, :, 0, 0] * (1 - across) + corner[:, :, 0, 1] * across
    lower = corner[:, :, 1, 0] * (1 - across) + corner[:, :, 1, 1] * across
    finer = upper * (1 - down) + lower * down
    details = torch.einsum("oi,nihw->nohw", state["details.0.weight"][:, :, 0, 0], shallow)
    details = normed((details + state["details.0.bias"][:, None, None]).relu(), state, "details.2")
    joined = F.pad(torch.cat((finer, details), dim=1), [1] * 4)
    out = state["decoder.0.bias"][None, :, None, None] + sum(
        torch.einsum("oi,nihw->nohw", state["decoder.0.weight"][:, :, i, j], joined[:, :, i : i + 4, j : j + 4])
        for i in range(3)
        for j in range(3)
    )
    torch.testing.assert_close(network.decode(pooled, shallow), normed(out.relu(), state, "decoder.2"))


def test_a_frozen_resnet_learns_statistics_only() -> None:
    network = small().train()
    norm: Any = network.features.bn1
    before = norm.running_mean.clone()
    network(torch.randn(2, 3, 32, 32)).square()[:, 0].sum().backward()
    assert all(p.grad is None for p in network.features.parameters())
    assert not torch.equal(norm.running_mean, before)
    learned = [p for name, p in network.named_parameters() if not name.startswith("features")]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in learned)


def test_a_resnet_that_is_not_frozen_learns() -> None:
    network = small(frozen=False).train()
    network(torch.randn(2, 3, 32, 32)).square()[:, 0].sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.features.parameters())


def test_statistics_of_the_common_space_move_as_in_two_passes() -> None:
    """As those of a batch norm of the usual momentum that sees the same twice."""
    network = small().train()
    norm: Any = network.common[2]
    usual = nn.BatchNorm2d(6).train()
    usual.load_state_dict(norm.state_dict())
    seen: list[Tensor] = []
    norm.register_forward_hook(lambda _, given, __: seen.append(given[0].detach()))
    network(torch.randn(2, 3, 32, 32))
    usual(seen[0]), usual(seen[0])
    torch.testing.assert_close(norm.running_mean, usual.running_mean)
    torch.testing.assert_close(norm.running_var, usual.running_var)


def test_half_precision() -> None:
    """Lengths are exact: they are set in full precision."""
    network, images = small(), torch.randn(2, 3, 32, 32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        maps = network(images)
    assert maps.dtype == torch.float32
    torch.testing.assert_close(maps.norm(dim=1), torch.ones(2, 4, 4))
    torch.testing.assert_close(maps, network(images), atol=0.1, rtol=0)
